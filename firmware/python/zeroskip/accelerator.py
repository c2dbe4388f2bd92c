"""The accelerator: load a network image, run inputs, read maps and counters."""
from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np

from .board import DevMemRegisters, DmaBuffer, FileMemory, SocketRegisters, UioRegisters
from .errors import BoardError, MapError, RunError, RunTimeout, ZeroskipError
from .image import PAGE, read_image
from .maps import decode_map, encode_map, value_type
from .registers import COUNTERS, ERRORS, FIELDS, IDENTITY, LOG_BYTES, OFFSETS, VERSION
from .serial_line import SerialLine, SerialMemory, SerialRegisters, open_port

#: Seconds that a stop may take: it waits for what is on the bus.
STOP_SECONDS = 5.0


def _mask(register, field):
    return FIELDS[register, field][1]


DONE, ERROR = _mask("status", "done"), _mask("status", "error")


class Accelerator:
    """An accelerator with its memory.

    Parameters
    ----------
    registers, memory
        As ``zeroskip.board`` describes them. They are closed with the accelerator.

    Members
    -------
    image : Image or None
        What was loaded.

    Raises
    ------
    BoardError
        What answers is no accelerator, or one with another register map.
    """

    def __init__(self, registers, memory):
        self.registers, self.memory, self.image = registers, memory, None
        self._closing = ExitStack()
        self._closing.callback(memory.close)
        self._closing.callback(registers.close)
        try:
            identity, version = self.read("identity"), self.read("version")
            if identity != IDENTITY:
                raise BoardError(f"register identity reads {identity:#010x} in place of {IDENTITY:#010x}: is the "
                                 "bitstream loaded, and the address of the registers right?")
            # A later minor version has more registers.
            if version >> 16 != VERSION >> 16 or version >> 8 < VERSION >> 8:
                raise BoardError(f"the accelerator has register map {_dotted(version)}, this package is for "
                                 f"{_dotted(VERSION)}: use the package that came with the bitstream")
            # Log address 0 means that there is no log.
            if not memory.address or memory.address % PAGE:
                raise BoardError(f"the memory at {memory.address:#x} does not start at a multiple of {PAGE} above 0")
        except ZeroskipError:
            self.close()
            raise

    @classmethod
    def from_uio(cls, uio: str | None = None, buffer: str = "udmabuf0", *, root="/") -> Accelerator:
        """Registers and interrupt by UIO, memory by u-dma-buf.

        ``uio``: such as ``uio0``; None: the device whose device tree node is called ``zeroskip``.
        """
        return cls._opened(UioRegisters(uio, root=root), lambda: DmaBuffer(buffer, root=root))

    @classmethod
    def from_dev_mem(cls, address: int = 0x43C0_0000, buffer: str = "udmabuf0", *, root="/") -> Accelerator:
        """Registers at the bus address ``address`` by /dev/mem, without interrupt; memory by u-dma-buf."""
        return cls._opened(DevMemRegisters(address, root=root), lambda: DmaBuffer(buffer, root=root))

    @classmethod
    def from_socket(cls, path, memory, address: int = 0x1000_0000) -> Accelerator:
        """A simulated one: ``path``, ``memory`` and ``address`` as in ``--socket``, ``--memory`` and ``--base`` of
        ``python -m boards.sim.server``."""
        return cls._opened(SocketRegisters(path), lambda: FileMemory(memory, address))

    @classmethod
    def from_serial(cls, port: str, baud: int = 1_000_000) -> Accelerator:
        """A board without processor (boards/ecp5) at the serial port ``port``, such as /dev/ttyUSB0; needs pyserial."""
        line = SerialLine(open_port(port, baud))
        return cls._opened(SerialRegisters(line), lambda: SerialMemory(line))

    @classmethod
    def _opened(cls, registers, open_memory):
        try:
            memory = open_memory()
        except ZeroskipError:
            registers.close()
            raise
        return cls(registers, memory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Close registers and memory. May be called twice."""
        self._closing.close()

    def read(self, register: str) -> int:
        """The value of a register, by its name in docs/registers.md."""
        return self.registers.read(OFFSETS[register])

    def write(self, register: str, value: int) -> None:
        """Write a register, by its name in docs/registers.md."""
        self.registers.write(OFFSETS[register], value)

    def load(self, path) -> None:
        """Put the network image in the file ``path`` into memory.

        :class:`ImageError` if it is damaged; :class:`BoardError` if it was compiled for another accelerator or does
        not fit the memory.
        """
        image = read_image(path)
        for name, wanted in (("capability", image.capability), ("configuration", image.configuration)):
            if self.read(name) != wanted:
                raise BoardError(f"{path} was compiled for another accelerator: its {name} is {wanted:#010x}, this one "
                                 f"has {self.read(name):#010x}; compile it for the configuration of the bitstream")
        if image.region_bytes > self.memory.data.size or self.memory.address + image.region_bytes > 1 << 32:
            raise BoardError(f"{path} needs {image.region_bytes} bytes of memory below 4 GiB; there are "
                             f"{self.memory.data.size} at {self.memory.address:#x}")
        contents = [(image.descriptor_offset, image.relocated(self.memory.address)), *image.segments[1:]]
        for offset, content in contents:
            self._put(offset, np.frombuffer(content, np.uint8))
        self.image = image

    def run(self, x, *, maps=None, real: bool = False, timeout: float = 10.0) -> dict[str, np.ndarray]:
        """Run the loaded network on ``x`` and return its maps by name, each [C, H, W].

        Parameters
        ----------
        x : array [C, H, W]
            Integers in the range of the input map; with ``real`` real values, which are rounded and clamped.
        maps : iterable of str or None
            Names of the maps to return; None: the outputs of the network.
        real : bool
            ``x`` and the maps are real values (float32), else integers.
        timeout : float
            Seconds after which the run is stopped.

        Raises
        ------
        BoardError
            No image is loaded, or the board does not answer.
        MapError
            ``x`` does not fit, there is no map of a name, it has no scale (with ``real``), or a map in memory is not
            well-formed.
        RunError
            The accelerator stopped with an error. It can run again.
        RunTimeout
            The run was stopped after ``timeout``. It can run again.
        """
        image = self._loaded()
        plans = self._plans(maps)
        for name, plan in plans.items():
            if real and not plan.scale:
                raise MapError(f"map {name} has no scale that holds for all of its channels: read it as integers")
        self._put(image.input.offset, encode_map(self._quantised(x) if real else x, image.input))
        self._start()
        self._finish(timeout)
        results = {}
        for name, plan in plans.items():
            values = decode_map(self._get(plan.offset, plan.size), plan)
            results[name] = values * np.float32(plan.scale) if real else values
        return results

    def stop(self) -> None:
        """Stop a run that another program, or an interrupted one, has left behind; harmless if there is none."""
        self.write("status", DONE | ERROR)
        self.write("control", _mask("control", "stop"))
        if not self._wait(ERROR, STOP_SECONDS):
            raise BoardError(f"the accelerator did not react to stop within {STOP_SECONDS} s: load the bitstream again")
        self.write("status", DONE | ERROR)

    def counters(self) -> list[dict[str, int]]:
        """The counters of each layer of the last run, by their names in docs/registers.md."""
        image = self._loaded()
        log = self._get(image.log_offset, image.layer_count * LOG_BYTES)
        records = log.view("<u8").reshape(image.layer_count, -1)
        return [{name: int(record[index]) for index, name in enumerate(COUNTERS)} for record in records]

    def cycles(self) -> int:
        """Clock cycles of the last run."""
        # The low word is read first: it latches the high one.
        low = self.read("cycles_low")
        return low | self.read("cycles_high") << 32

    def _loaded(self):
        if self.image is None:
            raise BoardError("no network image is loaded: call load first")
        return self.image

    def _plans(self, names):
        plans = self.image.maps
        if names is None:
            return {name: plan for name, plan in plans.items() if plan.output}
        names = list(names)
        for name in names:
            if name not in plans:
                raise MapError(f"network {self.image.name} has no map {name!r}; there are {', '.join(plans)}")
        return {name: plans[name] for name in names}

    def _quantised(self, x):
        limits = np.iinfo(value_type(self.image.input))
        integers = np.rint(np.asarray(x, np.float64) / self.image.input.scale)
        if np.isnan(integers).any():
            raise MapError("the input has values that are not numbers")
        return np.clip(integers, limits.min, limits.max).astype(np.int64)

    def _put(self, offset, content):
        self.memory.data[offset:offset + content.size] = content
        self.memory.flush(offset, content.size)

    def _get(self, offset, size):
        self.memory.invalidate(offset, size)
        return self.memory.data[offset:offset + size]

    def _start(self):
        if self.read("status") & _mask("status", "busy"):
            raise BoardError("the accelerator is busy: another program uses it, or an interrupted one has left it "
                             "running; stop() ends that run")
        self.write("status", DONE | ERROR)
        self.write("interrupt_enable", DONE | ERROR)
        self.write("descriptor_address", self.memory.address + self.image.descriptor_offset)
        self.write("layer_count", self.image.layer_count)
        self.write("log_address", self.memory.address + self.image.log_offset)
        self.write("control", _mask("control", "start"))

    def _finish(self, timeout):
        """Wait for the end of the run; raise what it ended with, if not success."""
        status = self._wait(DONE | ERROR, timeout)
        if not status:
            layer = self.read("layer")
            self.stop()
            raise RunTimeout(f"the run did not end within {timeout} s and was stopped in layer {layer} of "
                             f"{self.image.layer_count}")
        self.write("status", status)
        if status & ERROR:
            code = self.read("error_code")
            name, text = ERRORS.get(code, (f"code {code}", "There is no such error."))
            raise RunError(name, self.read("error_address"), self.read("layer"), text)

    def _wait(self, bits, seconds):
        """Those of the status ``bits`` that are set, as soon as one is; 0 after ``seconds``."""
        end = time.monotonic() + seconds
        while True:
            status = self.read("status") & bits
            left = end - time.monotonic()
            if status or left <= 0:
                return status
            self.registers.wait(left)


def _dotted(version):
    return f"{version >> 16}.{version >> 8 & 0xFF}.{version & 0xFF}"

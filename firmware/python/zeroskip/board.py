"""What the driver stands on: registers and memory that the accelerator can reach.

Registers have ``read(offset)``, ``write(offset, value)``, ``wait(seconds)`` (returns when the interrupt line may be
high, or before, and about after ``seconds`` at the latest) and ``close()``.

Memory has ``address`` (bus address, a multiple of 4096 above 0), ``data`` (uint8 array), ``flush(offset, size)`` (what
the processor wrote becomes visible to the accelerator), ``invalidate(offset, size)`` (the other way round) and
``close()``.
"""
from __future__ import annotations

import mmap
import os
import select
import socket
import struct
import time
from pathlib import Path

import numpy as np

from .errors import BoardError

#: Bytes of the register space.
SPACE = 4096
#: Name of the device tree node, by which the UIO device is found.
NODE = "zeroskip"
#: Seconds between two looks at the status where there is no interrupt.
POLL_SECONDS = 0.0002


def _open(path, flags):
    """A file descriptor; :class:`BoardError` says why there is none."""
    try:
        return os.open(str(path), flags)
    except OSError as error:
        hint = "; run as root" if isinstance(error, PermissionError) else ""
        raise BoardError(f"{path} cannot be opened: {error.strerror}{hint}") from None


def _read_text(path):
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise BoardError(f"{path} cannot be read: {error.strerror}") from None


class _MappedRegisters:
    """Registers as 32-bit words of a mapped page."""

    def __init__(self, path, offset):
        self._file = _open(path, os.O_RDWR | os.O_SYNC)
        try:
            page = mmap.mmap(self._file, SPACE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)
        except (OSError, ValueError) as error:
            os.close(self._file)
            raise BoardError(f"the registers at {offset:#x} of {path} cannot be mapped: {error}") from None
        # An element is read and written in one access of 32 bits.
        self._words = np.frombuffer(page, np.uint32)

    def read(self, offset: int) -> int:
        return int(self._words[offset // 4])

    def write(self, offset: int, value: int) -> None:
        self._words[offset // 4] = value

    def close(self) -> None:
        self._words = None
        os.close(self._file)


class DevMemRegisters(_MappedRegisters):
    """Registers at the bus address ``address`` (a multiple of 4096) through /dev/mem, without interrupt."""

    def __init__(self, address: int, *, root="/"):
        super().__init__(Path(root) / "dev/mem", address)

    def wait(self, seconds: float) -> None:
        time.sleep(min(seconds, POLL_SECONDS))


class UioRegisters(_MappedRegisters):
    """Registers and interrupt of a UIO device (driver ``uio_pdrv_genirq``).

    ``name``: ``uio0`` for /dev/uio0; None: the device whose device tree node is called ``zeroskip``.
    """

    def __init__(self, name: str | None = None, *, root="/"):
        super().__init__(Path(root) / "dev" / (name or self._find(Path(root) / "sys/class/uio")), 0)

    @staticmethod
    def _find(folder):
        names = {path.parent.name: _read_text(path) for path in sorted(folder.glob("uio*/name"))}
        for device, node in names.items():
            if node == NODE:
                return device
        found = ", ".join(f"{device} ({node})" for device, node in names.items()) or "none"
        raise BoardError(f"no UIO device is called {NODE} (there are: {found}): load the device tree overlay, and "
                         "uio_pdrv_genirq with of_id=generic-uio")

    def wait(self, seconds: float) -> None:
        try:
            # The kernel masks the interrupt when it has come; this takes the mask away.
            os.write(self._file, struct.pack("=I", 1))
            if select.select([self._file], [], [], seconds)[0]:
                os.read(self._file, 4)
        except OSError as error:
            raise BoardError(f"the UIO device has no interrupt ({error.strerror}): give its device tree node one, or "
                             "use Accelerator.from_dev_mem") from None


class SocketRegisters:
    """Registers of the simulated accelerator of ``python -m boards.sim.server``.

    ``seconds``: how long an answer may take.
    """

    READ, WRITE, WAIT = 1, 2, 3
    #: Clock cycles of one wait: a fraction of a second, after which the caller looks at the time again.
    CYCLES = 20_000
    FAULTS = {1: "was answered with an AXI error", 2: "was not answered", 3: "failed: the simulation has stopped, its "
              "server says why"}

    def __init__(self, path, *, seconds: float = 60.0):
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(seconds)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise BoardError(f"no server answers at {path} ({error.strerror or error}): start python -m "
                             "boards.sim.server") from None

    def _ask(self, op, offset, value, action):
        answer = b""
        try:
            self._socket.sendall(struct.pack("<III", op, offset, value))
            while len(answer) < 8:
                part = self._socket.recv(8 - len(answer))
                if not part:
                    raise BoardError(f"the server closed the connection ({action})")
                answer += part
        except OSError as error:
            raise BoardError(f"the server does not answer ({action}): {error.strerror or error}") from None
        status, value = struct.unpack("<II", answer)
        if status:
            raise BoardError(f"{action} {self.FAULTS.get(status, f'gave the unknown status {status}')}")
        return value

    def read(self, offset: int) -> int:
        return self._ask(self.READ, offset, 0, f"the read of register {offset:#04x}")

    def write(self, offset: int, value: int) -> None:
        self._ask(self.WRITE, offset, value, f"the write of register {offset:#04x}")

    def wait(self, seconds: float) -> None:
        self._ask(self.WAIT, 0, self.CYCLES, "the wait for the interrupt")

    def close(self) -> None:
        self._socket.close()


class FileMemory:
    """A file that is the DRAM of the simulated accelerator, from the bus address ``address`` on."""

    def __init__(self, path, address: int):
        self.address = address
        try:
            self.data = np.memmap(str(path), np.uint8, "r+")
        except (OSError, ValueError) as error:
            raise BoardError(f"the memory file {path} cannot be mapped: {error}") from None

    def flush(self, offset: int, size: int) -> None:
        pass

    def invalidate(self, offset: int, size: int) -> None:
        pass

    def close(self) -> None:
        self.data = None


class DmaBuffer:
    """A buffer of the kernel module u-dma-buf, ``/dev/<name>``. It is cached; the module flushes and invalidates."""

    #: Older versions of the module have the second name.
    CLASSES = ("u-dma-buf", "udmabuf")
    BIDIRECTIONAL = 0

    def __init__(self, name: str = "udmabuf0", *, root="/"):
        folders = [Path(root) / "sys/class" / kind / name for kind in self.CLASSES]
        self._folder = next((folder for folder in folders if folder.is_dir()), None)
        if self._folder is None:
            raise BoardError(f"there is no DMA buffer {name}: load it with `modprobe u-dma-buf {name}=67108864` "
                             "(bytes; the module is built from github.com/ikwzm/udmabuf)")
        self.address = int(_read_text(self._folder / "phys_addr"), 16)
        size = int(_read_text(self._folder / "size"))
        file = _open(Path(root) / "dev" / name, os.O_RDWR)
        try:
            pages = mmap.mmap(file, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except (OSError, ValueError) as error:
            raise BoardError(f"the DMA buffer {name} of {size} bytes cannot be mapped: {error}") from None
        finally:
            os.close(file)
        self.data = np.frombuffer(pages, np.uint8)

    def _sync(self, attribute, offset, size):
        for name, value in (("sync_direction", self.BIDIRECTIONAL), ("sync_offset", offset), ("sync_size", size),
                            (attribute, 1)):
            try:
                (self._folder / name).write_text(str(value))
            except OSError as error:
                raise BoardError(f"{self._folder / name} cannot be written: {error.strerror}; run as root") from None

    def flush(self, offset: int, size: int) -> None:
        self._sync("sync_for_device", offset, size)

    def invalidate(self, offset: int, size: int) -> None:
        self._sync("sync_for_cpu", offset, size)

    def close(self) -> None:
        # Unmapped when the last array that looks at it is gone.
        self.data = None

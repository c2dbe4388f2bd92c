"""An accelerator on a board without processor, driven over a serial line; protocol: boards/ecp5/bridge.py."""
from __future__ import annotations

import binascii
import struct
import time

import numpy as np

from .errors import BoardError

START = 0x5A
READ, WRITE, WAIT, DESCRIBE = 1, 2, 3, 4
#: Most words of a request.
MAX_WORDS = 256
#: Bit times of silence after which the board forgets a request that did not come whole; a tenth more, to be sure.
QUIET_BITS = 110_000
#: Bit times of one wait for the interrupt, after which the caller looks at the time again.
WAIT_BITS = 50_000
#: Bits of a byte on the line.
FRAME_BITS = 10
#: Seconds that PC, USB and board may take for an answer, beside the time on the line.
PATIENCE = 1.0


def open_port(name: str, baud: int):
    """The serial port ``name`` by pyserial; :class:`BoardError` if it cannot be opened."""
    try:
        import serial
    except ImportError:
        raise BoardError("the Python package pyserial is missing: install it with `pip install pyserial`") from None
    try:
        return serial.Serial(name, baud)
    except (OSError, ValueError) as error:
        raise BoardError(f"the serial port {name} cannot be opened: {error}; is the board connected, and may you use "
                         "the port (on Debian: group dialout)?") from None


class SerialLine:
    """Requests to the board and their answers.

    Parameters
    ----------
    port
        As pyserial's ``Serial``: ``write(bytes)``, ``read(count)`` (fewer bytes after ``timeout`` seconds),
        ``timeout``, ``reset_input_buffer()``, ``baudrate``, ``close()``; ``OSError`` when it fails.

    Raises
    ------
    BoardError
        From every request: the line fails, no answer, a damaged one, an AXI error. The next request works if the line
        does.
    """

    def __init__(self, port):
        self._port = port
        # A program before this one may have been ended in the middle of a request.
        self._lost = True

    def _seconds(self, bits):
        return bits / self._port.baudrate

    def _resynchronise(self):
        """Wait until the board has forgotten, or answered, what it was sent; drop what it answered."""
        time.sleep(self._seconds(QUIET_BITS + WAIT_BITS))
        self._port.reset_input_buffer()

    def ask(self, op: int, address: int, words=(), *, answer_words: int = 0, bits: int = 0) -> bytes:
        """One request; the words of its answer as bytes. ``bits``: bit times that the board may take."""
        last = max(len(words) // 4, answer_words) - 1
        body = struct.pack("<BBI", op, last, address) + bytes(words)
        count = 1 + 4 * answer_words + 3
        request = bytes([START]) + body + binascii.crc_hqx(body, 0).to_bytes(2, "big")
        try:
            if self._lost:
                self._resynchronise()
            self._lost = True
            self._port.timeout = PATIENCE + self._seconds(bits + FRAME_BITS * (len(request) + count))
            self._port.write(request)
            answer = self._port.read(count)
        except OSError as error:
            raise BoardError(f"the serial line failed: {error}") from None
        if len(answer) < count:
            raise BoardError(f"the board sent {len(answer)} of {count} bytes of an answer: is the bitstream loaded, "
                             "and this the right serial port and speed?")
        if answer[0] != START or binascii.crc_hqx(answer[1:], 0):
            raise BoardError("an answer of the board was damaged on the serial line")
        self._lost = False
        if answer[-3]:
            raise BoardError(f"the access to {len(words) // 4 or answer_words} words at {address:#x} was answered with "
                             "an AXI error")
        return answer[1:-3]

    def read(self, address: int, words: int) -> bytes:
        """``words`` (1 to 256) words of 32 bits from ``address`` on, a multiple of 4."""
        return self.ask(READ, address, answer_words=words)

    def write(self, address: int, data) -> None:
        """Write ``data``, 1 to 256 words as bytes, from ``address`` on, a multiple of 4."""
        self.ask(WRITE, address, data)

    def wait(self, seconds: float) -> None:
        """Return when the interrupt line is high, or after ``seconds`` or ``WAIT_BITS``, whichever is less."""
        bits = min(int(seconds * self._port.baudrate), WAIT_BITS)
        self.ask(WAIT, bits, answer_words=1, bits=bits)

    def describe(self) -> tuple[int, int]:
        """Address and bytes of the board's memory."""
        return struct.unpack("<II", self.ask(DESCRIBE, 0, answer_words=2))

    def close(self) -> None:
        self._port.close()


class SerialRegisters:
    """Registers at the other end of ``line``, which is closed with them."""

    def __init__(self, line: SerialLine):
        self._line = line

    def read(self, offset: int) -> int:
        return int.from_bytes(self._line.read(offset, 1), "little")

    def write(self, offset: int, value: int) -> None:
        self._line.write(offset, value.to_bytes(4, "little"))

    def wait(self, seconds: float) -> None:
        self._line.wait(seconds)

    def close(self) -> None:
        self._line.close()


class SerialMemory:
    """A copy of the board's memory in the PC; ``flush`` writes to the board, ``invalidate`` reads from it."""

    def __init__(self, line: SerialLine):
        self._line = line
        self.address, size = line.describe()
        self.data = np.zeros(size, np.uint8)

    @staticmethod
    def _pieces(offset, size):
        """Slices of whole words that hold ``size`` bytes from ``offset`` on, one for each request."""
        step, end = 4 * MAX_WORDS, -(-(offset + size) // 4) * 4
        return [slice(at, min(at + step, end)) for at in range(offset // 4 * 4, end, step)]

    def flush(self, offset: int, size: int) -> None:
        for piece in self._pieces(offset, size):
            self._line.write(self.address + piece.start, self.data[piece].tobytes())

    def invalidate(self, offset: int, size: int) -> None:
        for piece in self._pieces(offset, size):
            content = self._line.read(self.address + piece.start, (piece.stop - piece.start) // 4)
            self.data[piece] = np.frombuffer(content, np.uint8)

    def close(self) -> None:
        self.data = None

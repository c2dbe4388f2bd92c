"""Bytes on a serial line: a start bit (0), 8 bits from the lowest on, a stop bit (1); the line rests at 1."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

#: Bits of a byte on the line.
FRAME_BITS = 10


def _check_divisor(divisor):
    if not isinstance(divisor, int) or divisor < 4:
        raise ValueError(f"divisor must be an integer of at least 4 clock cycles for a bit, not {divisor!r}")


class UartReceiver(wiring.Component):
    """Bytes from a line.

    A start bit that is shorter than half a bit, and a byte without a stop bit, are dropped.

    Parameters
    ----------
    divisor : int
        Clock cycles of a bit, at least 4.

    Members
    -------
    i : In(1)
        The line, not synchronised.
    o : Out(stream.Signature(8, always_ready=True))
        A byte, in the middle of its stop bit.
    """
    i: Signal
    o: stream.Interface

    def __init__(self, divisor: int):
        _check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"i": In(1), "o": Out(stream.Signature(8, always_ready=True))})

    def elaborate(self, platform):
        m = Module()
        line, bits = Signal(init=1), Signal(8)
        left, timer = Signal(range(FRAME_BITS + 1)), Signal(range(self.divisor))
        m.submodules.synchroniser = FFSynchronizer(self.i, line, init=1)
        m.d.comb += self.o.payload.eq(bits)
        with m.If(left == 0):
            with m.If(~line):
                m.d.sync += [left.eq(FRAME_BITS), timer.eq(self.divisor // 2)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [left.eq(left - 1), timer.eq(self.divisor - 1)]
            with m.If(left == 1):
                m.d.comb += self.o.valid.eq(line)
            with m.Elif((left == FRAME_BITS) & line):
                m.d.sync += left.eq(0)
            with m.Else():
                m.d.sync += bits.eq(Cat(bits[1:], line))
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a line.

    Flow control: a byte takes ``FRAME_BITS * divisor`` cycles; ``i`` stalls meanwhile.

    Parameters
    ----------
    divisor : int
        Clock cycles of a bit, at least 4.

    Members
    -------
    i : In(stream.Signature(8))
        Bytes.
    o : Out(1)
        The line.
    """
    i: stream.Interface
    o: Signal

    def __init__(self, divisor: int):
        _check_divisor(divisor)
        self.divisor = divisor
        super().__init__({"i": In(stream.Signature(8)), "o": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        bits = Signal(FRAME_BITS - 1)
        left, timer = Signal(range(FRAME_BITS + 1)), Signal(range(self.divisor))
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [self.o.eq(0), bits.eq(Cat(self.i.payload, 1)), left.eq(FRAME_BITS),
                             timer.eq(self.divisor - 1)]
        with m.Elif(timer != 0):
            m.d.sync += timer.eq(timer - 1)
        with m.Else():
            m.d.sync += [self.o.eq(bits[0]), bits.eq(Cat(bits[1:], 1)), left.eq(left - 1), timer.eq(self.divisor - 1)]
        return m

"""Bookkeeping of a double buffer with one writer and any number of readers.

Source: hw/README.md, "Double buffers".
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out


class DoubleBufferControl(wiring.Component):
    """Say which half may be filled, and to each consumer which half it may read.

    Halves are filled alternately, half 0 first, and every consumer takes and releases them in that order. A half is
    free when all consumers have released what was filled last.

    Flow control: a pulse acts on the outputs in the next cycle; every output is a function of registers only. Any
    pulses may coincide, except that a consumer cannot release a half in the cycle in which it takes it.

    Parameters
    ----------
    consumers : int
        Readers, at least 1. Each has its own bit of the ports for consumers.

    Members
    -------
    o_free : Out(1)
        The half to be filled next is free.
    o_fill_half : Out(1)
        Which one that is.
    i_filled : In(1)
        Pulse: that half is full now. Legal only while ``o_free``, asserted.
    o_full : Out(consumers)
        Bit n: there is a filled half that consumer n has not taken.
    o_half : Out(consumers)
        Bit n: the half that consumer n takes next.
    i_take : In(consumers)
        Pulse: consumer n starts to read that half. Legal only while ``o_full[n]``, asserted.
    i_release : In(consumers)
        Pulse: consumer n is done with the oldest half it has taken. Legal only if there is one, asserted.
    """
    o_free: Signal
    o_fill_half: Signal
    i_filled: Signal
    o_full: Signal
    o_half: Signal
    i_take: Signal
    i_release: Signal

    #: Cycles from a pulse to the outputs.
    LATENCY = 1

    def __init__(self, *, consumers: int):
        if consumers < 1:
            raise ValueError(f"consumers must be at least 1, not {consumers!r}")
        self.consumers = consumers
        super().__init__({
            "o_free": Out(1), "o_fill_half": Out(1), "i_filled": In(1),
            "o_full": Out(consumers), "o_half": Out(consumers),
            "i_take": In(consumers), "i_release": In(consumers),
        })

    def elaborate(self, platform):
        m = Module()
        # For each half, the consumers that have not taken it and those that have not released it.
        untaken = [Signal(self.consumers, name=f"untaken{half}") for half in range(2)]
        unreleased = [Signal(self.consumers, name=f"unreleased{half}") for half in range(2)]
        release_half = Signal(self.consumers)

        m.d.comb += self.o_free.eq(Mux(self.o_fill_half, unreleased[1], unreleased[0]) == 0)
        m.d.comb += self.o_full.eq((self.o_half & untaken[1]) | (~self.o_half & untaken[0]))
        m.d.sync += [
            self.o_fill_half.eq(self.o_fill_half ^ self.i_filled),
            self.o_half.eq(self.o_half ^ self.i_take),
            release_half.eq(release_half ^ self.i_release),
        ]
        for half in range(2):
            fill = self.i_filled & (self.o_fill_half == half)
            taking = self.i_take & (self.o_half if half else ~self.o_half)
            releasing = self.i_release & (release_half if half else ~release_half)
            m.d.sync += untaken[half].eq(Mux(fill, ~0, untaken[half] & ~taking))
            m.d.sync += unreleased[half].eq(Mux(fill, ~0, unreleased[half] & ~releasing))
            # A half that is released must have been filled and taken before this cycle.
            m.d.sync += Assert((releasing & ~(unreleased[half] & ~untaken[half])) == 0, "release without a take")
        m.d.sync += Assert(self.o_free | ~self.i_filled, "filled although not free")
        m.d.sync += Assert((self.i_take & ~self.o_full) == 0, "take although not full")
        return m

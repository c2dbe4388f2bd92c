"""Contracts of the stream parts: nothing is lost, doubled, changed or reordered, and a stalled word stays.

The order is shown with a magic word: one word is marked when it goes in (which one is free), the words ahead of it are
counted down, and the word that comes out when none is left must be it. What a part holds back is not visible from
outside, so its order is checked from the initial state; the depths go beyond the cycles that it takes to bring a part
of this size from any state to any other, after which nothing new can happen.
"""
# amaranth: UnusedElaboratable=no
import pytest
from amaranth import *
from amaranth.hdl import Assume
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.stream.fifo import MAX_LUT_DEPTH, StreamFifo
from hw.stream.fork import StreamFork
from hw.stream.register import StreamRegister
from sim_tests.formal.prove import ProofError, prove

pytestmark = pytest.mark.formal
WIDTH = 2


def hold_contract(m, check, valid, ready, word, name):
    """``check`` (Assume or Assert) that a stalled stream keeps valid and payload."""
    stalled, word_q = Signal(name=f"{name}_stalled"), Signal(len(word), name=f"{name}_q")
    m.d.sync += [stalled.eq(valid & ~ready), word_q.eq(word)]
    with m.If(stalled):
        m.d.comb += check(valid & (word == word_q))


class QueueProof(wiring.Component):
    """``part`` has ``i``, ``o`` and holds up to ``capacity`` words; ``delay``: cycles until a word shows at ``o``.

    ``magic``: check the order. ``exact``: the part takes a word whenever it holds fewer than ``capacity``.
    """
    def __init__(self, part, capacity, delay, magic=True, exact=False):
        self.part, self.capacity, self.delay, self.magic, self.exact = part, capacity, delay, magic, exact
        super().__init__({"i_valid": In(1), "i_word": In(WIDTH), "i_ready": In(1), "i_mark": In(1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.part = part = self.part
        count = Signal(range(self.capacity + 2))
        enter, leave = Signal(), Signal()
        m.d.comb += [
            part.i.valid.eq(self.i_valid), part.i.payload.eq(self.i_word), part.o.ready.eq(self.i_ready),
            enter.eq(part.i.valid & part.i.ready), leave.eq(part.o.valid & part.o.ready),
        ]
        m.d.sync += count.eq(count + enter - leave)
        hold_contract(m, Assume, part.i.valid, part.i.ready, part.i.payload, "i")
        hold_contract(m, Assert, part.o.valid, part.o.ready, part.o.payload, "o")

        waiting = Signal(range(self.delay + 1))
        m.d.sync += waiting.eq(Mux(part.o.valid | (count == 0), 0, waiting + 1))
        m.d.comb += [
            Assert(count <= self.capacity),
            Assert(~part.o.valid | (count != 0)),
            Assert(waiting < self.delay),
            Assert(part.i.ready | (count != 0)),
        ]
        if self.exact:
            m.d.comb += Assert(part.i.ready == (count != self.capacity))
        if hasattr(part, "level"):
            m.d.comb += Assert(part.level == count)
        if self.magic:
            self._build_magic(m, part, enter, leave, count)
        return m

    def _build_magic(self, m, part, enter, leave, count):
        marked, word, ahead = Signal(), Signal(WIDTH), Signal.like(count)
        with m.If(~marked & enter & self.i_mark):
            m.d.sync += [marked.eq(1), word.eq(part.i.payload), ahead.eq(count - leave)]
        with m.Elif(marked & leave):
            m.d.sync += [marked.eq(ahead != 0), ahead.eq(ahead - 1)]
        with m.If(marked):
            m.d.comb += Assert(count > ahead)
            with m.If(part.o.valid & (ahead == 0)):
                m.d.comb += Assert(part.o.payload == word)


class ForkProof(wiring.Component):
    """Every output takes every word once; counters say how far each is ahead of the input."""
    def __init__(self, part):
        self.part = part
        super().__init__({"i_valid": In(1), "i_word": In(WIDTH), "i_ready": In(part.count)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.part = part = self.part
        m.d.comb += [part.i.valid.eq(self.i_valid), part.i.payload.eq(self.i_word)]
        hold_contract(m, Assume, part.i.valid, part.i.ready, part.i.payload, "i")
        enter = part.i.valid & part.i.ready
        for n, output in enumerate(part.o):
            leave = output.valid & output.ready
            ahead = Signal(signed(3), name=f"ahead_{n}")
            m.d.comb += output.ready.eq(self.i_ready[n])
            m.d.sync += ahead.eq(ahead + leave - enter)
            hold_contract(m, Assert, output.valid, output.ready, output.payload, f"o_{n}")
            m.d.comb += [
                Assert((ahead == 0) | (ahead == 1)),
                Assert(~output.valid | (output.payload == part.i.payload)),
                Assert(output.valid == (part.i.valid & (ahead == 0))),
                Assert(~enter | (ahead + leave == 1)),
            ]
        return m


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_fifo(depth):
    prove(QueueProof(StreamFifo(WIDTH, depth), depth, delay=1, exact=True), depth=3 * depth + 4)


@pytest.mark.parametrize("depth", [2, 3])
def test_block_ram_fifo(depth, monkeypatch):
    monkeypatch.setattr("hw.stream.fifo.MAX_LUT_DEPTH", 0)
    prove(QueueProof(StreamFifo(WIDTH, depth), depth, delay=2), depth=3 * depth + 4)


@pytest.mark.parametrize("depth", [1, 4, 7, MAX_LUT_DEPTH, MAX_LUT_DEPTH + 1])
def test_fifo_level_for_ever(depth):
    lut = depth <= MAX_LUT_DEPTH
    delay = 1 if lut else 2
    prove(QueueProof(StreamFifo(WIDTH, depth), depth, delay, magic=False, exact=lut), depth=6, forever=True)


def test_register():
    prove(QueueProof(StreamRegister(WIDTH), 2, delay=1, exact=True), depth=16)


def test_register_level_for_ever():
    prove(QueueProof(StreamRegister(WIDTH), 2, delay=1, magic=False, exact=True), depth=6, forever=True)


@pytest.mark.parametrize("count", [1, 3])
def test_fork_for_ever(count):
    prove(ForkProof(StreamFork(WIDTH, count)), depth=8, forever=True)


class BrokenRegister(wiring.Component):
    """A register with one of four faults."""
    def __init__(self, fault):
        self.fault = fault
        super().__init__({"i": In(stream.Signature(WIDTH)), "o": Out(stream.Signature(WIDTH))})

    def elaborate(self, platform):
        m = Module()
        if self.fault == "loses a stalled word":
            m.d.comb += self.i.ready.eq(1)
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
            return m
        m.d.comb += self.i.ready.eq(~self.o.valid | self.o.ready)
        with m.If(self.i.ready):
            m.d.sync += [self.o.valid.eq(self.i.valid), self.o.payload.eq(self.i.payload)]
        if self.fault == "changes payload":
            with m.If(self.i.valid & ~self.i.ready):
                m.d.sync += self.o.payload.eq(self.i.payload)
        if self.fault == "drops valid":
            waited = Signal()
            m.d.sync += waited.eq(self.o.valid & ~self.o.ready)
            with m.If(waited & ~self.o.ready):
                m.d.sync += self.o.valid.eq(0)
        if self.fault == "sends twice":
            again = Signal()
            with m.If(self.o.valid & self.o.ready & ~again):
                m.d.comb += self.i.ready.eq(0)
                m.d.sync += [again.eq(1), self.o.valid.eq(1), self.o.payload.eq(self.o.payload)]
            with m.Else():
                m.d.sync += again.eq(0)
        return m


def test_harness_accepts_a_simple_register():
    prove(QueueProof(BrokenRegister(None), 1, delay=1), depth=8)


@pytest.mark.parametrize("fault", ["loses a stalled word", "changes payload", "drops valid", "sends twice"])
def test_broken_part_fails_the_proof(fault):
    with pytest.raises(ProofError, match="base case: FAIL"):
        prove(QueueProof(BrokenRegister(fault), 2, delay=2), depth=8)


class SwappingFifo(wiring.Component):
    """Takes two words, then gives them out, the second one first: only the order is wrong."""
    i: In(stream.Signature(WIDTH))
    o: Out(stream.Signature(WIDTH))

    def elaborate(self, platform):
        m = Module()
        words = Signal(2 * WIDTH)
        count, giving = Signal(range(3)), Signal()
        m.d.comb += [self.i.ready.eq(~giving), self.o.valid.eq(giving), self.o.payload.eq(words)]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += [words.eq(Cat(self.i.payload, words)), count.eq(count + 1), giving.eq(count == 1)]
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += [words.eq(words >> WIDTH), count.eq(count - 1), giving.eq(count == 2)]
        return m


def test_wrong_order_fails_the_proof_of_the_magic_word_only():
    # It waits for a second word as long as it likes: the delay is set beyond the depth.
    prove(QueueProof(SwappingFifo(), 2, delay=20, magic=False), depth=8)
    with pytest.raises(ProofError, match="base case: FAIL"):
        prove(QueueProof(SwappingFifo(), 2, delay=20), depth=8)

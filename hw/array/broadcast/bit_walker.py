"""Bit walker: from sparsity map words to the addresses of the non-zero values and of their weights."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...buffer.tile_buffer import value_read
from ...config import AcceleratorConfig
from .word_filter import full_word

#: Cycles between the ends of two windows of a group, at least: the partial sum of a window with a single word is
#: read, added and written back before the next window may read it.
MIN_WINDOW_CYCLES = 3


def element(c: AcceleratorConfig) -> data.StructLayout:
    """One value for the lanes. ``value.zero``: the element only ends a window that has no value.

    ``first``, ``last`` of the window. With ``valid`` 0 only the releases mean something.
    """
    return data.StructLayout({
        "valid": 1, "value": value_read(c), "weight": range(2 * c.weight_depth), "first": 1, "last": 1,
        "restart": 1, "first_chunk": 1, "last_chunk": 1, "words": range(c.window_words + 1),
        "release_tile": 1, "release_weights": 1,
    })


def _more_than(count, bits):
    """Whether more than ``count`` of the bits are set."""
    def at_least(bits):
        if len(bits) == 1:
            return [bits] + [C(0)] * count
        low, high = at_least(bits[:len(bits) // 2]), at_least(bits[len(bits) // 2:])
        return [low[n] | high[n] | Cat(low[k] & high[n - 1 - k] for k in range(n)).any() for n in range(count + 1)]
    return at_least(bits)[count]


def _lower_set(bits):
    """For each bit, whether a lower one is set; a tree, which is shorter than an adder."""
    if len(bits) == 1:
        return [C(0)]
    low, high = bits[:len(bits) // 2], bits[len(bits) // 2:]
    return _lower_set(low) + [low.any() | lower for lower in _lower_set(high)]


class BitWalker(wiring.Component):
    """Give the set bits of each word, lowest first: ``weight = word.weight + bit`` and the value at ``offset + rank``.

    ``rank`` counts the set bits below; in dense mode, where zeros are stored too, it is the bit itself.

    Flow control: one bit a cycle without a bubble between words; ``o`` cannot stall. The last element of a window is
    held back until the drain will have the shadow registers free, ``words`` cycles after the end of the window
    before, and has room for its sums. ``i.ready`` comes from registers; it sees ``i_drained`` two cycles later.

    Members
    -------
    i : In(Stream(full_word(config)))
    i_drained : In(1)
        Pulse: a word has left the queue of sums, which holds 4 windows.
    o : Out(element(config))
        ``LATENCY`` cycles after its bit was taken.
    o_word, o_busy, o_hold : Out(1)
        In this cycle there is a word, a bit is taken, the last one of a window is held back.
    o_lane_work : Out(range(lanes + 1))
        Lanes that will multiply the bit taken: 0 if none is.
    o_idle : Out(1)
        No word is inside, all sums have left the queue.
    """

    i: stream.Interface
    i_drained: Signal
    o: data.View
    o_word: Signal
    o_busy: Signal
    o_hold: Signal
    o_lane_work: Signal
    o_idle: Signal

    LATENCY = 2

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(full_word(config))), "i_drained": In(1), "o": Out(element(config)),
            "o_word": Out(1), "o_busy": Out(1), "o_hold": Out(1),
            "o_lane_work": Out(range(config.lanes + 1)), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        word, valid, rank, first = Signal(full_word(c)), Signal(), Signal(range(c.block)), Signal(init=1)
        final, end, issue, room = Signal(), Signal(), Signal(), Signal()
        lower_set = Signal(c.block)
        m.d.comb += [
            lower_set.eq(Cat(_lower_set(word.map))),
            end.eq(final & word.last & word.flags.window),
            issue.eq(valid & (~end | room)),
            self.i.ready.eq(~valid | issue & final),
            self.o_word.eq(valid), self.o_busy.eq(issue & word.map.any()), self.o_hold.eq(valid & ~issue),
            self.o_lane_work.eq(Mux(self.o_busy, word.flags.lanes, 0)),
        ]
        # ``final``, at most one bit is left, is known a cycle ahead: it is where the longest paths would start.
        with m.If(self.i.ready):
            m.d.sync += [word.eq(self.i.payload), valid.eq(self.i.valid), rank.eq(0),
                         final.eq(~_more_than(1, self.i.p.map))]
        with m.Elif(issue):
            m.d.sync += [word.map.eq(word.map & lower_set), rank.eq(rank + 1),
                         final.eq(~_more_than(2, word.map))]
        with m.If(issue & word.flags.window):
            m.d.sync += first.eq(end)
        self._build_room(m, word.flags, issue & end, room, valid)
        self._build_element(m, word, word.map & ~lower_set, rank, issue, final, end, first)
        return m

    def _build_room(self, m, flags, ending, room, valid):
        """Claim the shadow registers and room in the queue of sums, so that nothing behind ever has to stall."""
        capacity = 4 * self.config.window_words
        free, wait = Signal(range(capacity + 1), init=capacity), Signal.like(flags.words)
        claim = Mux(ending & flags.last_chunk, flags.words, 0)
        m.d.sync += free.eq(free - claim + self.i_drained)
        with m.If(ending):
            m.d.sync += wait.eq(Mux(flags.words < MIN_WINDOW_CYCLES, MIN_WINDOW_CYCLES - 1, flags.words - 1))
        with m.Elif(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        # For the word of the next cycle. ``free`` does not count yet what leaves the queue in this one; nor the claim
        # of a window that ends in this one, after which there is no room for some cycles anyway.
        roomy = [~flags.last_chunk | (free >= flags.words) for flags in (flags, self.i.p.flags)]
        m.d.sync += room.eq(~ending & (wait <= 1) & Mux(self.i.ready, roomy[1], roomy[0]))
        m.d.comb += self.o_idle.eq(~valid & (wait == 0) & (free == capacity))

    def _build_element(self, m, word, bit, rank, issue, final, end, first):
        """A stage that finds the position of the bit, and one that adds it to the addresses."""
        # The rank is taken in place of the position behind the register, where the adder takes that in.
        near, near_dense = Signal.like(self.o), Signal()
        near_index, near_weight = Signal.like(word.offset), Signal.like(word.weight)
        near_position, near_rank = Signal(range(self.config.block)), Signal.like(rank)
        release = issue & final & word.last
        m.d.sync += [
            near.valid.eq(issue & word.flags.window), near.value.slot.eq(word.slot),
            near.value.signed.eq(word.flags.signed), near.value.zero.eq(~word.map.any()),
            near.first.eq(first), near.last.eq(end),
            near.release_tile.eq(release & word.flags.release_tile),
            near.release_weights.eq(release & word.flags.release_weights),
            near_index.eq(word.offset), near_weight.eq(word.weight), near_rank.eq(rank),
            near_dense.eq(word.flags.dense),
            near_position.eq(Cat(Cat(bit[n] for n in range(len(bit)) if n >> k & 1).any()
                                 for k in range(len(near_position)))),
            self.o.eq(near), self.o.value.index.eq(near_index + Mux(near_dense, near_position, near_rank)),
            self.o.weight.eq(near_weight + near_position),
        ]
        m.d.sync += [getattr(near, name).eq(getattr(word.flags, name))
                     for name in ("restart", "first_chunk", "last_chunk", "words")]

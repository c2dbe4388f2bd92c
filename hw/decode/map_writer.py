"""Sparsity map words on their way to the tile buffer: counted, and addressed.

Source: golden/README.md, "Compressed feature map", "Dense feature map".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import SEGMENT, AcceleratorConfig
from .slot_walker import ADDRESS_BITS


def slot_info(c: AcceleratorConfig) -> data.StructLayout:
    """A slot in DRAM (``address`` in beats) and in the tile buffer (``slot``, behind those of the other half)."""
    return data.StructLayout({"address": unsigned(ADDRESS_BITS), "slot": range(2 * c.tile_slots), "last": 1})


def pixel_word(c: AcceleratorConfig) -> data.StructLayout:
    """The sparsity map word of one pixel of a slot."""
    return data.StructLayout({"map": unsigned(c.block), "pixel": range(SEGMENT), "slot": slot_info(c)})


def slot_values(c: AcceleratorConfig) -> data.StructLayout:
    """A slot whose map is done: its values take ``beats`` beats; ``empty``: none."""
    return data.StructLayout({"beats": range(c.value_beats + 1), "empty": 1, "slot": slot_info(c)})


def popcount(bits):
    """Number of ones, as a tree of adders."""
    if len(bits) == 1:
        return bits
    middle = len(bits) // 2
    return popcount(bits[:middle]) + popcount(bits[middle:])


class MapWriter(wiring.Component):
    """Write the map words of slots, each with the place of its first value, and count the values of each slot.

    Compressed: ``offset`` is the number of ones in the earlier words of the slot; after pixel 3 ``beats = ceil(n *
    value_width / 64)`` where n is the ones of all four words. Dense: ``offset = pixel << dense_shift``, ``beats = 0``.

    Flow control: one word a cycle. It stalls only while ``o`` still holds the slot before the one that is done.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(pixel_word(config)))
        Words of pixels 0, 1, 2, 3 of a slot, then of the next.
    i_dense, i_shift : In(1), In(3)
        Kind of map; constant during a slot.
    o_write : Out(stream.Signature(payloads.map_write(config), always_ready=True))
        One for each word.
    o : Out(stream.Signature(slot_values(config)))
        One for each slot, in the cycle in which its last word is written or later.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    i_dense: Signal
    i_shift: Signal
    o_write: stream.Interface
    o: stream.Interface
    o_active: Signal

    #: Cycles from a transfer on ``i`` to ``o_write.valid``, and from that of pixel 3 to ``o.valid``.
    LATENCY = 3

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(pixel_word(config))),
            "i_dense": In(1), "i_shift": In(3),
            "o_write": Out(stream.Signature(payloads.map_write(config), always_ready=True)),
            "o": Out(stream.Signature(slot_values(config))),
            "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        word_q, word_q2 = Signal.like(self.i.p), Signal.like(self.i.p)
        valid_q, valid_q2, slot_ends = Signal(), Signal(), Signal()
        count = Signal(range(self.config.block + 1))
        m.d.comb += slot_ends.eq(word_q2.pixel == SEGMENT - 1)
        # No path from o.ready to here: o is emptied in the three cycles until the next slot ends.
        m.d.comb += self.i.ready.eq(~(valid_q2 & slot_ends & self.o.valid))
        m.d.comb += self.o_active.eq(self.i.valid | valid_q | valid_q2 | self.o_write.valid | self.o.valid)
        with m.If(self.i.ready):
            m.d.sync += [
                valid_q.eq(self.i.valid), word_q.eq(self.i.p),
                valid_q2.eq(valid_q), word_q2.eq(word_q), count.eq(popcount(word_q.map)),
            ]
        advance = Signal()
        m.d.comb += advance.eq(valid_q2 & self.i.ready)
        offset, beats = self._build_count(m, advance=advance, slot_ends=slot_ends, count=count)

        m.d.sync += [
            self.o_write.valid.eq(advance),
            self.o_write.p.address.eq(Cat(word_q2.pixel, word_q2.slot.slot)),
            self.o_write.p.word.map.eq(word_q2.map),
            self.o_write.p.word.offset.eq(Mux(self.i_dense, word_q2.pixel << self.i_shift, offset)),
        ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(advance & slot_ends):
            m.d.sync += [self.o.valid.eq(1), self.o.p.slot.eq(word_q2.slot),
                         self.o.p.beats.eq(Mux(self.i_dense, 0, beats)),
                         self.o.p.empty.eq(self.i_dense | (offset == 0) & (count == 0))]
        return m

    def _build_count(self, m, *, advance, slot_ends, count):
        """Returns the ones of the slot before this word, and the beats of all up to this word."""
        values = self.config.values_per_beat
        offset = Signal(range(self.config.slot_values))
        # The same sum with the rounding of the division already in it.
        rounded = Signal(range(self.config.slot_values + values), init=values - 1)
        total = Signal.like(rounded)
        m.d.comb += total.eq(rounded + count)
        with m.If(advance):
            m.d.sync += [offset.eq(offset + count), rounded.eq(total)]
            with m.If(slot_ends):
                m.d.sync += [offset.eq(0), rounded.eq(values - 1)]
        return offset, total >> values.bit_length() - 1

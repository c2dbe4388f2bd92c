"""Tile buffer: the compressed input tile that a group reads, two halves of it.

Source: golden/README.md, "Compressed feature map" and "Tile geometry".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import BEAT, SEGMENT, AcceleratorConfig
from ..payloads import map_word, map_write, value_write


def map_address(c: AcceleratorConfig):
    """Of a map word: ``(half * tile_slots + slot) * SEGMENT + pixel``."""
    return range(2 * c.tile_slots * SEGMENT)


def value_read(c: AcceleratorConfig) -> data.StructLayout:
    """One value: ``slot`` (half included), its ``index`` in that slot, and how to widen it. ``zero``: read as 0."""
    return data.StructLayout({"slot": range(2 * c.tile_slots), "index": range(c.slot_values), "signed": 1, "zero": 1})


class TileBuffer(wiring.Component):
    """Sparsity map words and values of two half buffers, each with one write and one read port.

    ``o_map = map[i_map_address]``; ``o_value = values[i_value.slot, i_value.index]``, sign- or zero-extended.

    Flow control: none; a word and a value are read in each cycle. While ``i_map_enable`` is 0, ``o_map`` holds.
    A read of an address in the cycle of its write returns either.

    Members
    -------
    i_map, i_values : In(Stream(map_write(config), always_ready)), In(Stream(value_write(config), always_ready))
    i_map_address, i_map_enable : In
    o_map : Out(map_word(config))
        One cycle after the address.
    i_value : In(value_read(config))
    o_value : Out(signed(value_width + 1))
        ``LATENCY`` cycles after ``i_value``.
    """

    i_map: stream.Interface
    i_values: stream.Interface
    i_map_address: Signal
    i_map_enable: Signal
    o_map: data.View
    i_value: data.View
    o_value: Signal

    #: Cycles from ``i_value`` to ``o_value``: the memory, then the choice of the value in its beat.
    LATENCY = 2

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_map": In(stream.Signature(map_write(config), always_ready=True)),
            "i_values": In(stream.Signature(value_write(config), always_ready=True)),
            "i_map_address": In(map_address(config)), "i_map_enable": In(1), "o_map": Out(map_word(config)),
            "i_value": In(value_read(config)), "o_value": Out(signed(config.value_width + 1)),
        })

    def elaborate(self, platform):
        m = Module()
        self._build_map(m)
        self._build_values(m)
        return m

    def _build_map(self, m):
        c = self.config
        m.submodules.map = words = memory.Memory(shape=map_word(c), depth=2 * c.tile_slots * SEGMENT, init=[])
        write, read = words.write_port(), words.read_port()
        m.d.comb += [
            write.en.eq(self.i_map.valid), write.addr.eq(self.i_map.p.address), write.data.eq(self.i_map.p.word),
            read.en.eq(self.i_map_enable), read.addr.eq(self.i_map_address), self.o_map.eq(read.data),
        ]

    def _build_values(self, m):
        c = self.config
        m.submodules.values = beats = memory.Memory(shape=BEAT, depth=2 * c.tile_slots * c.value_beats, init=[])
        write, read = beats.write_port(), beats.read_port()
        beat_bits = (c.values_per_beat - 1).bit_length()
        select = Signal(beat_bits)
        is_signed, zero = Signal(), Signal()
        value = Signal(c.value_width)
        m.d.comb += [
            write.en.eq(self.i_values.valid), write.addr.eq(self.i_values.p.address),
            write.data.eq(self.i_values.p.data),
            # value_beats is a power of two: a slot and a beat of it make an address without an adder.
            read.addr.eq(Cat(self.i_value.index[beat_bits:], self.i_value.slot)),
            value.eq(read.data.word_select(select, c.value_width)),
        ]
        m.d.sync += [
            select.eq(self.i_value.index), is_signed.eq(self.i_value.signed), zero.eq(self.i_value.zero),
            self.o_value.eq(Mux(zero, 0, Cat(value, value[-1] & is_signed).as_signed())),
        ]

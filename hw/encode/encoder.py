"""Encoder: from pixels of activations to the compressed feature map in DRAM.

Source: golden/README.md, "Compressed feature map" (normative).
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out, connect

from .. import payloads
from ..config import BEAT, SEGMENT, AcceleratorConfig
from ..postprocess.block_index import BlockIndex
from .packer import Packer
from .slot_buffer import SlotBuffer


class Encoder(wiring.Component):
    """Compress a stream of pixels, ``SEGMENT`` pixels of a block to a slot, and write each slot to its place.

    The slot of (y, x, block) lies at ``target.address + y * row_bytes + x // 4 * segment_bytes + block * slot_bytes``
    and consists of its map words and its non-zero values. It is written when pixel 3 of the segment or the pixel with
    ``column_last`` has passed its last word of the block; pixels that do not exist have map 0.

    Flow control: one word a cycle, until all ``slots`` slots are open or waiting to be written; one beat a cycle out.
    No combinational path from an output's ready to ``i.ready``. A slot's request is offered with or before its first
    beat.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths and numbers of lanes, block and drained values.

    Members
    -------
    i : In(stream.Signature(payloads.value_word(config)))
        Pixels of a tile row by row, all words of a pixel in order. A row begins with pixel 0 of a segment.
    i_target : In(payloads.map_target())
        The map; held while not ``o_idle``.
    o_request : Out(stream.Signature(payloads.request()))
    o_data : Out(stream.Signature(64))
    o_idle : Out(1)
        Nothing is inside.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    o_request: stream.Interface
    o_data: stream.Interface

    #: Cycles from the transfer of the last word of a slot to its first beat, if nothing is written out.
    LATENCY = 1 + Packer.LATENCY + SlotBuffer.LATENCY

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        # Two for each block of a window: one set is filled while the other is written.
        self.slots = max(4, 2 * config.lanes // config.block)
        super().__init__({
            "i": In(stream.Signature(payloads.value_word(config))),
            "i_target": In(payloads.map_target()),
            "o_request": Out(stream.Signature(payloads.request())),
            "o_data": Out(stream.Signature(BEAT)),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.packer = packer = Packer(self.config, self.slots)
        m.submodules.buffer = buffer = SlotBuffer(self.config, self.slots)
        connect(m, packer.o_row, buffer.i_row)
        connect(m, packer.o_end, buffer.i_end)
        connect(m, wiring.flipped(self.o_request), buffer.o_request)
        connect(m, wiring.flipped(self.o_data), buffer.o_data)

        word = Signal(payloads.value_word(self.config))
        word_valid = Signal()
        pass_on = Signal()
        m.d.comb += self.i.ready.eq(~word_valid | pass_on)
        with m.If(self.i.ready):
            m.d.sync += [word.eq(self.i.payload), word_valid.eq(self.i.valid)]

        first, last = Signal(), Signal()
        pixel = word.position.x[:(SEGMENT - 1).bit_length()]
        m.d.comb += [
            first.eq((pixel == 0) & (word.position.word == 0)),
            last.eq(((pixel == SEGMENT - 1) | word.position.column_last)
                    & (word.position.word == self.config.block_words - 1)),
        ]
        slot = self._build_slots(m, word, word_valid, first, pass_on, buffer)
        m.d.comb += [
            packer.i.valid.eq(word_valid & pass_on),
            packer.i.p.values.eq(word.values),
            packer.i.p.map.eq(Cat(value.any() for value in word.values)),
            packer.i.p.slot.eq(slot), packer.i.p.first.eq(first), packer.i.p.last.eq(last),
            buffer.i_map.valid.eq(packer.i.valid),
            buffer.i_map.p.slot.eq(slot), buffer.i_map.p.map.eq(packer.i.p.map),
            buffer.i_map.p.chunk.eq(Cat(word.position.word, pixel)),
        ]
        self._build_place(m, word.position, slot, packer.i.valid & last, buffer)
        # Less than ~o_idle: an encoder with open slots, but without words, rests. An address is done before the packer.
        m.d.comb += self.o_active.eq(self.i.valid | word_valid | ~packer.o_idle | ~buffer.o_idle)
        return m

    def _build_slots(self, m, word, word_valid, first, pass_on, buffer):
        """The slot of a word. The first word of a slot opens the next of the ring and waits until that is free."""
        m.submodules.block_index = block_index = BlockIndex(self.config)
        occupied = Signal(range(self.slots + 1))
        slot, slot_q, slot_next = (Signal(range(self.slots), name=name) for name in ("slot", "slot_q", "slot_next"))
        slot_base = Signal(range(self.slots))     # Of the segment's first block.
        opens = Signal()
        m.d.comb += [
            pass_on.eq(~first | (occupied != self.slots)),
            opens.eq(word_valid & first & pass_on),
            block_index.i_step.eq(word_valid & pass_on),
            block_index.i_position.eq(word.position),
            self.o_idle.eq(~word_valid & (occupied == 0) & buffer.o_idle),
        ]
        m.d.sync += occupied.eq(occupied + opens - buffer.o_release)
        with m.If(first):
            m.d.comb += slot.eq(slot_next)
        with m.Elif(block_index.o_first):
            m.d.comb += slot.eq(slot_base)
        with m.Elif(word.position.word == 0):
            m.d.comb += slot.eq(self._after(slot_q))
        with m.Else():
            m.d.comb += slot.eq(slot_q)
        with m.If(word_valid & pass_on):
            m.d.sync += slot_q.eq(slot)
        with m.If(opens):
            m.d.sync += slot_next.eq(self._after(slot))
            with m.If(block_index.o_first):
                m.d.sync += slot_base.eq(slot)
        return slot

    def _after(self, slot):
        return Mux(slot == self.slots - 1, 0, slot + 1)

    def _build_place(self, m, position, slot, last, buffer):
        """The address of a slot: products, two sums, one sum. Ready before the packer ends the slot."""
        slot_shift = (self.config.slot_bytes - 1).bit_length()
        segment = position.x[(SEGMENT - 1).bit_length():]
        row_offset, segment_offset, block_offset = Signal(32), Signal(32), Signal(32)
        row_address, column_offset = Signal(32), Signal(32)
        entry = data.StructLayout({"valid": 1, "slot": range(self.slots), "pixel_last": range(SEGMENT)})
        entry_q, entry_q2, entry_q3 = (Signal(entry, name=name) for name in ("entry_q", "entry_q2", "entry_q3"))
        m.d.sync += [
            row_offset.eq(position.y * self.i_target.row_bytes),
            segment_offset.eq(segment * self.i_target.segment_bytes),
            block_offset.eq(position.block << slot_shift),
            entry_q.valid.eq(last), entry_q.slot.eq(slot), entry_q.pixel_last.eq(position.x),
            row_address.eq(self.i_target.address + row_offset),
            column_offset.eq(segment_offset + block_offset),
            entry_q2.eq(entry_q),
            buffer.i_place.p.address.eq(row_address + column_offset),
            entry_q3.eq(entry_q2),
        ]
        m.d.comb += [
            buffer.i_place.valid.eq(entry_q3.valid),
            buffer.i_place.p.slot.eq(entry_q3.slot),
            buffer.i_place.p.pixel_last.eq(entry_q3.pixel_last),
        ]

"""Slot buffer: keeps slots while they are filled, and writes each out in one request when it is complete.

Source: golden/README.md, "Compressed feature map".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import BEAT, SEGMENT, AcceleratorConfig
from .packer import row_layout, row_values, row_write, slot_end, slot_rows


def slot_map_write(c: AcceleratorConfig, slots: int) -> data.StructLayout:
    """``drain`` bits of the sparsity map of a slot, at bit ``chunk * drain``."""
    return data.StructLayout({"slot": range(slots), "chunk": range(SEGMENT * c.block_words), "map": c.drain})


def slot_place_write(slots: int) -> data.StructLayout:
    """Where a slot goes, and the last of its pixels that exists: the map of those beyond is 0."""
    return data.StructLayout({"slot": range(slots), "address": 32, "pixel_last": range(SEGMENT)})


class SlotBuffer(wiring.Component):
    """A ring of ``slots`` slots. ``o_data`` are the map beats of a slot, then ``ceil(count * value_width / 64)`` beats.

    Slots are written out in the order of the ring, starting at slot 0. Everything of a slot is written to the buffer at
    the latest with its ``i_end``.

    Flow control: the write ports never stall. One beat a cycle, without a bubble between slots while ``o_request`` is
    accepted. A request is offered no later than the first beat of its data; no beat waits for a later request.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths.
    slots : int
        Slots of the ring.

    Members
    -------
    i_map, i_place, i_row, i_end : In(stream.Signature(..., always_ready=True))
        Map bits, address, full rows of values, and the rest of a slot. ``i_end`` completes it.
    o_request : Out(stream.Signature(payloads.request()))
    o_data : Out(stream.Signature(64))
    o_release : Out(1)
        Pulse: the oldest complete slot has been read and may be filled again.
    o_idle : Out(1)
        No complete slot, no request and no beat is held.
    """
    i_map: stream.Interface
    i_place: stream.Interface
    i_row: stream.Interface
    i_end: stream.Interface
    o_request: stream.Interface
    o_data: stream.Interface

    #: Cycles from ``i_end`` to ``o_data.valid``, if nothing is written out.
    LATENCY = 4

    def __init__(self, config: AcceleratorConfig, slots: int):
        self.config, self.slots = config, slots
        super().__init__({
            "i_map": In(stream.Signature(slot_map_write(config, slots), always_ready=True)),
            "i_place": In(stream.Signature(slot_place_write(slots), always_ready=True)),
            "i_row": In(stream.Signature(row_write(config, slots), always_ready=True)),
            "i_end": In(stream.Signature(slot_end(config, slots), always_ready=True)),
            "o_request": Out(stream.Signature(payloads.request())),
            "o_data": Out(stream.Signature(BEAT)),
            "o_release": Out(1),
            "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.step = Signal()                                          # The read pipeline moves on.
        self.take = Signal()                                          # The next slot is begun.
        self.busy = Signal()
        self.slot = Signal(range(self.slots))
        self.beat = Signal(range(self.config.map_beats + self.config.value_beats))
        self.rows = Signal(range(slot_rows(self.config) + 1))         # Full rows; what follows is the tail.
        self.pixel_last = Signal(range(SEGMENT))
        read_valid = Signal()
        pending = Signal(range(self.slots + 1))
        m.d.comb += [
            self.step.eq(~self.o_data.valid | self.o_data.ready),
            self.o_idle.eq((pending == 0) & ~(self.busy | read_valid | self.o_data.valid | self.o_request.valid)),
        ]
        m.d.sync += pending.eq(pending + self.i_end.valid - self.take)
        self._build_take(m, pending)
        beat = self._build_read(m)
        with m.If(self.step):
            m.d.sync += [
                read_valid.eq(self.busy),
                self.o_data.valid.eq(read_valid),
                self.o_data.payload.eq(beat),
            ]
        return m

    def _build_take(self, m, pending):
        """Begin the next slot in the cycle of the last read of the one before."""
        config = self.config
        row_bits = (row_values(config) - 1).bit_length()
        next_slot = Signal(range(self.slots))
        beat_last = Signal.like(self.beat)
        count, place = self._build_records(m, next_slot)
        beats = Signal(range(config.map_beats + config.value_beats + 1))
        m.d.comb += [
            beats.eq(config.map_beats + (count + config.values_per_beat - 1) // config.values_per_beat),
            self.o_release.eq(self.busy & self.step & (self.beat == beat_last)),
            self.take.eq((pending != 0) & (~self.busy | self.o_release)
                         & (~self.o_request.valid | self.o_request.ready)),
        ]
        with m.If(self.o_request.ready):
            m.d.sync += self.o_request.valid.eq(0)
        with m.If(self.busy & self.step):
            m.d.sync += self.beat.eq(self.beat + 1)
        with m.If(self.o_release):
            m.d.sync += self.busy.eq(0)
        with m.If(self.take):
            m.d.sync += [
                self.busy.eq(1),
                self.slot.eq(next_slot),
                next_slot.eq(Mux(next_slot == self.slots - 1, 0, next_slot + 1)),
                self.beat.eq(0),
                beat_last.eq(beats - 1),
                self.rows.eq(count[row_bits:]),
                self.pixel_last.eq(place.pixel_last),
                self.o_request.valid.eq(1),
                self.o_request.p.address.eq(place.address),
                self.o_request.p.beats.eq(beats),
            ]

    def _build_records(self, m, next_slot):
        """Number of values and place of each slot; returns those of the next."""
        m.submodules.counts = counts = Memory(shape=self.i_end.p.count.shape(), depth=self.slots, init=[])
        place = data.StructLayout({"address": 32, "pixel_last": range(SEGMENT)})
        m.submodules.places = places = Memory(shape=place, depth=self.slots, init=[])
        count_write, count_read = counts.write_port(), counts.read_port(domain="comb")
        place_write, place_read = places.write_port(), places.read_port(domain="comb")
        m.d.comb += [
            count_write.addr.eq(self.i_end.p.slot), count_write.data.eq(self.i_end.p.count),
            count_write.en.eq(self.i_end.valid), count_read.addr.eq(next_slot),
            place_write.addr.eq(self.i_place.p.slot), place_write.data.address.eq(self.i_place.p.address),
            place_write.data.pixel_last.eq(self.i_place.p.pixel_last),
            place_write.en.eq(self.i_place.valid), place_read.addr.eq(next_slot),
        ]
        return count_read.data, place_read.data

    def _build_read(self, m):
        """Read one beat: the address is issued in the first stage, map, row or tail chosen in the second."""
        config = self.config
        beats_per_row = row_values(config) // config.values_per_beat
        value_beat = Signal(range(config.value_beats + 1))
        value_row = value_beat[(beats_per_row - 1).bit_length():]
        m.d.comb += value_beat.eq(self.beat - config.map_beats)
        is_map, is_tail = Signal(), Signal()
        part = Signal(range(max(2, beats_per_row)))
        mask, mask_q = Signal(BEAT), Signal(BEAT)
        pixels_per_beat = BEAT // config.block
        map_beat = self.beat[:(config.map_beats - 1).bit_length()]
        for pixel in range(pixels_per_beat):
            number = map_beat * pixels_per_beat + pixel
            m.d.comb += mask[pixel * config.block:(pixel + 1) * config.block].eq(
                (number <= self.pixel_last).replicate(config.block))
        with m.If(self.step):
            m.d.sync += [
                is_map.eq(self.beat < config.map_beats),
                is_tail.eq(value_row == self.rows),
                part.eq(value_beat & (beats_per_row - 1)),
                mask_q.eq(mask),
            ]
        row = Mux(is_tail, self._build_tails(m).as_value(), self._build_rows(m, value_row).as_value())
        return Mux(is_map, self._build_maps(m) & mask_q, row.word_select(part, BEAT))

    def _build_maps(self, m):
        config = self.config
        chunks = BEAT // config.drain
        beat_bits = (config.map_beats - 1).bit_length()
        m.submodules.maps = maps = Memory(shape=unsigned(BEAT), depth=self.slots * config.map_beats, init=[])
        write, read = maps.write_port(granularity=config.drain), maps.read_port()
        m.d.comb += [
            write.addr.eq(Cat(self.i_map.p.chunk[(chunks - 1).bit_length():], self.i_map.p.slot)),
            write.data.eq(self.i_map.p.map.replicate(chunks)),
            write.en.eq(Mux(self.i_map.valid, 1 << self.i_map.p.chunk[:(chunks - 1).bit_length()], 0)),
            read.addr.eq(Cat(self.beat[:beat_bits], self.slot)),
            read.en.eq(self.step),
        ]
        return read.data

    def _build_rows(self, m, row):
        rows = slot_rows(self.config)
        m.submodules.rows = memory = Memory(shape=row_layout(self.config), depth=self.slots * rows, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(Cat(self.i_row.p.row, self.i_row.p.slot)),
            write.data.eq(self.i_row.p.values),
            write.en.eq(self.i_row.valid),
            read.addr.eq(Cat(row[:(rows - 1).bit_length()], self.slot)),
            read.en.eq(self.step),
        ]
        return read.data

    def _build_tails(self, m):
        m.submodules.tails = memory = Memory(shape=row_layout(self.config), depth=self.slots, init=[])
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.addr.eq(self.i_end.p.slot), write.data.eq(self.i_end.p.tail), write.en.eq(self.i_end.valid),
            read.addr.eq(self.slot), read.en.eq(self.step),
        ]
        return read.data

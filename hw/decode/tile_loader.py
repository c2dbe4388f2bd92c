"""From the input of a tile in DRAM to the tile buffers of the groups.

Source: golden/README.md, "Compressed feature map", "Dense feature map" and "Tile geometry".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import BEAT, SEGMENT, AcceleratorConfig
from ..stream.fifo import StreamFifo
from ..stream.register import StreamRegister
from .dense_reader import DenseReader
from .map_reader import MapReader
from .map_writer import MapWriter, slot_values
from .slot_walker import SlotWalker
from .value_reader import ValueReader


class TileLoader(wiring.Component):
    """Load the slots of a tile: sparsity maps with the place of each pixel's values, and the values.

    ``SlotWalker`` requests maps (or dense segments) ahead, even those of the next job; their beats wait in a queue.
    ``MapReader`` or ``DenseReader`` makes them into words of pixels, ``MapWriter`` counts and writes those, and
    ``ValueReader`` writes the values, which are requested when the map of a compressed slot has been counted.

    Flow control: a slot in every ``max(4, beats)`` cycles, where ``beats`` are those of its map and values. Dense
    segments come through the client for maps. Data are requested only if there is room for them: ``i_map_data`` stalls
    for a cycle at most, ``i_value_data`` never. Between tiles the values of one must be there before those of the next
    are requested.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i_layer : In(payloads.layer())
        Constant from the first job of a layer until ``o_idle`` after its last.
    i_job : In(stream.Signature(payloads.load_job(config)))
        Inputs of tiles, each of at most ``tile_slots`` slots. May be taken while the tile before is still loaded.
    o_map_request, o_value_request : Out(stream.Signature(payloads.request()))
        Reads of maps or dense segments, and of values.
    i_map_data, i_value_data : In(stream.Signature(64))
        Their beats, in the order of the requests.
    o_map_write : Out(stream.Signature(payloads.map_write(config), always_ready=True))
        Map words.
    o_value_write : Out(stream.Signature(payloads.value_write(config), always_ready=True))
        Beats of values.
    i_free, i_half : In(1)
        A half of the tile buffer may be filled, and which.
    o_filled : Out(1)
        Pulse, the cycle after the last write of a tile or later.
    o_idle : Out(1)
        No job is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i_layer: data.View
    i_job: stream.Interface
    o_map_request: stream.Interface
    o_value_request: stream.Interface
    i_map_data: stream.Interface
    i_value_data: stream.Interface
    o_map_write: stream.Interface
    o_value_write: stream.Interface
    i_free: Signal
    i_half: Signal
    o_filled: Signal
    o_idle: Signal
    o_active: Signal

    #: Beats of maps that wait; at 64 the full rate survives a latency of memory of some 60 cycles.
    MAP_DEPTH = 64
    #: Slots whose values are on their way.
    VALUE_SLOTS = 32

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_layer": In(payloads.layer()),
            "i_job": In(stream.Signature(payloads.load_job(config))),
            "o_map_request": Out(stream.Signature(payloads.request())),
            "o_value_request": Out(stream.Signature(payloads.request())),
            "i_map_data": In(stream.Signature(BEAT)),
            "i_value_data": In(stream.Signature(BEAT)),
            "o_map_write": Out(stream.Signature(payloads.map_write(config), always_ready=True)),
            "o_value_write": Out(stream.Signature(payloads.value_write(config), always_ready=True)),
            "i_free": In(1), "i_half": In(1), "o_filled": Out(1), "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.walker = walker = SlotWalker(config=self.config, depth=self.MAP_DEPTH)
        m.submodules.map_writer = map_writer = MapWriter(config=self.config)
        m.submodules.value_reader = value_reader = ValueReader(config=self.config)
        m.submodules.dense_reader = dense_reader = DenseReader(config=self.config)
        wiring.connect(m, wiring.flipped(self.i_job), walker.i_job)
        wiring.connect(m, walker.o_request, wiring.flipped(self.o_map_request))
        wiring.connect(m, map_writer.o_write, wiring.flipped(self.o_map_write))
        wiring.connect(m, wiring.flipped(self.i_value_data), value_reader.i_data)
        m.d.comb += [
            walker.i_layer.eq(self.i_layer),
            map_writer.i_dense.eq(self.i_layer.dense_in),
            map_writer.i_shift.eq(self.i_layer.dense_shift),
            dense_reader.i_shift.eq(self.i_layer.dense_shift),
        ]
        loading = Signal()
        slot = Signal(range(2 * self.config.tile_slots))
        slot_ends = self._build_words(m, walker, dense_reader, map_writer, loading=loading, slot=slot)
        waits = self._build_control(m, walker, loading=loading, slot=slot, slot_ends=slot_ends,
                                    done=value_reader.o_done)
        self._build_value_request(m, map_writer, value_reader)
        self._build_value_write(m, value_reader, dense_reader, slot)
        m.d.comb += self.o_active.eq(
            ~waits | walker.o_active | map_writer.o_active | value_reader.o_active | self.o_value_write.valid
            | m.submodules.beats.o_moves | m.submodules.beat.o.valid & m.submodules.beat.o.ready
            | m.submodules.slots.o_moves | self.o_value_request.valid & self.o_value_request.ready)
        return m

    def _build_control(self, m, walker, *, loading, slot, slot_ends, done):
        """Tile by tile: a tile begins when its half is free and ends when all of it has been written. Returns whether
        it waits for the next one."""
        place = walker.o.p
        waits = Signal()
        m.d.comb += walker.o.ready.eq(slot_ends)
        with m.FSM():
            with m.State("Start"):
                m.d.comb += [self.o_idle.eq(walker.o_idle), waits.eq(~(walker.o.valid & self.i_free))]
                m.d.sync += slot.eq(Mux(self.i_half, self.config.tile_slots, 0))
                with m.If(walker.o.valid & self.i_free):
                    m.next = "Load"
                    with m.If(place.none):
                        m.d.comb += walker.o.ready.eq(1)
                        m.next = "Filled"
            with m.State("Load"):
                m.d.comb += loading.eq(walker.o.valid)
                with m.If(slot_ends):
                    m.d.sync += slot.eq(slot + 1)
                    with m.If(place.last):
                        m.next = "Finish"
            with m.State("Finish"):
                with m.If(done):
                    m.next = "Filled"
            with m.State("Filled"):
                # i_free and i_half answer in the next cycle, in which they are looked at again.
                m.d.comb += self.o_filled.eq(1)
                m.next = "Start"
        return waits

    def _build_words(self, m, walker, dense_reader, map_writer, *, loading, slot):
        """From the queue of beats to the words of pixels. Returns the signal that the last word of a slot is taken."""
        m.submodules.beats = beats = StreamFifo(shape=BEAT, depth=self.MAP_DEPTH)
        m.submodules.map_reader = map_reader = MapReader(config=self.config)
        m.submodules.beat = beat = StreamRegister(BEAT)
        wiring.connect(m, wiring.flipped(self.i_map_data), beats.i)
        wiring.connect(m, beats.o, beat.i)
        dense = self.i_layer.dense_in
        pixel = Signal(range(SEGMENT))
        slot_ends = Signal()
        # Beats of the next tile must wait in the queue: loading holds from a tile's first to its last word.
        for reader, chosen in ((map_reader, ~dense), (dense_reader, dense)):
            m.d.comb += [
                reader.i.payload.eq(beat.o.payload),
                reader.i.valid.eq(beat.o.valid & loading & chosen),
                reader.o.ready.eq(map_writer.i.ready),
            ]
        m.d.comb += [
            beat.o.ready.eq(loading & Mux(dense, dense_reader.i.ready, map_reader.i.ready)),
            walker.i_beat_taken.eq(beats.o.valid & beats.o.ready),
            map_writer.i.valid.eq(map_reader.o.valid | dense_reader.o.valid),
            map_writer.i.p.map.eq(Mux(dense, dense_reader.o.payload, map_reader.o.payload)),
            map_writer.i.p.pixel.eq(pixel),
            map_writer.i.p.slot.address.eq(walker.o.p.address),
            map_writer.i.p.slot.slot.eq(slot),
            map_writer.i.p.slot.last.eq(walker.o.p.last),
            slot_ends.eq(map_writer.i.valid & map_writer.i.ready & (pixel == SEGMENT - 1)),
        ]
        with m.If(map_writer.i.valid & map_writer.i.ready):
            m.d.sync += pixel.eq(pixel + 1)
        return slot_ends

    def _build_value_request(self, m, map_writer, value_reader):
        """Put the request for the values of a slot that has some into a register and note where they go."""
        m.submodules.slots = slots = StreamFifo(shape=slot_values(self.config), depth=self.VALUE_SLOTS)
        wiring.connect(m, slots.o, value_reader.i)
        counted, request = map_writer.o, self.o_value_request
        empty = counted.p.empty
        m.d.comb += [
            slots.i.payload.eq(counted.payload),
            # Empty slots would hold up the data behind them; the last one tells that the tile is done.
            slots.i.valid.eq(counted.valid & Mux(empty, counted.p.slot.last, ~request.valid)),
            counted.ready.eq(slots.i.ready & (empty | ~request.valid)),
        ]
        with m.If(request.ready):
            m.d.sync += request.valid.eq(0)
        with m.If(counted.valid & counted.ready & ~empty):
            m.d.sync += [
                request.valid.eq(1),
                request.p.address.eq(Cat(C(0, 3), counted.p.slot.address + self.config.map_beats)),
                request.p.beats.eq(counted.p.beats),
            ]

    def _build_value_write(self, m, value_reader, dense_reader, slot):
        dense_values = dense_reader.o_values
        m.d.sync += [
            self.o_value_write.valid.eq(value_reader.o_write.valid | dense_values.valid),
            self.o_value_write.p.eq(value_reader.o_write.p),
        ]
        with m.If(self.i_layer.dense_in):
            m.d.sync += [
                self.o_value_write.p.address.eq(Cat(dense_values.p.beat, slot)),
                self.o_value_write.p.data.eq(dense_values.p.data),
            ]

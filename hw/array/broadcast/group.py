"""Group: lanes that share their windows. Each non-zero value under a window goes to all lanes at once.

Source: A. Aimar et al., "NullHop", IEEE TNNLS 30(3), 2019, section III.
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...buffer.tile_buffer import TileBuffer
from ...buffer.weight_buffer import WeightBuffer
from ...config import AcceleratorConfig
from ...payloads import activity, group_job, map_write, sums, value_write, weight_write
from .bit_walker import BitWalker, element
from .drain import Drain
from .unit import Unit
from .window_walker import WindowWalker
from .word_filter import WordFilter

#: Cycles from an element to its finished sum: weight memory, and the unit.
LANE_LATENCY = WeightBuffer.LATENCY + Unit.ADD_DELAY + 1


class Group(wiring.Component):
    """All sums of the windows whose turn is ``index``, as ``payloads.sums``, window by window.

    ``WindowWalker`` -> ``WordFilter`` -> ``BitWalker`` -> ``TileBuffer``, ``WeightBuffer`` -> each ``Unit`` ->
    ``Drain``.

    Flow control: a non-zero value a cycle. Jobs overlap: the next one is set up while the values of the present one
    are multiplied. ``o_sums`` may stall; the group goes on until the sums of 4 windows wait.

    Members
    -------
    i_job : In(Stream(group_job(config)))
    i_map, i_values, i_weights : write ports (``map_write``, ``value_write``, ``weight_write``)
    i_tile_full, i_tile_half, o_tile_take, o_tile_release, i_weights_full, i_weights_half, o_weights_take,
    o_weights_release
        See ``DoubleBufferControl``. A tile is taken and released once for each job; weights are taken with
        ``weights_first`` and released with ``weights_last``. No half is read after its release.
    o_sums : Out(Stream(sums(config)))
        ``words`` words for each window of a job with ``last_chunk``.
    o_activity : Out(activity())
        What the group did in the cycle before; one bit is set.
    o_lane_work : Out(range(lanes + 1))
        Lanes that exist and got a non-zero value in the cycle before.
    o_idle : Out(1)
        No job is inside and all sums have been taken, for a cycle at least.
    """

    i_job: stream.Interface
    i_map: stream.Interface
    i_values: stream.Interface
    i_weights: stream.Interface
    i_tile_full: Signal
    i_tile_half: Signal
    o_tile_take: Signal
    o_tile_release: Signal
    i_weights_full: Signal
    i_weights_half: Signal
    o_weights_take: Signal
    o_weights_release: Signal
    o_sums: stream.Interface
    o_activity: data.View
    o_lane_work: Signal
    o_idle: Signal

    #: Cycles from the bit that ends a window to ``o_sums.valid``.
    LATENCY = BitWalker.LATENCY + LANE_LATENCY + Drain.LATENCY

    def __init__(self, config: AcceleratorConfig, index: int):
        self.config, self.index = config, index
        super().__init__({
            "i_job": In(stream.Signature(group_job(config))),
            "i_map": In(stream.Signature(map_write(config), always_ready=True)),
            "i_values": In(stream.Signature(value_write(config), always_ready=True)),
            "i_weights": In(stream.Signature(weight_write(config), always_ready=True)),
            "i_tile_full": In(1), "i_tile_half": In(1), "o_tile_take": Out(1), "o_tile_release": Out(1),
            "i_weights_full": In(1), "i_weights_half": In(1), "o_weights_take": Out(1), "o_weights_release": Out(1),
            "o_sums": Out(stream.Signature(sums(config))), "o_activity": Out(activity(), init={"idle": 1}),
            "o_lane_work": Out(range(config.lanes + 1)), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.window_walker = walker = WindowWalker(c, self.index)
        m.submodules.tile_buffer = tile = TileBuffer(c)
        m.submodules.word_filter = word_filter = WordFilter(c)
        m.submodules.bit_walker = bits = BitWalker(c)
        m.submodules.weight_buffer = weights = WeightBuffer(c)
        m.submodules.drain = drain = Drain(c)
        for own, part in ((self.i_job, walker.i_job), (self.i_map, tile.i_map), (self.i_values, tile.i_values),
                          (self.i_weights, weights.i)):
            wiring.connect(m, wiring.flipped(own), part)
        for source, sink in ((walker.o, word_filter.i), (word_filter.o, bits.i)):
            wiring.connect(m, source, sink)
        wiring.connect(m, drain.o, wiring.flipped(self.o_sums))
        m.d.comb += [
            walker.i_tile_full.eq(self.i_tile_full), walker.i_tile_half.eq(self.i_tile_half),
            walker.i_weights_full.eq(self.i_weights_full), walker.i_weights_half.eq(self.i_weights_half),
            self.o_tile_take.eq(walker.o_tile_take), self.o_weights_take.eq(walker.o_weights_take),
            tile.i_map_address.eq(word_filter.o_map_address), tile.i_map_enable.eq(word_filter.o_map_enable),
            word_filter.i_map.eq(tile.o_map), tile.i_value.eq(bits.o.value),
            weights.i_address.eq(bits.o.weight),
            bits.i_drained.eq(self.o_sums.valid & self.o_sums.ready),
        ]
        lanes_busy = self._build_lanes(m, bits.o, tile.o_value, weights.o, drain)
        found_none = ~walker.o_walking & word_filter.o_idle & ~bits.o_word
        self._build_activity(m, walker, bits, found_none)
        # From a register, so that the way to the sequencer is short; a job that comes now ends it in time.
        m.d.sync += self.o_idle.eq(walker.o_idle & found_none & bits.o_idle & drain.o_idle & ~lanes_busy
                                   & ~self.i_job.valid)
        return m

    def _build_lanes(self, m, issued, value, weights, drain):
        """All units, the delays that keep control beside the values, and the releases behind the memories."""
        c = self.config
        delayed = [issued] + [Signal(element(c), name=f"element_q{n}") for n in range(1, LANE_LATENCY + 1)]
        m.d.sync += [later.eq(sooner) for sooner, later in zip(delayed, delayed[1:], strict=False)]
        add, done = delayed[-2:]
        units, shadows = [], []
        for n in range(c.units):
            m.submodules[f"unit{n}"] = unit = Unit(c)
            m.d.comb += [
                unit.i_weights.eq(weights[n]), unit.i_value.eq(value), unit.i_add.eq(add.valid),
                unit.i_first.eq(add.first), unit.i_load.eq(drain.i_load), unit.i_shift.eq(drain.o_shift),
            ]
            units.append(unit)
            shadows += unit.o_shadow
        followers = [follower for unit in units for follower in unit.i_shadow]
        m.d.comb += [follower.eq(shadow) for follower, shadow in zip(followers, shadows[c.drain:], strict=False)]
        m.d.comb += [
            self.o_tile_release.eq(delayed[1].release_tile), self.o_weights_release.eq(delayed[1].release_weights),
            drain.i_load.eq(done.valid & done.last), drain.i_restart.eq(done.restart),
            drain.i_first_chunk.eq(done.first_chunk), drain.i_last_chunk.eq(done.last_chunk),
            drain.i_words.eq(done.words), drain.i_lanes.eq(Cat(shadows[:c.drain])),
        ]
        return Cat(stage.valid | stage.release_tile for stage in delayed).any()

    def _build_activity(self, m, walker, bits, found_none):
        """Exactly one reason for each cycle."""
        activities = Signal(activity())
        m.d.sync += [self.o_activity.eq(activities), self.o_lane_work.eq(bits.o_lane_work)]
        with m.If(bits.o_busy):
            m.d.comb += activities.busy.eq(1)
        with m.Elif(bits.o_hold):
            m.d.comb += activities.output.eq(1)
        with m.Elif(walker.o_wait_tile & found_none):
            m.d.comb += activities.tile.eq(1)
        with m.Elif(walker.o_wait_weights & found_none):
            m.d.comb += activities.weights.eq(1)
        with m.Elif(~walker.o_idle | ~found_none):
            m.d.comb += activities.find.eq(1)
        with m.Else():
            m.d.comb += activities.idle.eq(1)

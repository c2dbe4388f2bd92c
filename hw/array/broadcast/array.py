"""The broadcast array: groups that share tiles and weights, each with its own windows.

Source: A. Aimar et al., "NullHop", IEEE TNNLS 30(3), 2019, section III.
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...buffer.double_buffer import DoubleBufferControl
from ...config import AcceleratorConfig
from ...payloads import activity, group_job, map_write, sums, value_write, weight_write
from ...stream.fifo import StreamFifo
from ...stream.fork import StreamFork
from .group import Group

#: Jobs that the sequencer may be ahead of each group.
JOB_DEPTH = 4


class BroadcastArray(wiring.Component):
    """All sums of all windows: every group gets all jobs, tiles and weights, and computes its own windows.

    Members
    -------
    i_job : In(Stream(group_job(config)))
    i_map, i_values, i_weights : write ports (``map_write``, ``value_write``, ``weight_write``)
    o_tile_free, o_tile_half, i_tile_filled, o_weights_free, o_weights_half, i_weights_filled
        Writer's side of the double buffers of tiles and weights (``DoubleBufferControl``).
    o_sums : Out(Stream(sums(config))).array(groups)
    o_activity, o_lane_work : arrays over groups, see ``Group``
    o_idle : Out(1)
        No job is inside and all sums have been taken.
    """

    i_job: stream.Interface
    o_idle: Signal

    def __init__(self, config: AcceleratorConfig):
        self.config = c = config
        super().__init__({
            "i_job": In(stream.Signature(group_job(c))),
            "i_map": In(stream.Signature(map_write(c), always_ready=True)),
            "i_values": In(stream.Signature(value_write(c), always_ready=True)),
            "i_weights": In(stream.Signature(weight_write(c), always_ready=True)),
            "o_tile_free": Out(1), "o_tile_half": Out(1), "i_tile_filled": In(1),
            "o_weights_free": Out(1), "o_weights_half": Out(1), "i_weights_filled": In(1),
            "o_sums": Out(stream.Signature(sums(c))).array(c.groups),
            "o_activity": Out(activity(), init={"idle": 1}).array(c.groups),
            "o_lane_work": Out(range(c.group_multipliers + 1)).array(c.groups), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.tiles = tiles = DoubleBufferControl(consumers=c.groups)
        m.submodules.weights = weights = DoubleBufferControl(consumers=c.groups)
        m.submodules.fork = fork = StreamFork(group_job(c), count=c.groups)
        wiring.connect(m, wiring.flipped(self.i_job), fork.i)
        m.d.comb += [
            self.o_tile_free.eq(tiles.o_free), self.o_tile_half.eq(tiles.o_fill_half),
            tiles.i_filled.eq(self.i_tile_filled), self.o_weights_free.eq(weights.o_free),
            self.o_weights_half.eq(weights.o_fill_half), weights.i_filled.eq(self.i_weights_filled),
        ]
        idles = []
        for n in range(c.groups):
            m.submodules[f"group{n}"] = group = Group(c, n)
            m.submodules[f"jobs{n}"] = jobs = StreamFifo(group_job(c), depth=JOB_DEPTH)
            wiring.connect(m, fork.o[n], jobs.i)
            wiring.connect(m, jobs.o, group.i_job)
            wiring.connect(m, group.o_sums, wiring.flipped(self.o_sums[n]))
            for port, own in ((group.i_map, self.i_map), (group.i_values, self.i_values),
                              (group.i_weights, self.i_weights)):
                m.d.comb += [port.valid.eq(own.valid), port.payload.eq(own.payload)]
            m.d.comb += [
                group.i_tile_full.eq(tiles.o_full[n]), group.i_tile_half.eq(tiles.o_half[n]),
                tiles.i_take[n].eq(group.o_tile_take), tiles.i_release[n].eq(group.o_tile_release),
                group.i_weights_full.eq(weights.o_full[n]), group.i_weights_half.eq(weights.o_half[n]),
                weights.i_take[n].eq(group.o_weights_take), weights.i_release[n].eq(group.o_weights_release),
                self.o_activity[n].eq(group.o_activity), self.o_lane_work[n].eq(group.o_lane_work),
            ]
            idles += [jobs.level == 0, group.o_idle]
        m.d.comb += self.o_idle.eq(Cat(idles).all())
        return m

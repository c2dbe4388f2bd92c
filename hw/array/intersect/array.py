"""The intersect array: every processing element multiplies what is not zero in both operands of its own sum.

    compressed tile --> TileUnpacker --+--> Cluster (``clusters`` of each of ``groups``) --> SumJoiner --> sums
    unpacked weights ------------------+

Source: docs/architecture.md, "Intersect array".
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...buffer.double_buffer import DoubleBufferControl
from ...config import AcceleratorConfig
from ...payloads import (
    activity,
    group_job,
    lane_start,
    map_write,
    phase_map,
    phase_values,
    sums,
    value_write,
)
from ...stream.fifo import StreamFifo
from ...stream.fork import StreamFork
from .cluster import Cluster
from .sum_joiner import SumJoiner
from .tile_unpacker import TileUnpacker

#: Jobs that the sequencer may be ahead of each cluster.
JOB_DEPTH = 4


class IntersectArray(wiring.Component):
    """All sums of all windows, group by group.

    Members
    -------
    i_job : In(Stream(group_job(config)))
    i_map, i_values : In(Stream(map_write(config))), In(Stream(value_write(config))), always ready
        Compressed tiles.
    i_starts, i_phase_map, i_phase_values : In(Stream(...)).array(clusters), always ready
        Unpacked weights of a round, of the lanes of each cluster.
    o_tile_free, o_tile_half, i_tile_filled, o_weights_free, o_weights_half, i_weights_filled
        Writer's side of the double buffers of the compressed tiles and of the weights.
    o_sums : Out(Stream(sums(config))).array(groups)
        ``words`` words for each window of a job with ``last_chunk``, for each group.
    o_activity : Out(activity()).array(groups)
        What a group did in the cycle before; one bit is set. ``busy``: at least one PE added a product.
    o_lane_work : Out(range(group_multipliers + 1)).array(groups)
        Products that the group added in the cycle before.
    o_idle : Out(1)
        No job is inside and all sums have left.
    """

    i_job: stream.Interface
    o_idle: Signal

    def __init__(self, config: AcceleratorConfig):
        self.config = c = config
        super().__init__({
            "i_job": In(stream.Signature(group_job(c))),
            "i_map": In(stream.Signature(map_write(c), always_ready=True)),
            "i_values": In(stream.Signature(value_write(c), always_ready=True)),
            "i_starts": In(stream.Signature(lane_start(c), always_ready=True)).array(c.clusters),
            "i_phase_map": In(stream.Signature(phase_map(c), always_ready=True)).array(c.clusters),
            "i_phase_values": In(stream.Signature(phase_values(c), always_ready=True)).array(c.clusters),
            "o_tile_free": Out(1), "o_tile_half": Out(1), "i_tile_filled": In(1),
            "o_weights_free": Out(1), "o_weights_half": Out(1), "i_weights_filled": In(1),
            "o_sums": Out(stream.Signature(sums(c))).array(c.groups),
            "o_activity": Out(activity(), init={"idle": 1}).array(c.groups),
            "o_lane_work": Out(range(c.group_multipliers + 1)).array(c.groups), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        clusters = c.groups * c.clusters
        m.submodules.packed = packed = DoubleBufferControl(consumers=1)
        m.submodules.tiles = self._tiles = DoubleBufferControl(consumers=clusters)
        m.submodules.weights = self._weights = DoubleBufferControl(consumers=clusters)
        m.submodules.unpacker = self._unpacker = unpacker = TileUnpacker(c)
        m.submodules.fork = fork = StreamFork(group_job(c), count=clusters + 1)
        wiring.connect(m, wiring.flipped(self.i_job), fork.i)
        m.d.comb += [
            self.o_tile_free.eq(packed.o_free), self.o_tile_half.eq(packed.o_fill_half),
            packed.i_filled.eq(self.i_tile_filled), packed.i_take.eq(unpacker.o_packed_take),
            packed.i_release.eq(unpacker.o_packed_release), unpacker.i_packed_full.eq(packed.o_full),
            unpacker.i_packed_half.eq(packed.o_half), unpacker.i_free.eq(self._tiles.o_free),
            unpacker.i_half.eq(self._tiles.o_fill_half), self._tiles.i_filled.eq(unpacker.o_filled),
            self.o_weights_free.eq(self._weights.o_free), self.o_weights_half.eq(self._weights.o_fill_half),
            self._weights.i_filled.eq(self.i_weights_filled),
        ]
        for port, own in ((unpacker.i_map, self.i_map), (unpacker.i_values, self.i_values)):
            m.d.comb += [port.valid.eq(own.valid), port.payload.eq(own.payload)]
        idles = [self._fifo(m, "unpack_jobs", fork.o[clusters], unpacker.i_job), unpacker.o_idle]
        for group in range(c.groups):
            idles += self._build_group(m, group, fork)
        m.d.comb += self.o_idle.eq(Cat(idles).all() & ~self.i_job.valid)
        return m

    def _fifo(self, m, name, source, sink):
        """A queue of jobs. Returns whether it is empty."""
        m.submodules[name] = fifo = StreamFifo(group_job(self.config), depth=JOB_DEPTH)
        wiring.connect(m, source, fifo.i)
        wiring.connect(m, fifo.o, sink)
        return fifo.level == 0

    def _build_group(self, m, group, fork):
        """The clusters of a group. Returns what is 1 while they are idle."""
        c, unpacker = self.config, self._unpacker
        m.submodules[f"sums{group}"] = joiner = SumJoiner(c)
        parts, idles = [], [joiner.o_idle]
        for n in range(c.clusters):
            at = group * c.clusters + n
            m.submodules[f"cluster{group}_{n}"] = part = Cluster(c, group, n)
            idles += [self._fifo(m, f"jobs{group}_{n}", fork.o[at], part.i_job), part.o_idle]
            wiring.connect(m, part.o_sums, joiner.i[n])
            for port, source in ((part.i_map, unpacker.o_map), (part.i_values, unpacker.o_values),
                                 (part.i_starts, self.i_starts[n]), (part.i_phase_map, self.i_phase_map[n]),
                                 (part.i_phase_values, self.i_phase_values[n])):
                m.d.comb += [port.valid.eq(source.valid), port.payload.eq(source.payload)]
            m.d.comb += [
                part.i_tile_full.eq(self._tiles.o_full[at]), part.i_tile_half.eq(self._tiles.o_half[at]),
                self._tiles.i_take[at].eq(part.o_tile_take), self._tiles.i_release[at].eq(part.o_tile_release),
                part.i_weights_full.eq(self._weights.o_full[at]), part.i_weights_half.eq(self._weights.o_half[at]),
                self._weights.i_take[at].eq(part.o_weights_take),
                self._weights.i_release[at].eq(part.o_weights_release),
            ]
            parts.append(part)
        wiring.connect(m, joiner.o, wiring.flipped(self.o_sums[group]))
        self._build_activity(m, group, parts)
        return idles

    def _build_activity(self, m, group, parts):
        """Exactly one reason for each cycle of a group."""
        work, reason = Signal(range(self.config.group_multipliers + 1)), Signal(activity())
        m.d.comb += work.eq(sum(part.o_work for part in parts))
        with m.If(work != 0):
            m.d.comb += reason.busy.eq(1)
        with m.Elif(Cat(part.o_idle for part in parts).all()):
            m.d.comb += reason.idle.eq(1)
        for name in ("output", "tile", "weights"):
            with m.Elif(Cat(part.o_wait[name] for part in parts).any()):
                m.d.comb += reason[name].eq(1)
        with m.Else():
            m.d.comb += reason.find.eq(1)
        m.d.sync += [self.o_lane_work[group].eq(work), self.o_activity[group].eq(reason)]

"""Sequencer: runs the loops of a layer and gives every block its jobs.

Source: golden/README.md, "Loop order" (normative).
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import COLUMN_BITS, LOCAL_BITS, ROW_BITS, AcceleratorConfig
from ..registers import ERRORS
from .descriptor_reader import checked_layer
from .tile_geometry import TileGeometry


class Sequencer(wiring.Component):
    """For each layer: for each kernel block, pass, phase, channel chunk, row chunk and tile, send one job.

    A phase and a chunk are a round; the last ``joined`` phases share that of the one before; the broadcast array has
    one phase. A job goes to ``o_load`` and ``o_group``, with the last round also to ``o_collect``. A layer ends when
    all jobs are taken and ``i_idle`` has been up for ``SETTLE`` cycles; only then the next one begins: it reads what
    this one wrote.

    Flow control: a job takes ``TileGeometry.LATENCY + 6`` cycles or more.

    Members
    -------
    i : In(stream.Signature(checked_layer()))
        Layers; taken when the one before has ended.
    o_layer : Out(payloads.layer())
        The layer that runs; constant while it runs.
    o_load, o_group, o_collect : streams
        Jobs. Each is offered until taken; the next job comes when all are taken.
    i_idle : In(1)
        No job is anywhere in the accelerator and every write has been answered.
    o_begin, o_end : Out(1)
        Pulses: a layer begins, a layer has ended.
    o_busy : Out(1)
        Between ``o_begin`` and ``o_end``.
    o_error, o_error_code, o_error_address : Out
        ``tile_too_large``, ``pass_too_large``, ``pool_too_wide`` or ``geometry``, with the descriptor's address. Stays
        up; no further job is sent.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    #: Cycles that ``i_idle`` must last: more than any word takes from one part to the next.
    SETTLE = 8

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(checked_layer())),
            "o_layer": Out(payloads.layer()),
            "o_load": Out(stream.Signature(payloads.load_job(config))),
            "o_group": Out(stream.Signature(payloads.group_job(config))),
            "o_collect": Out(stream.Signature(payloads.collect_job(config))),
            "i_idle": In(1), "o_begin": Out(1), "o_end": Out(1), "o_busy": Out(1),
            "o_error": Out(1), "o_error_code": Out(8), "o_error_address": Out(32), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.geometry = self._geometry = TileGeometry(row_bits=ROW_BITS, column_bits=COLUMN_BITS)
        self._build_loops(m)
        self._build_jobs(m)
        pending = Signal(3)
        wait = Signal(range(max(self.SETTLE, TileGeometry.LATENCY + 1) + 1))
        m.d.comb += [
            Cat(self.o_load.valid, self.o_group.valid, self.o_collect.valid).eq(pending),
            self.o_busy.eq(1),
            self.o_active.eq(1),
        ]
        taken = Cat(self.o_load.ready, self.o_group.ready, self.o_collect.ready)
        m.d.sync += [pending.eq(pending & ~taken), wait.eq(wait - 1)]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.o_busy.eq(0), self.i.ready.eq(self.i_idle),
                             self.o_begin.eq(self.i.valid & self.i_idle), self.o_active.eq(self.o_begin)]
                with m.If(self.o_begin):
                    m.d.sync += [self.o_layer.eq(self.i.p.layer), self.o_error_address.eq(self.i.p.address)]
                    m.next = "Layer"
            with m.State("Layer"):
                self._restart(m)
                m.next = "Prepare"
            with m.State("Prepare"):
                # The loop variables change here. Geometry follows, then the registers of what ends here.
                m.d.sync += wait.eq(TileGeometry.LATENCY + 1)
                m.next = "Compute"
            with m.State("Compute"):
                with m.If(wait == 0):
                    m.d.sync += self._windows.eq(self._windows + self._geometry.o_windows)
                    m.next = "Check"
            with m.State("Check"):
                self._check(m)
                m.next = "Offer"
            with m.State("Offer"):
                with m.If(~self.o_error):
                    m.d.sync += pending.eq(Cat(1, 1, self._last_round))
                    m.next = "Advance"
            with m.State("Advance"):
                m.d.comb += self.o_active.eq((pending & taken).any())
                with m.If((pending & ~taken) == 0):
                    self._advance(m)
                    m.d.sync += wait.eq(self.SETTLE)
                    m.next = "Prepare"
                    with m.If(self._pass_end & self._last_round & self._map_end & self._last_kernels):
                        m.next = "Settle"
            with m.State("Settle"):
                with m.If(~self.i_idle):
                    m.d.sync += wait.eq(self.SETTLE)
                with m.Elif(wait == 0):
                    m.d.comb += self.o_end.eq(1)
                    m.next = "Idle"
        return m

    def _build_loops(self, m):
        """Loop variables, what the end of each loop is, what exceeds a buffer."""
        layer, geometry = self.o_layer, self._geometry
        self._channels_done, self._channel = Signal.like(layer.out_channels), Signal.like(layer.in_channels)
        self._row, self._phase = Signal(3), Signal.like(layer.phases)
        self._y, self._pass_y = Signal(ROW_BITS), Signal(ROW_BITS)
        self._x, self._pass_x = Signal(COLUMN_BITS), Signal(COLUMN_BITS)
        self._tile, self._pass, self._windows = Signal(16), Signal(16), Signal(24)
        # Registered: derived from the loop variables in the cycle after "Prepare".
        self._chunk_channels, self._chunk_rows = Signal.like(layer.in_channels), Signal(3)
        self._lanes = Signal(range(self.config.lanes + 1))
        self._last_kernels, self._last_channels, self._last_rows = Signal(), Signal(), Signal()
        self._last_phase, self._last_chunk, self._last_round, self._single = Signal(), Signal(), Signal(), Signal()
        self._pass_end, self._map_end = Signal(), Signal()
        self._tile_last, self._pass_last, self._large, self._wide = Signal(), Signal(), Signal(), Signal()
        kernels_left = layer.out_channels - self._channels_done
        channels_left, rows_left = layer.in_channels - self._channel, layer.kernel_rows - self._row
        m.d.sync += [
            self._last_kernels.eq(kernels_left <= self.config.lanes),
            self._lanes.eq(Mux(kernels_left <= self.config.lanes, kernels_left, self.config.lanes)),
            self._last_channels.eq(channels_left <= layer.chunk_channels),
            self._chunk_channels.eq(Mux(channels_left <= layer.chunk_channels, channels_left, layer.chunk_channels)),
            self._last_rows.eq(rows_left <= layer.chunk_rows),
            self._chunk_rows.eq(Mux(rows_left <= layer.chunk_rows, rows_left, layer.chunk_rows)),
            self._single.eq((layer.chunk_channels >= layer.in_channels) & (layer.chunk_rows >= layer.kernel_rows)
                            & (layer.phases == layer.joined + 1)),
            self._map_end.eq(geometry.o_rows.last & geometry.o_columns.last),
            self._tile_last.eq(self._tile == layer.tiles_per_pass - 1),
            self._pass_last.eq(self._pass == layer.passes - 1),
        ]
        pooled = (geometry.o_columns.windows + (layer.pool == 2)) >> 1
        m.d.sync += [
            self._large.eq((geometry.o_rows.loaded >= 2 ** LOCAL_BITS) | (geometry.o_segments >= 2 ** LOCAL_BITS)
                           | (geometry.o_slots > self.config.tile_slots)),
            self._wide.eq(pooled > self.config.pool_columns),
        ]
        # Phases that cannot be take no logic.
        if self.config.intersect:
            m.d.sync += self._last_phase.eq(self._phase + layer.joined == layer.phases - 1)
        else:
            m.d.comb += self._last_phase.eq(1)
        m.d.comb += [
            self._last_chunk.eq(self._last_channels & self._last_rows),
            self._last_round.eq(self._last_chunk & self._last_phase),
            self._pass_end.eq(self._map_end | self._tile_last),
        ]

    def _build_jobs(self, m):
        """The jobs of the present tile and round, from the loop variables and the tile's geometry."""
        layer, geometry, config = self.o_layer, self._geometry, self.config
        shift = config.block.bit_length() - 1
        blocks, out_blocks = Signal(payloads.BLOCK_BITS), Signal(range(config.lanes // config.block + 1))
        words = Signal(range(config.window_words + 1))
        first_round = (self._channel == 0) & (self._row == 0) & (self._phase == 0)
        pass_first, map_first = self._tile == 0, (self._y == 0) & (self._x == 0)
        rows, columns = geometry.o_rows, geometry.o_columns
        m.d.comb += [
            blocks.eq((self._chunk_channels + config.block - 1) >> shift),
            out_blocks.eq((self._lanes + config.block - 1) >> shift),
            words.eq(out_blocks * config.block_words),
            geometry.i_blocks.eq(blocks),
        ]
        m.d.comb += [geometry.i_rows[name].eq(value) for name, value in dict(
            origin=self._y, size_out=layer.out_height, size_in=layer.in_height, step=layer.tile_rows,
            overlap=layer.tile_overlap, stride=layer.stride, pad=layer.pad_top, kernel=self._chunk_rows,
            kernel_first=self._row).items()]
        m.d.comb += [geometry.i_columns[name].eq(value) for name, value in dict(
            origin=self._x, size_out=layer.out_width, size_in=layer.in_width, step=layer.tile_columns,
            overlap=layer.tile_overlap, stride=layer.stride, pad=layer.pad_left, kernel=layer.kernel_columns,
            kernel_first=0).items()]
        m.d.comb += [self.o_load.p[name].eq(value) for name, value in dict(
            row=rows.low, rows=Mux(geometry.o_empty, 0, rows.loaded), segment=geometry.o_segment,
            segments=geometry.o_segments, block=self._channel >> shift, blocks=blocks).items()]
        m.d.comb += [self.o_group.p[name].eq(value) for name, value in dict(
            rows=rows.windows, columns=columns.windows, y_first=rows.first, x_first=columns.first,
            in_rows=Mux(geometry.o_empty, 0, rows.loaded), in_columns=Mux(geometry.o_empty, 0, columns.loaded),
            phase=columns.low[:2], segments=geometry.o_segments, blocks=blocks, channels=self._chunk_channels,
            kernel_rows=self._chunk_rows, kernel_columns=layer.kernel_columns, stride=layer.stride,
            dense=layer.dense_in, signed=layer.signed_in, first_chunk=first_round, last_chunk=self._last_round,
            pass_first=pass_first, weights_first=Mux(self._single, map_first, pass_first),
            weights_last=Mux(self._single, self._map_end, self._pass_end), lanes=self._lanes, words=words,
            joined=Mux(self._last_phase, layer.joined, 0), stop_part=self._stop_part(),
            predict=layer.predict & (self._phase == 0) & self._last_chunk).items()]
        m.d.comb += [self.o_collect.p[name].eq(value) for name, value in dict(
            rows=rows.windows, columns=columns.windows, y=self._y, x=self._x, block=self._channels_done >> shift,
            words=words, pass_first=pass_first, scales_first=map_first, scales_last=self._map_end).items()]

    def _stop_part(self):
        """The first phase of the round in which a sum below 0 is final; 7 if none is."""
        stop, phase = self.o_layer.stop_phase, self._phase
        return Mux(stop == 0, 7, Mux(phase >= stop, 0, stop - phase))

    def _restart(self, m):
        """The first tile of the first kernel block."""
        m.d.sync += [variable.eq(0) for variable in (
            self._channels_done, self._channel, self._row, self._phase, self._y, self._x, self._pass_y, self._pass_x,
            self._tile, self._pass, self._windows)]

    def _check(self, m):
        """Refuse a tile that the buffers cannot hold."""
        with m.If(~self._geometry.o_empty & self._large):
            self._fail(m, "tile_too_large")
        # The intersect array keeps the sums of a pass also where there is only one round.
        keeps_sums = 1 if self.config.intersect else ~self._single
        with m.If(keeps_sums & (self._windows > self.config.sum_windows * self.config.groups)):
            self._fail(m, "pass_too_large")
        with m.If((self.o_layer.pool != 0) & self._wide):
            self._fail(m, "pool_too_wide")
        with m.If(self._pass_end & (self._map_end != self._pass_last)):
            self._fail(m, "geometry")

    def _fail(self, m, error):
        m.d.sync += [self.o_error.eq(1), self.o_error_code.eq(ERRORS[error][0])]

    def _advance(self, m):
        """Step the loops: tile, row chunk, channel chunk, phase, pass, kernel block."""
        geometry = self._geometry
        next_y, next_x = Signal(ROW_BITS), Signal(COLUMN_BITS)
        m.d.comb += [
            next_x.eq(Mux(geometry.o_columns.last, 0, geometry.o_columns.next)),
            next_y.eq(Mux(geometry.o_columns.last, geometry.o_rows.next, self._y)),
        ]
        m.d.sync += [self._tile.eq(self._tile + 1), self._y.eq(next_y), self._x.eq(next_x)]
        with m.If(self._pass_end):
            m.d.sync += [self._tile.eq(0), self._windows.eq(0), self._y.eq(self._pass_y), self._x.eq(self._pass_x),
                         self._row.eq(self._row + self._chunk_rows)]
            with m.If(self._last_rows):
                m.d.sync += [self._row.eq(0), self._channel.eq(self._channel + self._chunk_channels)]
            with m.If(self._last_chunk):
                m.d.sync += [self._channel.eq(0), self._phase.eq(self._phase + 1)]
            with m.If(self._last_round):
                m.d.sync += [self._phase.eq(0), self._pass.eq(self._pass + 1), self._y.eq(next_y), self._x.eq(next_x),
                             self._pass_y.eq(next_y), self._pass_x.eq(next_x)]
                with m.If(self._map_end):
                    m.d.sync += [variable.eq(0) for variable in (
                        self._pass, self._y, self._x, self._pass_y, self._pass_x)]
                    m.d.sync += self._channels_done.eq(self._channels_done + self._lanes)

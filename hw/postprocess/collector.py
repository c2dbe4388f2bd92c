"""Collector: the finished sums of all groups in one stream, each word with its position.

Source: golden/README.md, "Loop order" (the order in which windows are dealt to the groups).
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import AcceleratorConfig


class Collector(wiring.Component):
    """Take ``words`` words of a window from the group whose turn it is, window by window, and say where they belong.

    The windows of a job are visited row by row. The turn moves on by one group after each window, over jobs as well,
    and restarts at group 0 with ``pass_first``. A word at (row, column) and ``lane_word`` has the position
    ``y = job.y + row``, ``x = job.x + column``, ``block = job.block + lane_word // block_words``,
    ``word = lane_word % block_words``.

    Flow control: one word a cycle, without a bubble between windows or jobs. ``o`` is registered;
    ``i_sums[n].ready`` depends combinationally on ``o.ready`` and ``i_scales_full``, ``i_job.ready`` on these and on
    ``i_sums[n].valid``.

    Parameters
    ----------
    config : AcceleratorConfig
        Numbers of groups, lanes and drained sums.

    Members
    -------
    i_job : In(stream.Signature(payloads.collect_job(config)))
        One tile: rows, columns and words are at least 1; ``words`` is a multiple of ``block_words``.
    i_sums : In(stream.Signature(payloads.sums(config))).array(groups)
        Finished sums of each group.
    o : Out(stream.Signature(payloads.sum_word(config)))
        The sums with their position. To be accepted by the part that reads the scales, without a register between.
    i_scales_full, i_scales_half, o_scales_take, o_scales_release
        Consumer side of the double buffer of scales. A job with ``scales_first`` waits for ``i_scales_full`` and
        takes; one with ``scales_last`` releases in the cycle in which its last word is transferred on ``o``.
    o_idle : Out(1)
        No job is held and ``o`` is empty.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i_job: stream.Interface
    o: stream.Interface

    #: Cycles from a transfer on ``i_sums`` to ``o.valid``.
    LATENCY = 1

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_job": In(stream.Signature(payloads.collect_job(config))),
            "i_sums": In(stream.Signature(payloads.sums(config))).array(config.groups),
            "o": Out(stream.Signature(payloads.sum_word(config))),
            "i_scales_full": In(1), "i_scales_half": In(1),
            "o_scales_take": Out(1), "o_scales_release": Out(1),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.job = Signal(payloads.collect_job(self.config))
        self.held = Signal()
        self.wants_scales = Signal()
        self.turn = Signal(range(max(2, self.config.groups)))
        self.lane_word = Signal(range(self.config.window_words))
        self.row, self.column = Signal.like(self.job.rows), Signal.like(self.job.columns)
        # The word on offer is taken; it is the last of its window, row, job.
        self.take, self.window_end, self.row_end, self.job_end = Signal(), Signal(), Signal(), Signal()

        half_q = Signal()
        half = Signal()
        step = Signal()
        valid = Signal()
        m.d.comb += [
            step.eq((~self.o.valid | self.o.ready) & self.held & (~self.wants_scales | self.i_scales_full)),
            self.take.eq(step & valid),
            half.eq(Mux(self.wants_scales, self.i_scales_half, half_q)),
            self.o_scales_take.eq(self.held & self.wants_scales & self.i_scales_full),
            self.o_idle.eq(~self.held & ~self.o.valid),
            self.o_active.eq(self.o.valid | self.take | self.o_scales_take | ~self.held & self.i_job.valid),
        ]
        with m.If(self.o_scales_take):
            m.d.sync += [self.wants_scales.eq(0), half_q.eq(self.i_scales_half)]
        with m.Switch(self.turn):
            for group, sums in enumerate(self.i_sums):
                with m.Case(group):
                    m.d.comb += [valid.eq(sums.valid), sums.ready.eq(step)]
        self._build_output(m, half)
        self._build_counters(m)
        self._build_job(m)
        return m

    def _build_output(self, m, half):
        """The output register, and the release that goes with the transfer of its word."""
        release = Signal()
        m.d.comb += self.o_scales_release.eq(self.o.valid & self.o.ready & release)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        position = self.o.p.position
        word_bits = len(position.word)
        with m.If(self.take):
            m.d.sync += [
                self.o.valid.eq(1),
                release.eq(self.job_end & self.job.scales_last),
                self.o.p.lane_word.eq(self.lane_word),
                self.o.p.half.eq(half),
                position.y.eq(self.job.y + self.row),
                position.x.eq(self.job.x + self.column),
                position.block.eq(self.job.block + self.lane_word[word_bits:]),
                position.word.eq(self.lane_word[:word_bits]),
                position.row_first.eq(self.row == 0),
                position.row_last.eq(self.row + 1 == self.job.rows),
                position.column_first.eq(self.column == 0),
                position.column_last.eq(self.column + 1 == self.job.columns),
            ]
            with m.Switch(self.turn):
                for group, sums in enumerate(self.i_sums):
                    with m.Case(group):
                        m.d.sync += self.o.p.sums.eq(sums.payload)

    def _build_counters(self, m):
        m.d.comb += [
            self.window_end.eq(self.take & (self.lane_word + 1 == self.job.words)),
            self.row_end.eq(self.window_end & (self.column + 1 == self.job.columns)),
            self.job_end.eq(self.row_end & (self.row + 1 == self.job.rows)),
        ]
        with m.If(self.take):
            m.d.sync += self.lane_word.eq(self.lane_word + 1)
        with m.If(self.window_end):
            m.d.sync += [
                self.lane_word.eq(0),
                self.column.eq(self.column + 1),
                self.turn.eq(Mux(self.turn == self.config.groups - 1, 0, self.turn + 1)),
            ]
        with m.If(self.row_end):
            m.d.sync += [self.column.eq(0), self.row.eq(self.row + 1)]

    def _build_job(self, m):
        m.d.comb += self.i_job.ready.eq(~self.held | self.job_end)
        with m.If(self.i_job.ready):
            m.d.sync += self.held.eq(self.i_job.valid)
        with m.If(self.i_job.ready & self.i_job.valid):
            m.d.sync += [
                self.job.eq(self.i_job.payload),
                self.wants_scales.eq(self.i_job.p.scales_first),
                self.row.eq(0),
            ]
            with m.If(self.i_job.p.pass_first):
                m.d.sync += self.turn.eq(0)

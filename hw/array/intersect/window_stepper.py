"""The windows of a job that a group computes.

Source: golden/README.md, "Loop order" (windows are dealt to the groups in turn).
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import AcceleratorConfig
from ...payloads import group_job
from .job_table import job_geometry
from .layouts import TAPS, window


class WindowStepper(wiring.Component):
    """Step over all windows of a job, row by row, and give those whose turn is ``index``.

    The turn moves on by one group after each window, over jobs as well, and restarts with ``pass_first``. Bit n of
    ``rows`` is ``0 <= y + n < in_rows`` for the window's first row ``y``; columns likewise.

    Flow control: a position a cycle; one window waits at ``o``.

    Members
    -------
    i_job, i_geometry : In(group_job(config)), In(job_geometry(config))
        Held from ``i_start`` until ``o_done``.
    i_start : In(1)
        Pulse.
    o : Out(Stream(window(config)))
    o_done : Out(1)
        All windows of the job have been taken, or none was started. From registers.
    """
    i_start: Signal
    o: stream.Interface
    o_done: Signal

    def __init__(self, config: AcceleratorConfig, index: int):
        self.config, self.index = config, index
        super().__init__({
            "i_job": In(group_job(config)), "i_geometry": In(job_geometry(config)), "i_start": In(1),
            "o": Out(stream.Signature(window(config))), "o_done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        job, at, o = self.i_job, self.i_geometry, self.o
        walking = Signal()
        row, column = Signal.like(job.rows), Signal.like(job.columns)
        y, x = Signal(signed(len(job.y_first) + 2)), Signal(signed(len(job.x_first) + 2))
        row_address, address = Signal.like(at.first), Signal.like(at.first)
        turn = Signal(range(max(2, self.config.groups)))
        step, row_end = Signal(), Signal()
        m.d.comb += [
            step.eq(walking & (~o.valid | o.ready)), row_end.eq(column + 1 == job.columns),
            self.o_done.eq(~walking & ~o.valid),
        ]
        with m.If(o.ready):
            m.d.sync += o.valid.eq(0)
        with m.If(self.i_start):
            m.d.sync += [walking.eq(1), row.eq(0), column.eq(0), y.eq(job.y_first), x.eq(job.x_first),
                         row_address.eq(at.first), address.eq(at.first)]
            with m.If(job.pass_first):
                m.d.sync += turn.eq(0)
        with m.If(step):
            m.d.sync += [
                o.valid.eq(turn == self.index), o.p.address.eq(address),
                o.p.rows.eq(_inside(y, job.in_rows)), o.p.columns.eq(_inside(x, job.in_columns)),
                turn.eq(Mux(turn == self.config.groups - 1, 0, turn + 1)),
                column.eq(column + 1), x.eq(x + job.stride), address.eq(address + job.stride),
            ]
            with m.If(row_end):
                m.d.sync += [
                    column.eq(0), x.eq(job.x_first), row.eq(row + 1), y.eq(y + job.stride),
                    row_address.eq(row_address + at.step), address.eq(row_address + at.step),
                    walking.eq(row + 1 != job.rows),
                ]
        return m


def _inside(first, size):
    return Cat((first + n >= 0) & (first + n < size) for n in range(TAPS))

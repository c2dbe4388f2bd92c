"""What a cluster derives from a job before its first window: pitches, the first address, the table of offsets.

Source: golden/README.md, "Tile geometry".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import SEGMENT, AcceleratorConfig
from ...payloads import group_job
from .layouts import offset_write, tile_address


def job_geometry(c: AcceleratorConfig) -> data.StructLayout:
    """``first``: address of the pixel under tap (0, 0) of window (0, 0), modulo its width; ``row``: from one row of the
    tile to the next; ``step``: from one row of windows to the next."""
    return data.StructLayout({"first": tile_address(c), "row": tile_address(c), "step": tile_address(c)})


class JobTable(wiring.Component):
    """Addresses of a job: ``row = segments * SEGMENT``; of word (ky, kx, b) ``ky * row + kx + b * in_rows * row`` from
    the window's address on, in the order of the weight image: taps row by row, then blocks.

    Flow control: a word a cycle after a set-up of 4 cycles.

    Members
    -------
    i_job : In(group_job(config))
        Held from ``i_start`` until ``o_done``.
    i_start : In(1)
        Pulse.
    i_table, i_half : In(1)
        Which table to write, and the half of the tile; held like the job.
    o_offset : Out(Stream(offset_write(config)), always ready)
    o_geometry : Out(job_geometry(config))
        From ``o_done`` to the next ``i_start``.
    o_done : Out(1)
        Pulse: the last word of the table has been written.
    """
    i_job: data.View
    i_start: Signal
    i_table: Signal
    i_half: Signal
    o_offset: stream.Interface
    o_geometry: data.View
    o_done: Signal

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_job": In(group_job(config)), "i_start": In(1), "i_table": In(1), "i_half": In(1),
            "o_offset": Out(stream.Signature(offset_write(config), always_ready=True)),
            "o_geometry": Out(job_geometry(config)), "o_done": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c, job, at = self.config, self.i_job, self.o_geometry
        write = self.o_offset
        block_pitch, row_start, tap = (Signal.like(at.row, name=name) for name in ("block_pitch", "row_start", "tap"))
        row, column, block, word = Signal(3), Signal(3), Signal.like(job.blocks), Signal(range(c.weight_words))
        address = Signal.like(at.row)
        block_last, column_last, row_last = Signal(), Signal(), Signal()
        m.d.comb += [
            block_last.eq(block + 1 == job.blocks), column_last.eq(column + 1 == job.kernel_columns),
            row_last.eq(row + 1 == job.kernel_rows),
            write.p.table.eq(self.i_table), write.p.word.eq(word), write.p.offset.address.eq(address),
            write.p.offset.row.eq(row), write.p.offset.column.eq(column),
            write.p.offset.last.eq(block_last & column_last & row_last),
        ]
        with m.FSM():
            with m.State("Idle"):
                m.d.sync += [counter.eq(0) for counter in (row, column, block, word, row_start, tap, address)]
                with m.If(self.i_start):
                    m.d.sync += at.row.eq(job.segments * SEGMENT)
                    m.next = "Pitches"
            with m.State("Pitches"):
                m.d.sync += [block_pitch.eq(job.in_rows * at.row), at.step.eq(job.stride * at.row),
                             at.first.eq(job.y_first * at.row)]
                m.next = "First"
            with m.State("First"):
                m.d.sync += at.first.eq(at.first + job.x_first + job.phase
                                        + Mux(self.i_half, c.tile_slots * SEGMENT, 0))
                m.next = "Words"
            with m.State("Words"):
                m.d.comb += write.valid.eq(1)
                m.d.sync += [word.eq(word + 1), block.eq(block + 1), address.eq(address + block_pitch)]
                with m.If(block_last):
                    m.d.sync += [block.eq(0), column.eq(column + 1), tap.eq(tap + 1), address.eq(tap + 1)]
                    with m.If(column_last):
                        m.d.sync += [column.eq(0), row.eq(row + 1), row_start.eq(row_start + at.row),
                                     tap.eq(row_start + at.row), address.eq(row_start + at.row)]
                with m.If(write.p.offset.last):
                    m.d.comb += self.o_done.eq(1)
                    m.next = "Idle"
        return m

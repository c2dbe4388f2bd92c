"""Tile geometry: from the origin of a tile to the input it needs and the tile after it.

Source: golden/README.md, "Tile geometry" and "Loop order" (normative).
"""
from amaranth import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import LOCAL_BITS


def axis_in(bits: int) -> data.StructLayout:
    """One axis of a tile. ``origin``: first window; ``kernel_first``: first kernel row or column of the chunk."""
    return data.StructLayout({
        "origin": bits, "size_out": bits, "size_in": bits, "step": LOCAL_BITS, "overlap": 1, "stride": 3, "pad": 4,
        "kernel": 3, "kernel_first": 3,
    })


def axis_out(bits: int) -> data.StructLayout:
    """``windows`` of the tile; loaded input ``low .. low + loaded - 1`` (``loaded`` = 0: all padding); ``first``:
    loaded row under the first window's first tap; ``next``: origin of the next tile; ``last``: there is none."""
    return data.StructLayout({
        "windows": LOCAL_BITS + 1, "low": bits, "high": bits, "loaded": bits, "first": signed(LOCAL_BITS + 2),
        "next": bits + 1, "last": 1,
    })


def times_stride(value, stride):
    """``value * stride``, as adders: a stride has three bits, a multiplier would take a DSP slice."""
    return sum(Mux(stride[bit], value << bit, 0) for bit in range(len(stride)))


class AxisGeometry(wiring.Component):
    """Geometry of one axis.

    ``windows = min(step + overlap, size_out - origin)``; ``low0 = origin * stride - pad + kernel_first``;
    ``low = max(0, low0)``; ``high = min(size_in - 1, low0 + (windows - 1) * stride + kernel - 1)``;
    ``loaded = max(0, high - low + 1)``; ``first = low0 - low``.

    Flow control: none; ``o`` is that of an ``i`` that has been constant for ``LATENCY`` cycles. ``low``, ``high`` and
    ``first`` have no meaning where ``loaded`` is 0.
    """
    LATENCY = 5

    def __init__(self, *, bits: int):
        self.bits = bits
        super().__init__({"i": In(axis_in(bits)), "o": Out(axis_out(bits))})

    def elaborate(self, platform):
        m = Module()
        wide = signed(self.bits + 5)
        windows, span = Signal(LOCAL_BITS + 1), Signal(LOCAL_BITS + 4)
        scaled, shift, low0 = Signal(self.bits + 3), Signal(signed(5)), Signal(wide)
        low, high0, high = Signal(wide), Signal(wide), Signal(wide)
        # Yosys 0.70 must not move it into a DSP slice: the copy that stays for other readers comes out as constant 0.
        loaded = Signal(self.bits, attrs={"keep": 1})
        remaining, most = self.i.size_out - self.i.origin, self.i.step + self.i.overlap
        m.d.sync += [
            windows.eq(Mux(remaining < most, remaining, most)),
            scaled.eq(times_stride(self.i.origin, self.i.stride)),
            shift.eq(self.i.kernel_first - self.i.pad),
            span.eq(times_stride(windows - 1, self.i.stride)),
            low0.eq(scaled + shift),
            low.eq(Mux(low0 < 0, 0, low0)),
            high0.eq(low0 + span + (self.i.kernel - 1)),
            high.eq(Mux(high0 >= self.i.size_in, self.i.size_in - 1, high0)),
            self.o.windows.eq(windows),
            self.o.low.eq(low),
            self.o.high.eq(high),
            loaded.eq(Mux(high >= low, high - low + 1, 0)),
            self.o.first.eq(low0 - low),
            self.o.next.eq(self.i.origin + self.i.step),
            self.o.last.eq(self.o.next + self.i.overlap >= self.i.size_out),
        ]
        m.d.comb += self.o.loaded.eq(loaded)
        return m


class TileGeometry(wiring.Component):
    """Both axes of a tile, and the products that the sequencer checks.

    Flow control: none; the outputs are those of inputs that have been constant for ``LATENCY`` cycles.

    Members
    -------
    i_rows, i_columns : In(axis_in)
        The tile.
    i_blocks : In
        Blocks of channels in the chunk.
    o_rows, o_columns : Out(axis_out)
        Geometry of each axis.
    o_segment, o_segments : Out
        First segment and number of segments that hold the loaded columns; no meaning while ``o_empty``.
    o_empty : Out(1)
        Nothing to load.
    o_slots, o_windows : Out
        Slots of the input (no meaning while ``o_empty``) and windows of the tile.
    """
    LATENCY = AxisGeometry.LATENCY + 3

    def __init__(self, *, row_bits: int, column_bits: int):
        self.row_bits, self.column_bits = row_bits, column_bits
        super().__init__({
            "i_rows": In(axis_in(row_bits)), "i_columns": In(axis_in(column_bits)),
            "i_blocks": In(payloads.BLOCK_BITS),
            "o_rows": Out(axis_out(row_bits)), "o_columns": Out(axis_out(column_bits)),
            "o_segment": Out(column_bits - 2), "o_segments": Out(column_bits - 2), "o_empty": Out(1),
            "o_slots": Out(row_bits + column_bits - 2 + payloads.BLOCK_BITS), "o_windows": Out(2 * LOCAL_BITS + 2),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.rows = rows = AxisGeometry(bits=self.row_bits)
        m.submodules.columns = columns = AxisGeometry(bits=self.column_bits)
        area = Signal(self.row_bits + self.column_bits - 2)
        m.d.comb += [
            rows.i.eq(self.i_rows), columns.i.eq(self.i_columns),
            self.o_rows.eq(rows.o), self.o_columns.eq(columns.o),
            self.o_segment.eq(columns.o.low >> 2),
        ]
        m.d.sync += [
            self.o_empty.eq((rows.o.loaded == 0) | (columns.o.loaded == 0)),
            self.o_segments.eq((columns.o.high >> 2) - (columns.o.low >> 2) + 1),
            area.eq(rows.o.loaded * self.o_segments),
            self.o_slots.eq(area * self.i_blocks),
            self.o_windows.eq(rows.o.windows * columns.o.windows),
        ]
        return m

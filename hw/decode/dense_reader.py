"""Sparsity map words of a dense segment, found by looking at its values.

Source: golden/README.md, "Dense feature map".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import BEAT, SEGMENT, AcceleratorConfig


class DenseReader(wiring.Component):
    """Build the map words of the pixels of dense segments, and pass the values on.

    With ``D = 2**i_shift`` channels a pixel, bit c of the word of pixel p is ``value[p * D + c] != 0`` for ``c < D``.

    Flow control: one beat and one word a cycle, whichever are more; ``o`` is combinational in ``i`` and ``i.ready`` in
    ``o.ready``. A beat is written in the cycle in which it is taken.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(64))
        Segments of ``max(1, 4 * D * value_width / 64)`` beats.
    i_shift : In(range(log2(block) + 1))
        Constant during a segment.
    o : Out(stream.Signature(block))
        The word of one pixel.
    o_values : Out(stream.Signature({"beat": range(value_beats), "data": 64}, always_ready=True))
        Each beat with its number in the segment.
    """
    i: stream.Interface
    i_shift: Signal
    o: stream.Interface
    o_values: stream.Interface

    #: Cycles from the last beat of a pixel to its ``o.valid``.
    LATENCY = 0

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        values = data.StructLayout({"beat": range(config.value_beats), "data": BEAT})
        super().__init__({
            "i": In(stream.Signature(BEAT)), "i_shift": In(range(config.block.bit_length())),
            "o": Out(stream.Signature(config.block)),
            "o_values": Out(stream.Signature(values, always_ready=True)),
        })

    def elaborate(self, platform):
        m = Module()
        pixel = Signal(range(SEGMENT))
        beat = Signal(range(self.config.value_beats))
        complete, exhausted = self._build_word(m, pixel)
        taken = Signal()
        m.d.comb += [
            self.o.valid.eq(self.i.valid & complete),
            self.i.ready.eq(~complete | (exhausted & self.o.ready)),
            taken.eq(self.i.valid & self.i.ready),
            self.o_values.valid.eq(taken),
            self.o_values.p.beat.eq(beat),
            self.o_values.p.data.eq(self.i.payload),
        ]
        with m.If(taken):
            m.d.sync += beat.eq(beat + 1)
        with m.If(self.o.valid & self.o.ready):
            m.d.sync += pixel.eq(pixel + 1)
            with m.If(pixel == SEGMENT - 1):
                m.d.sync += beat.eq(0)
        return m

    def _build_word(self, m, pixel):
        """Drive ``o.payload``. Returns whether the beat completes a pixel, and whether no further pixel is in it."""
        values = self.config.values_per_beat
        present = Signal(values)
        m.d.comb += present.eq(Cat(self.i.payload.word_select(n, self.config.value_width).any()
                                   for n in range(values)))
        # Pixels wider than a beat: what their earlier beats held, latest beat on top, and how many that were.
        gathered = Signal(max(0, self.config.block - values))
        num_gathered = Signal(range(max(2, self.config.block // values)))
        complete, exhausted = Signal(), Signal()
        with m.Switch(self.i_shift):
            for shift in range(self.config.block.bit_length()):
                channels = 1 << shift
                with m.Case(shift):
                    if channels <= values:
                        pixels = min(SEGMENT, values // channels)
                        index = pixel & (pixels - 1)
                        m.d.comb += [
                            self.o.payload.eq(present.word_select(index[:max(1, (pixels - 1).bit_length())], channels)
                                              if pixels > 1 else present[:channels]),
                            complete.eq(1),
                            exhausted.eq(index == pixels - 1),
                        ]
                    else:
                        m.d.comb += [
                            self.o.payload.eq(Cat(gathered, present)[-channels:]),
                            complete.eq(num_gathered == channels // values - 1),
                            exhausted.eq(1),
                        ]
        with m.If(self.i.valid & self.i.ready):
            m.d.sync += gathered.eq(Cat(gathered, present)[values:])
            m.d.sync += num_gathered.eq(Mux(complete, 0, num_gathered + 1))
        return complete, exhausted

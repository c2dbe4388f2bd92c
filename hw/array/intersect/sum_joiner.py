"""Sum joiner: from the clusters of a group, which have different lanes of the same windows, to words of sums."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import AcceleratorConfig
from ...payloads import sums


class SumJoiner(wiring.Component):
    """The sums of all clusters of a group in words of ``drain`` lanes, lane 0 first: ``lane = slot * clusters +
    cluster``.

    Flow control: the sums of one slot of all clusters a cycle; a word waits at ``o``.

    Members
    -------
    i : In(Stream(signed(sum_width))).array(clusters)
    o : Out(Stream(sums(config)))
    o_idle : Out(1)
        No sum is inside.
    """
    o: stream.Interface
    o_idle: Signal

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(signed(config.sum_width))).array(config.clusters),
                          "o": Out(stream.Signature(sums(config))), "o_idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        c = self.config
        steps = c.drain // c.clusters
        step, take = Signal(range(max(2, steps))), Signal()
        m.d.comb += [
            take.eq(Cat(part.valid for part in self.i).all() & (~self.o.valid | self.o.ready)),
            self.o_idle.eq(~self.o.valid & (step == 0)),
        ]
        m.d.comb += [part.ready.eq(take) for part in self.i]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(take):
            m.d.sync += [step.eq(Mux(step == steps - 1, 0, step + 1)), self.o.valid.eq(step == steps - 1)]
            with m.Switch(step):
                for number in range(steps):
                    with m.Case(number):
                        m.d.sync += [self.o.p[number * c.clusters + n].eq(part.payload)
                                     for n, part in enumerate(self.i)]
        return m

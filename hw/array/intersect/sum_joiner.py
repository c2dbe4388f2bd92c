"""Sum joiner: from the clusters of a group, which have different lanes of the same windows, to words of sums."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import AcceleratorConfig
from ...payloads import sums


class SumJoiner(wiring.Component):
    """The sums of all clusters of a group in words of ``drain`` lanes, lane 0 first: ``lane = slot * clusters +
    cluster``.

    Flow control: the sums of one slot of all clusters a cycle, ``drain / clusters`` cycles a word; ``joined_words``
    words wait at ``o``, the one that is being joined included.

    Members
    -------
    i : In(Stream(signed(sum_width))).array(clusters)
    o : Out(Stream(sums(config)))
    o_idle : Out(1)
        No sum is inside.
    """
    o: stream.Interface
    o_idle: Signal

    #: Cycles from the last sum of a word to ``o.valid``.
    LATENCY = 1

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(signed(config.sum_width))).array(config.clusters),
                          "o": Out(stream.Signature(sums(config))), "o_idle": Out(1)})

    def elaborate(self, platform):
        m = Module()
        c, depth = self.config, self.config.joined_words
        steps, part = c.drain // c.clusters, c.clusters * c.sum_width
        m.submodules.words = words = memory.Memory(shape=data.ArrayLayout(part, steps), depth=depth, init=[])
        write, read = words.write_port(granularity=1), words.read_port(domain="comb")
        step, first, end = Signal(range(max(2, steps))), Signal(range(depth)), Signal(range(depth))
        level, take, word_ends, leaves = Signal(range(depth + 1)), Signal(), Signal(), Signal()
        m.d.comb += [
            take.eq(Cat(source.valid for source in self.i).all() & (level != depth)),
            word_ends.eq(take & (step == steps - 1)), leaves.eq(self.o.valid & self.o.ready),
            write.en.eq(Mux(take, 1 << step, 0)), write.addr.eq(end),
            read.addr.eq(first), self.o.valid.eq(level != 0), Value.cast(self.o.payload).eq(read.data.as_value()),
            self.o_idle.eq((level == 0) & (step == 0)),
        ]
        m.d.comb += [source.ready.eq(take) for source in self.i]
        m.d.comb += [word.eq(Cat(source.payload for source in self.i)) for word in write.data]
        m.d.sync += level.eq(level + word_ends - leaves)
        with m.If(take):
            m.d.sync += step.eq(Mux(word_ends, 0, step + 1))
        with m.If(word_ends):
            m.d.sync += end.eq(Mux(end == depth - 1, 0, end + 1))
        with m.If(leaves):
            m.d.sync += first.eq(Mux(first == depth - 1, 0, first + 1))
        return m

"""Drain: the finished sums of all lanes in order, and the partial sums between chunks.

Source: golden/README.md, "Loop order".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import AcceleratorConfig
from ...payloads import sums
from ...stream.fifo import StreamFifo


class Drain(wiring.Component):
    """Shift the shadow registers of the lanes and give their sums out, ``drain`` at a time, lanes 0 .. first.

    ``sum = lane_sum + (0 if first_chunk else partial[index])``, modulo ``2**sum_width``. Sums of the last chunk go to
    ``o``, others to ``partial[index]``. ``index`` counts windows and restarts at 0 with ``i_restart``.

    Flow control: a window a ``words`` cycles, or MIN_WINDOW_CYCLES if that is more. It never stalls: ``i_load`` is
    legal only when the last word of the window before is being taken, and with room in the queue of ``o``, which holds
    4 windows (both asserted).

    Members
    -------
    i_lanes : In(ArrayLayout(signed(lane_sum_width), drain))
        The shadow registers of the first lanes.
    i_load, i_restart, i_first_chunk, i_last_chunk : In(1)
        The shadow registers are loaded in this cycle, with the sums of such a window.
    i_words : In(range(window_words + 1))
        Words to give out, at least 1.
    o_shift : Out(1)
        The shadow registers move on by ``drain`` lanes.
    o : Out(Stream(sums(config)))
    o_idle : Out(1)
        No word is on its way to the queue or to the partial sums.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """

    i_lanes: data.View
    i_load: Signal
    i_restart: Signal
    i_first_chunk: Signal
    i_last_chunk: Signal
    i_words: Signal
    o_shift: Signal
    o: stream.Interface
    o_idle: Signal
    o_active: Signal

    #: Cycles from ``i_load`` to ``o.valid`` of a window's first word.
    LATENCY = 4

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_lanes": In(data.ArrayLayout(signed(config.lane_sum_width), config.drain)), "i_load": In(1),
            "i_restart": In(1), "i_first_chunk": In(1), "i_last_chunk": In(1),
            "i_words": In(range(config.window_words + 1)), "o_shift": Out(1),
            "o": Out(stream.Signature(sums(config))), "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        left = Signal.like(self.i_words)
        start, address = Signal(range(c.sum_windows * c.window_words)), Signal(range(c.sum_windows * c.window_words))
        first_chunk, last_chunk = Signal(), Signal()
        next_start = Signal.like(start)
        m.d.comb += next_start.eq(Mux(self.i_restart, 0, start + c.window_words))
        with m.If(self.i_load):
            m.d.sync += [
                left.eq(self.i_words), start.eq(next_start), address.eq(next_start),
                first_chunk.eq(self.i_first_chunk), last_chunk.eq(self.i_last_chunk),
                Assert(left <= 1, "a window is loaded before the one before has left the shadow registers"),
            ]
        with m.Elif(self.o_shift):
            m.d.sync += [left.eq(left - 1), address.eq(address + 1)]
        busy = self._build_sum(m, address, first_chunk, last_chunk)
        m.d.comb += [
            self.o_shift.eq(left != 0), self.o_idle.eq(~self.o_shift & ~busy),
            self.o_active.eq(self.i_load | ~self.o_idle | m.submodules.queue.o_moves),
        ]
        return m

    def _build_sum(self, m, address, first_chunk, last_chunk):
        """Two stages: beside the read of the partial sums, and behind the adders."""
        c = self.config
        m.submodules.partial = partial = memory.Memory(shape=sums(c), depth=c.sum_windows * c.window_words, init=[])
        m.submodules.queue = queue = StreamFifo(sums(c), depth=4 * c.window_words)
        write, read = partial.write_port(), partial.read_port()
        word, old = Signal.like(self.i_lanes), Signal(sums(c))
        stage = data.StructLayout({"valid": 1, "first": 1, "last": 1, "address": len(address)})
        read_q, sum_q = Signal(stage), Signal(stage)
        total = Signal(sums(c))
        m.d.comb += [
            read.addr.eq(address), read.en.eq(self.o_shift), old.eq(Mux(read_q.first, 0, read.data.as_value())),
        ]
        m.d.sync += [
            word.eq(self.i_lanes), read_q.valid.eq(self.o_shift), read_q.first.eq(first_chunk),
            read_q.last.eq(last_chunk), read_q.address.eq(address), sum_q.eq(read_q),
        ]
        with m.If(read_q.valid):
            m.d.sync += [total[n].eq(word[n] + old[n]) for n in range(c.drain)]
        m.d.comb += [
            write.en.eq(sum_q.valid & ~sum_q.last), write.addr.eq(sum_q.address), write.data.eq(total),
            queue.i.valid.eq(sum_q.valid & sum_q.last), queue.i.payload.eq(total),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        m.d.sync += Assert(~queue.i.valid | queue.i.ready, "a sum has no room")
        return read_q.valid | sum_q.valid

"""Word filter: from the map words under a window to those that are not empty."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...buffer.tile_buffer import map_address
from ...config import SEGMENT, AcceleratorConfig
from ...payloads import map_word
from ...stream.fifo import StreamFifo, fifo_latency
from .window_walker import map_fetch, window_flags

#: Words that wait at the output: they bridge runs of empty words, the set-up of jobs and the ends of windows.
QUEUE_DEPTH = 16
#: Words that the stages before the queue hold at most.
STAGES = 3


def full_word(c: AcceleratorConfig) -> data.StructLayout:
    """A map word with its values: ``offset`` in ``slot`` (half included); ``weight`` address of its channel 0.

    ``map`` is 0 only in the single word of a window without any value, and without a window (``flags.window`` 0).
    """
    return data.StructLayout({
        "map": unsigned(c.block), "offset": range(c.slot_values), "slot": range(2 * c.tile_slots),
        "weight": range(2 * c.weight_depth), "last": 1, "flags": window_flags(c),
    })


class WordFilter(wiring.Component):
    """Read map words and drop the empty ones; ``last`` moves to the last word of its window that is not empty.

    A window whose words are all empty gives one word with map 0.

    Flow control: a word a cycle. A word that may be the last of its window is held until the next tells: in a steady
    stream this costs no cycle. ``o`` comes from a queue; ``i.ready`` comes from a register and is 1 only while the
    queue has room for all that the stages before it may hold, so these never stall.

    Members
    -------
    i : In(Stream(map_fetch(config)))
    o_map_address, o_map_enable, i_map : to the ``TileBuffer``.
    o : Out(Stream(full_word(config)))
    o_idle : Out(1)
        There is no word inside.
    """

    i: stream.Interface
    o_map_address: Signal
    o_map_enable: Signal
    i_map: data.View
    o: stream.Interface
    o_idle: Signal

    #: Cycles from a transfer on ``i`` to ``o.valid`` of a last word.
    LATENCY = STAGES + fifo_latency(QUEUE_DEPTH)

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(map_fetch(config))), "o_map_address": Out(map_address(config)),
            "o_map_enable": Out(1), "i_map": In(map_word(config)), "o": Out(stream.Signature(full_word(config))),
            "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.queue = queue = StreamFifo(full_word(self.config), depth=QUEUE_DEPTH)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        word, word_valid, full, reading = self._build_read(m)
        held, held_valid = Signal(full_word(self.config)), Signal()
        closed = Signal()       # the word held is the last of its window that is not empty
        keep = Signal()
        m.d.comb += [
            closed.eq(held.last),
            # An empty word changes nothing, unless it is the last one of a window that has been empty so far.
            keep.eq(word_valid & (full | word.last & (~held_valid | closed))),
            queue.i.valid.eq(held_valid & (closed | word_valid & (full | word.last))),
            queue.i.payload.eq(held), queue.i.p.last.eq(closed | ~full),
            self.o_idle.eq(~held_valid & ~word_valid & ~reading & (queue.level == 0)),
        ]
        m.d.sync += [
            # Room for the stages, and for a word that comes in this cycle.
            self.i.ready.eq(queue.level < QUEUE_DEPTH - STAGES - 1),
            Assert(~queue.i.valid | queue.i.ready, "a word has no room"),
        ]
        with m.If(keep):
            m.d.sync += [held.eq(word), held_valid.eq(1)]
        with m.Elif(queue.i.valid):
            m.d.sync += held_valid.eq(0)
        return m

    def _build_read(self, m):
        """Two stages, behind the memory and behind the test for zero."""
        c = self.config
        fetch, reading = Signal(map_fetch(c)), Signal()
        word, word_valid, full = Signal(full_word(c)), Signal(), Signal()
        m.d.comb += [
            self.o_map_enable.eq(self.i.valid & self.i.ready), self.o_map_address.eq(self.i.p.address),
        ]
        m.d.sync += [
            fetch.eq(self.i.payload), reading.eq(self.i.valid & self.i.ready),
            word_valid.eq(reading), full.eq(self.i_map.map.any() & ~fetch.empty),
            word.map.eq(Mux(fetch.empty, 0, self.i_map.map)), word.offset.eq(self.i_map.offset),
            word.slot.eq(fetch.address[(SEGMENT - 1).bit_length():]), word.weight.eq(fetch.weight),
            word.last.eq(fetch.last), word.flags.eq(fetch.flags),
        ]
        return word, word_valid, full, reading

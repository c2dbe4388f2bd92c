"""From the compressed tile to the dense one that the processing elements read.

Source: golden/README.md, "Compressed feature map"; hw/README.md, "Double buffers".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import BEAT, SEGMENT, AcceleratorConfig
from ...payloads import group_job, map_word, map_write, tile_map, tile_values, value_write


def popcount(bits):
    """Number of ones."""
    return sum(bit for bit in bits)


class TileUnpacker(wiring.Component):
    """Keep two halves of compressed tiles, and put the values of each job's tile to their channels' places.

    For each word (pixel and block) of the tile: its map, and for each 8 channels of it the beat in which value n is
    that of channel n; places of zeros are undefined. In dense maps zeros are stored too.

    Flow control: 8 channels a cycle; a word without a value takes a cycle.

    Members
    -------
    i_job : In(Stream(group_job(config)))
    i_map, i_values : write ports of the loader (``map_write``, ``value_write``)
    i_packed_full, i_packed_half, o_packed_take, o_packed_release
        Reader's side of the compressed tile, once for each job.
    i_free, i_half, o_filled
        Writer's side of the dense tile, once for each job.
    o_map, o_values : Out(Stream(tile_map(config))), Out(Stream(tile_values(config))), always ready
    o_idle : Out(1)
        No job is inside.
    """

    i_job: stream.Interface
    o_map: stream.Interface
    o_values: stream.Interface

    #: Cycles from a word's map to its last ``o_values``, those of its other groups not counted.
    LATENCY = 3

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_job": In(stream.Signature(group_job(config))),
            "i_map": In(stream.Signature(map_write(config), always_ready=True)),
            "i_values": In(stream.Signature(value_write(config), always_ready=True)),
            "i_packed_full": In(1), "i_packed_half": In(1), "o_packed_take": Out(1), "o_packed_release": Out(1),
            "i_free": In(1), "i_half": In(1), "o_filled": Out(1),
            "o_map": Out(stream.Signature(tile_map(config), always_ready=True)),
            "o_values": Out(stream.Signature(tile_values(config), always_ready=True)), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        # The present word: its place in the compressed and in the dense tile.
        self._packed, self._place = Signal.like(self.i_map.p.address), Signal.like(self.i_map.p.address)
        self._dense, self._working, self._fetch = Signal(), Signal(), Signal()
        m.submodules.maps = maps = memory.Memory(shape=map_word(c), depth=2 * c.tile_slots * SEGMENT, init=[])
        write, read = maps.write_port(), maps.read_port()
        m.d.comb += [
            write.en.eq(self.i_map.valid), write.addr.eq(self.i_map.p.address), write.data.eq(self.i_map.p.word),
            read.en.eq(self._fetch), read.addr.eq(self._packed + self._working),
        ]
        word_ends = self._build_groups(m, read.data)
        self._build_control(m, word_ends)
        return m

    def _build_control(self, m, word_ends):
        """Job by job."""
        c, job = self.config, self.i_job.p
        first = c.tile_slots * SEGMENT
        slots, blocks = Signal(range(c.tile_slots + 1)), Signal.like(job.blocks)
        words, wait = Signal(range(first + 1)), Signal(range(self.LATENCY + 1))
        begins = Signal()
        m.d.comb += begins.eq(self.i_job.valid & self.i_packed_full & self.i_free)
        with m.FSM():
            with m.State("Wait"):
                m.d.comb += [self.i_job.ready.eq(begins), self.o_packed_take.eq(begins), self.o_idle.eq(1)]
                m.d.sync += [
                    self._packed.eq(Mux(self.i_packed_half, first, 0)), self._place.eq(Mux(self.i_half, first, 0)),
                    self._dense.eq(job.dense), slots.eq(job.in_rows * job.segments), blocks.eq(job.blocks),
                ]
                with m.If(begins):
                    m.next = "Size"
            with m.State("Size"):
                m.d.sync += [words.eq(slots * blocks * SEGMENT), wait.eq(self.LATENCY)]
                m.next = "First"
            with m.State("First"):
                m.d.comb += self._fetch.eq(1)
                m.next = "Words"
                with m.If(words == 0):
                    m.next = "Flush"
            with m.State("Words"):
                m.d.comb += [self._working.eq(1), self._fetch.eq(word_ends)]
                with m.If(word_ends):
                    m.d.sync += [self._packed.eq(self._packed + 1), self._place.eq(self._place + 1),
                                 words.eq(words - 1)]
                    with m.If(words == 1):
                        m.next = "Flush"
            with m.State("Flush"):
                m.d.sync += wait.eq(wait - 1)
                with m.If(wait == 0):
                    m.d.comb += [self.o_packed_release.eq(1), self.o_filled.eq(1)]
                    m.next = "Wait"

    def _build_groups(self, m, word):
        """Groups of 8 channels of a word: where their values begin, the two beats there, the values in their places.
        Returns the pulse that the word's last group is worked on."""
        c = self.config
        group, passed = Signal(range(c.block_groups)), Signal(range(c.block + 1))
        start, ends, mask = Signal(range(2 * c.slot_values)), Signal(), Signal(8)
        m.d.comb += [
            mask.eq(word.map.word_select(group, 8)), start.eq(word.offset + passed),
            ends.eq(self._working & ((group == c.block_groups - 1) | ~word.map.any())),
        ]
        with m.If(self._working):
            m.d.sync += [group.eq(group + 1), passed.eq(passed + Mux(self._dense, 8, popcount(mask)))]
        with m.If(ends):
            m.d.sync += [group.eq(0), passed.eq(0)]
        m.d.sync += [
            self.o_map.valid.eq(self._working & (group == 0)), self.o_map.p.address.eq(self._place),
            self.o_map.p.map.eq(word.map),
        ]
        self._build_places(m, self._build_beats(m, start), Mux(self._dense, ~0, mask), start, group)
        return ends

    def _build_places(self, m, beats, mask, start, group):
        """Value ``start + n`` of the slot goes to the n-th one of ``mask``. The 8 values from ``start`` on lie at
        different places of their beats: value v is the one of number ``v % 8`` of the two."""
        read, read_mask, shift = Signal(tile_values(self.config)), Signal(8), Signal(3)
        joined, numbers = Signal(tile_values(self.config)), Signal(data.ArrayLayout(3, 8))
        read_valid, joined_valid = Signal(), Signal()
        m.d.sync += [
            read_valid.eq(self._working), read_mask.eq(mask), shift.eq(start), read.address.eq(self._place),
            read.group.eq(group), joined_valid.eq(read_valid), joined.eq(read),
            self.o_values.valid.eq(joined_valid), self.o_values.p.eq(joined),
        ]
        for n in range(8):
            m.d.sync += [
                joined.values.word_select(n, 8).eq(beats.word_select(Mux(shift > n, 8 + n, n), 8)),
                numbers[n].eq(shift + popcount(read_mask[:n])),
                self.o_values.p.values.word_select(n, 8).eq(joined.values.word_select(numbers[n], 8)),
            ]

    def _build_beats(self, m, start):
        """The beat of value ``start`` of the present slot, and the next one: even and odd beats have a memory each."""
        c = self.config
        beat = Signal.like(self.i_values.p.address)
        slot = self._packed[(SEGMENT - 1).bit_length():]
        m.d.comb += beat.eq(Cat(start[3:][:(c.value_beats - 1).bit_length()], slot))
        odd, words = Signal(), []
        for parity in range(2):
            m.submodules[f"beats{parity}"] = beats = memory.Memory(
                shape=BEAT, depth=c.tile_slots * c.value_beats, init=[])
            write, read = beats.write_port(), beats.read_port()
            m.d.comb += [
                write.en.eq(self.i_values.valid & (self.i_values.p.address[0] == parity)),
                write.addr.eq(self.i_values.p.address[1:]), write.data.eq(self.i_values.p.data),
                read.addr.eq(beat[1:] + (beat[0] if parity == 0 else 0)),
            ]
            words.append(read.data)
        m.d.sync += odd.eq(beat[0])
        return Mux(odd, Cat(words[1], words[0]), Cat(words[0], words[1]))

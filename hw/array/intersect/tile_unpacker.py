"""From the compressed tile to the dense one that the processing elements read.

Source: golden/README.md, "Compressed feature map"; hw/README.md, "Double buffers".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ...config import BEAT, SEGMENT, UNPACKED, AcceleratorConfig
from ...decode.map_writer import popcount
from ...payloads import group_job, map_word, map_write, tile_map, tile_values, value_write


class TileUnpacker(wiring.Component):
    """Keep two halves of compressed tiles, and put the values of each job's tile to their channels' places.

    For each word (pixel and block) of the tile: its map, and for each part of ``UNPACKED`` channels the values in the
    places of their channels; places of zeros are undefined. In dense maps zeros are stored too.

    Flow control: a part a cycle; a word without a value takes a cycle.

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

    #: Cycles from a word's map to its last ``o_values``, those of its other parts not counted.
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
        word_ends = self._build_parts(m, read.data)
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

    def _build_parts(self, m, word):
        """Parts of a word: where their values begin, the two rows there, the values in their places. Returns the pulse
        that the word's last part is worked on."""
        c = self.config
        part, passed = Signal(range(c.block // UNPACKED)), Signal(range(c.block + 1))
        start, ends, mask = Signal(range(2 * c.slot_values)), Signal(), Signal(UNPACKED)
        m.d.comb += [
            mask.eq(word.map.word_select(part, UNPACKED)), start.eq(word.offset + passed),
            ends.eq(self._working & ((part == c.block // UNPACKED - 1) | ~word.map.any())),
        ]
        with m.If(self._working):
            m.d.sync += [part.eq(part + 1), passed.eq(passed + Mux(self._dense, UNPACKED, popcount(mask)))]
        with m.If(ends):
            m.d.sync += [part.eq(0), passed.eq(0)]
        m.d.sync += [
            self.o_map.valid.eq(self._working & (part == 0)), self.o_map.p.address.eq(self._place),
            self.o_map.p.map.eq(word.map),
        ]
        self._build_places(m, self._build_rows(m, start), Mux(self._dense, ~0, mask), start, part)
        return ends

    def _build_places(self, m, rows, mask, start, part):
        """Value ``start + n`` of the slot goes to the n-th one of ``mask``. The values from ``start`` on lie at
        different places of their rows: value v is number ``v % UNPACKED`` of one of the two."""
        width, number = self.config.value_width, range(UNPACKED)
        read, read_mask, shift = Signal(tile_values(self.config)), Signal(UNPACKED), Signal(number)
        joined, numbers = Signal(tile_values(self.config)), Signal(data.ArrayLayout(number, UNPACKED))
        read_valid, joined_valid = Signal(), Signal()
        m.d.sync += [
            read_valid.eq(self._working), read_mask.eq(mask), shift.eq(start), read.address.eq(self._place),
            read.part.eq(part), joined_valid.eq(read_valid), joined.eq(read),
            self.o_values.valid.eq(joined_valid), self.o_values.p.eq(joined),
        ]
        for n in number:
            m.d.sync += [
                joined.values.word_select(n, width).eq(
                    Mux(shift > n, rows[1].word_select(n, width), rows[0].word_select(n, width))),
                numbers[n].eq(shift + (popcount(read_mask[:n]) if n else 0)),
                self.o_values.p.values.word_select(n, width).eq(joined.values.word_select(numbers[n], width)),
            ]

    def _build_rows(self, m, start):
        """The row of ``UNPACKED`` values with value ``start`` of the present slot, and the next one: even and odd rows
        have a memory each."""
        c, writes = self.config, self.i_values
        beats = UNPACKED // c.values_per_beat
        # Of a write: which beat of the row; whether it is an odd one.
        beat, row_bit = writes.p.address[:(beats - 1).bit_length()], (beats - 1).bit_length()
        slot = self._packed[(SEGMENT - 1).bit_length():]
        row = Cat(start[(UNPACKED - 1).bit_length():(c.slot_values - 1).bit_length()], slot)
        odd, read_rows = Signal(), []
        for parity in range(2):
            m.submodules[f"rows{parity}"] = rows = memory.Memory(
                shape=data.ArrayLayout(BEAT, beats), depth=c.tile_slots * c.value_beats // beats, init=[])
            write, read = rows.write_port(granularity=1), rows.read_port()
            m.d.comb += [
                write.en.eq(Mux(writes.valid & (writes.p.address[row_bit] == parity), 1 << beat, 0)),
                write.addr.eq(writes.p.address[row_bit + 1:]), read.addr.eq(row[1:] + (row[0] if parity == 0 else 0)),
            ]
            m.d.comb += [word.eq(writes.p.data) for word in write.data]
            read_rows.append(read.data.as_value())
        m.d.sync += odd.eq(row[0])
        return Mux(odd, read_rows[1], read_rows[0]), Mux(odd, read_rows[0], read_rows[1])

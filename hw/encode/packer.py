"""Packer: drop the zeros of a word and append what is left to the values of its slot.

Source: golden/README.md, "Compressed feature map"; the compaction network: H. Warren, Hacker's Delight, section 7-4.
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from ..config import AcceleratorConfig


def row_values(c: AcceleratorConfig) -> int:
    """Values of a row, the unit in which packed values are kept: a word or a beat, whichever is longer."""
    return max(c.drain, c.values_per_beat)


def slot_rows(c: AcceleratorConfig) -> int:
    """Rows of a full slot."""
    return c.slot_values // row_values(c)


def row_layout(c: AcceleratorConfig) -> data.ArrayLayout:
    return data.ArrayLayout(c.value_width, row_values(c))


def packer_word(c: AcceleratorConfig, slots: int) -> data.StructLayout:
    """``drain`` values for a slot; bit n of ``map`` is 1 where value n is not zero."""
    return data.StructLayout({"values": data.ArrayLayout(c.value_width, c.drain), "map": c.drain,
                              "slot": range(slots), "first": 1, "last": 1})


def row_write(c: AcceleratorConfig, slots: int) -> data.StructLayout:
    """A full row of a slot."""
    return data.StructLayout({"slot": range(slots), "row": range(slot_rows(c)), "values": row_layout(c)})


def slot_end(c: AcceleratorConfig, slots: int) -> data.StructLayout:
    """All values of a slot have been packed: their number, and those behind the last full row, followed by zeros."""
    return data.StructLayout({"slot": range(slots), "count": range(c.slot_values + 1), "tail": row_layout(c)})


class Packer(wiring.Component):
    """Pack the non-zero values of each slot without gaps, lowest channel first.

    Words of several slots may alternate. For the words of a slot from ``first`` to ``last``, the non-zero values in
    order make up the values of ``o_row`` row 0, 1 .. and then of ``o_end.tail``.

    Flow control: never stalls; one word a cycle, also of the same slot.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths.
    slots : int
        Slots that can be open.

    Members
    -------
    i : In(stream.Signature(packer_word(config, slots), always_ready=True))
    o_row : Out(stream.Signature(row_write(config, slots), always_ready=True))
        A row has become full.
    o_end : Out(stream.Signature(slot_end(config, slots), always_ready=True))
        The last word of a slot has been packed; in the same cycle as its last row, if that is full.
    o_idle : Out(1)
        No word is inside.
    """
    i: stream.Interface
    o_row: stream.Interface
    o_end: stream.Interface

    #: Cycles from a word on ``i`` to its ``o_row`` or ``o_end``.
    LATENCY = 4

    def __init__(self, config: AcceleratorConfig, slots: int):
        self.config, self.slots = config, slots
        super().__init__({
            "i": In(stream.Signature(packer_word(config, slots), always_ready=True)),
            "o_row": Out(stream.Signature(row_write(config, slots), always_ready=True)),
            "o_end": Out(stream.Signature(slot_end(config, slots), always_ready=True)),
            "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.word_valid, self.rank_valid = Signal(), Signal()      # First and second stage.
        word_q, shifts, count = self._build_rank(m)
        packed, packed_q = self._build_compact(m, word_q, shifts, count)
        self._build_append(m, packed, packed_q)
        return m

    def _build_rank(self, m):
        """Two stages: register the word; count for each value the zeros below it, and the non-zeros of all."""
        drain = self.config.drain
        word_q, word_q2 = Signal.like(self.i.payload), Signal.like(self.i.payload)
        shifts = [Signal(range(max(2, position + 1)), name=f"shift{position}") for position in range(drain)]
        count = Signal(range(drain + 1))
        m.d.sync += [
            word_q.eq(self.i.payload), self.word_valid.eq(self.i.valid),
            word_q2.eq(word_q), self.rank_valid.eq(self.word_valid),
            count.eq(sum(word_q.map)),
            *(shift.eq(sum(~bit for bit in word_q.map[:position])) for position, shift in enumerate(shifts)),
        ]
        return word_q2, shifts, count

    def _build_compact(self, m, word, shifts, count):
        """Move each value down by the zeros below it, and number the slot's values: third stage.

        Moving by 1, then 2, then 4 .. places never lets two values meet.
        """
        drain = self.config.drain
        lanes = list(zip([Mux(bit, value, 0) for bit, value in zip(word.map, word.values, strict=True)],
                         [Mux(bit, shift, 0) for bit, shift in zip(word.map, shifts, strict=True)], strict=True))
        for stage in range((drain - 1).bit_length()):
            moved = []
            for position in range(drain):
                stay, stay_shift = lanes[position]
                value, shift = Mux(stay_shift[stage], 0, stay), Mux(stay_shift[stage], 0, stay_shift)
                if position + (1 << stage) < drain:
                    come, come_shift = lanes[position + (1 << stage)]
                    value |= Mux(come_shift[stage], come, 0)
                    shift |= Mux(come_shift[stage], come_shift, 0)
                value_moved = Signal(self.config.value_width, name=f"value{position}_stage{stage}")
                shift_moved = Signal(range(drain), name=f"shift{position}_stage{stage}")
                m.d.comb += [value_moved.eq(value), shift_moved.eq(shift)]
                moved.append((value_moved, shift_moved))
            lanes = moved
        packed = Signal(row_layout(self.config))
        m.d.sync += [packed[position].eq(value) for position, (value, _) in enumerate(lanes)]
        return packed, self._build_count(m, word, count)

    def _build_count(self, m, word, count):
        """The number of values in the slot before and after the word."""
        m.submodules.counts = counts = Memory(shape=range(self.config.slot_values + 1), depth=self.slots, init=[])
        read, write = counts.read_port(domain="comb"), counts.write_port()
        before = Signal(range(self.config.slot_values + 1))
        place = Signal(data.StructLayout({"valid": 1, "slot": range(self.slots), "first": 1, "last": 1,
                                          "before": before.shape(), "after": before.shape()}))
        m.d.comb += [
            read.addr.eq(word.slot),
            before.eq(Mux(word.first, 0, read.data)),
            write.addr.eq(word.slot),
            write.data.eq(before + count),
            write.en.eq(self.rank_valid),
        ]
        m.d.sync += [
            place.valid.eq(self.rank_valid), place.slot.eq(word.slot), place.first.eq(word.first),
            place.last.eq(word.last), place.before.eq(before), place.after.eq(write.data),
        ]
        return place

    def _build_append(self, m, packed, place):
        """Rotate to the next free place of the row (fourth stage), then merge with what the row holds."""
        values = row_values(self.config)
        offset_bits = (values - 1).bit_length()
        offset = place.before[:offset_bits]
        rotated = list(packed)
        for stage in range(offset_bits):
            rotated = [Mux(offset[stage], rotated[position - (1 << stage)], rotated[position])
                       for position in range(values)]
        rotated_q = Signal(row_layout(self.config))
        beyond = Signal(values)   # Positions that belong to the next row if this one becomes full.
        place_q = Signal.like(place)
        m.d.sync += [place_q.eq(place)]
        m.d.sync += [rotated_q[position].eq(value) for position, value in enumerate(rotated)]
        m.d.sync += [beyond[position].eq(position < offset) for position in range(values)]

        m.submodules.partials = partials = Memory(shape=row_layout(self.config), depth=self.slots, init=[])
        read, write = partials.read_port(domain="comb"), partials.write_port()
        row, rest = Signal(row_layout(self.config)), Signal(row_layout(self.config))
        # The word's last value has completed the row: the number of rows has changed.
        full = place_q.before[offset_bits] != place_q.after[offset_bits]
        for position in range(values):
            held = Mux(place_q.first, 0, read.data[position])
            m.d.comb += [
                row[position].eq(held | Mux(beyond[position] & full, 0, rotated_q[position])),
                rest[position].eq(Mux(full, Mux(beyond[position], rotated_q[position], 0), row[position])),
            ]
        m.d.comb += [
            read.addr.eq(place_q.slot),
            write.addr.eq(place_q.slot), write.data.eq(rest), write.en.eq(place_q.valid),
            self.o_row.valid.eq(place_q.valid & full),
            self.o_row.p.slot.eq(place_q.slot), self.o_row.p.row.eq(place_q.before[offset_bits:]),
            self.o_row.p.values.eq(row),
            self.o_idle.eq(~(self.word_valid | self.rank_valid | place.valid | place_q.valid)),
            self.o_end.valid.eq(place_q.valid & place_q.last),
            self.o_end.p.slot.eq(place_q.slot), self.o_end.p.count.eq(place_q.after), self.o_end.p.tail.eq(rest),
        ]

"""Descriptor reader: fetches the list of layer descriptors, one ahead of the layer that runs, and checks each.

Source: hw/descriptor.py (fields and ranges); docs/architecture.md, "Descriptor list".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import AcceleratorConfig
from ..descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, FIELDS
from ..registers import ERRORS


def checked_layer() -> data.StructLayout:
    """A layer whose descriptor passed the checks, and the address that it came from."""
    return data.StructLayout({"layer": payloads.layer(), "address": unsigned(32)})


def relations(layer, config: AcceleratorConfig):
    """(field, condition that refuses it) for everything that a single field's range does not say."""
    def unaligned(value, bytes_):
        return value[:bytes_.bit_length() - 1].any()
    block, slot_bytes, half = config.block, config.slot_bytes, 2 ** (config.value_width - 1)
    pooled = layer.pool != 0
    one_column = layer.tile_columns + layer.tile_overlap >= layer.out_width
    one_row = layer.tile_rows + layer.tile_overlap >= layer.out_height
    return [
        ("pool", layer.pool == 1),
        ("write_full", ~pooled & ~layer.write_full | (layer.pool == 3) & layer.write_full),
        ("clamp_low", layer.clamp_low < -half),
        ("clamp_high", layer.clamp_high >= Mux(layer.clamp_low < 0, half, 2 * half)),
        ("in_address", unaligned(layer.in_address, slot_bytes)),
        ("full_address", layer.write_full & unaligned(layer.full_address, slot_bytes)),
        ("pool_address", pooled & unaligned(layer.pool_address, slot_bytes)),
        ("weight_address", unaligned(layer.weight_address, 8)),
        ("in_row_bytes", unaligned(layer.in_row_bytes, 8)),
        ("in_segment_bytes", unaligned(layer.in_segment_bytes, 8)),
        ("in_block_bytes", unaligned(layer.in_block_bytes, slot_bytes)),
        ("full_row_bytes", layer.write_full & unaligned(layer.full_row_bytes, 8)),
        ("full_segment_bytes", layer.write_full & unaligned(layer.full_segment_bytes, 8)),
        ("pool_row_bytes", pooled & unaligned(layer.pool_row_bytes, 8)),
        ("pool_segment_bytes", pooled & unaligned(layer.pool_segment_bytes, 8)),
        ("dense_shift", layer.dense_in & ((1 << layer.dense_shift) > block)),
        ("in_channels", layer.dense_in & (layer.in_channels > (1 << layer.dense_shift))),
        ("chunk_channels", (layer.chunk_channels > layer.in_channels)
         | (layer.chunk_channels < layer.in_channels) & unaligned(layer.chunk_channels, block)),
        ("chunk_rows", layer.chunk_rows > layer.kernel_rows),
        ("tile_rows", pooled & layer.tile_rows[0] & ~one_row),
        ("tile_columns", ~one_column & (layer.tile_columns[:2].any() | pooled & layer.tile_columns[2])),
        ("tile_overlap", layer.tile_overlap != (layer.pool == 3)),
        *_phase_relations(layer, config),
    ]


def _phase_relations(layer, config):
    """The same for the fields of the intersect array: the broadcast array has none of what they ask for."""
    stops = layer.stop_phase != 0
    if not config.intersect:
        return [("phases", layer.phases != 1), ("stop_phase", stops), ("predict", layer.predict),
                ("joined", layer.joined != 0)]
    rounds = layer.phases - layer.joined
    chunks = (layer.chunk_channels < layer.in_channels) | (layer.chunk_rows < layer.kernel_rows)
    # Without a ReLU, or with inputs below 0, a sum below 0 is not final.
    return [
        ("phases", (layer.phases == 1) & (stops | layer.predict)),
        ("stop_phase", (layer.stop_phase >= layer.phases) | stops & (layer.signed_in | (layer.clamp_low < 0))),
        ("predict", layer.predict & (layer.clamp_low < 0)),
        # Sums are predicted behind a round; weights above 0 of another chunk would follow a stop.
        ("joined", (rounds < 1) | layer.predict & (rounds == 1) | (layer.joined != 0) & stops & chunks
         & (layer.stop_phase >= rounds)),
    ]


class DescriptorReader(wiring.Component):
    """Read ``i_count`` descriptors from ``i_address`` on and send those that are well-formed to ``o``.

    Checked are the range of every field (``hw.descriptor.FIELDS``), alignments, the relations between fields that
    :func:`relations` lists, and that a chunk fits the weight buffer, in this order: the first failure is reported.
    After a bad descriptor nothing more is sent: ``o_error`` rises when all of it has been read (an error of the bus
    that spoilt it is seen before) and stays up.

    Flow control: the next descriptor is fetched when ``o`` has been taken, so it is one ahead of the layer that runs.
    Data are taken at one beat in two cycles, and to the end of a descriptor also after an error.

    Members
    -------
    i_start : In(1)
        Pulse; only while ``o_idle``.
    i_address, i_count : In
        First descriptor (a multiple of 8) and how many; 0 does nothing.
    o_request, i_data : streams
        Read client of the bus.
    o : Out(stream.Signature(checked_layer()))
        The layers in order.
    o_error, o_error_code, o_error_address : Out
        ``descriptor_field`` with the address of the field, or ``chunk_too_large`` with that of the descriptor.
    o_idle : Out(1)
        Nothing to do, and no error.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_start": In(1), "i_address": In(32), "i_count": In(16),
            "o_request": Out(stream.Signature(payloads.request())), "i_data": In(stream.Signature(64)),
            "o": Out(stream.Signature(checked_layer())),
            "o_error": Out(1), "o_error_code": Out(8), "o_error_address": Out(32), "o_idle": Out(1),
            "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        layer, self._failed = self.o.p.layer, Signal()
        # A failure that was found in the cycle before: its error, and the word of the descriptor.
        self._found, self._error, self._word = Signal(), Signal(8), Signal(range(len(FIELDS)))
        address, left = Signal(32), Signal(16)
        beat_last = DESCRIPTOR_BYTES // 8 - 1
        beat, upper = Signal(range(beat_last + 1)), Signal()
        word, taken = Signal(32), Signal()
        refused = Signal(len(relations(layer, self.config)) + 1)
        taps, chunk = Signal(6), Signal(6 + len(layer.chunk_channels))
        m.d.comb += [
            self.o.p.address.eq(address),
            self.o_request.p.address.eq(address),
            self.o_request.p.beats.eq(DESCRIPTOR_BYTES // 8),
            word.eq(self.i_data.payload.word_select(upper, 32)),
            self.o_active.eq(1),
        ]
        self._keep_first(m, address)
        self._take_word(m, layer, taken, Cat(upper, beat), word)
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.o_idle.eq(~self.o_error), self.o_active.eq(self.i_start)]
                m.d.sync += [address.eq(self.i_address), left.eq(self.i_count)]
                with m.If(self.i_start & (self.i_count != 0)):
                    m.next = "Request"
            with m.State("Request"):
                m.d.comb += [self.o_request.valid.eq(1), self.o_active.eq(self.o_request.ready)]
                m.d.sync += [beat.eq(0), upper.eq(0)]
                with m.If(self.o_request.ready):
                    m.next = "Words"
            with m.State("Words"):
                m.d.comb += [self.i_data.ready.eq(upper), self.o_active.eq(self.i_data.valid)]
                with m.If(self.i_data.valid):
                    m.d.comb += taken.eq(1)
                    m.d.sync += upper.eq(~upper)
                    with m.If(upper):
                        m.d.sync += beat.eq(beat + 1)
                        with m.If(beat == beat_last):
                            m.next = "Taps"
            with m.State("Taps"):
                m.d.sync += taps.eq(layer.chunk_rows * layer.kernel_columns)
                m.next = "Chunk"
            with m.State("Chunk"):
                m.d.sync += chunk.eq(taps * self._chunk_depth(layer))
                m.next = "Check"
            with m.State("Check"):
                m.d.sync += refused.eq(self._refusals(layer, chunk))
                m.next = "Report"
            with m.State("Report"):
                self._report(m, refused)
                m.next = "Keep"
            with m.State("Keep"):
                m.next = "Send"
            with m.State("Send"):
                m.d.comb += [self.o.valid.eq(~self._failed), self.o_active.eq(self.o.ready | self._failed)]
                m.d.sync += self.o_error.eq(self._failed)
                with m.If(self.o.valid & self.o.ready):
                    m.d.sync += [address.eq(address + DESCRIPTOR_BYTES), left.eq(left - 1)]
                    m.next = "Request"
                    with m.If(left == 1):
                        m.next = "Idle"
        return m

    def _take_word(self, m, layer, taken, index, word):
        """Store the field of word ``index``; check its range in the next cycle, with one comparator for all."""
        checked, value, index_q = Signal(), Signal(32), Signal.like(index)
        low, high = Signal(32), Signal(32, init=2**32 - 1)
        m.d.sync += [checked.eq(taken), value.eq(word), index_q.eq(index), low.eq(0), high.eq(2**32 - 1)]
        with m.Switch(index):
            for field in FIELDS:
                with m.Case(field.word):
                    # With the sign inverted, signed numbers are in the order of unsigned ones.
                    sign = 2**31 if field.signed else 0
                    m.d.sync += [value.eq(word ^ sign), low.eq(field.low + sign), high.eq(field.high + sign)]
                    if field.name != "magic":
                        with m.If(taken):
                            m.d.sync += layer[field.name].eq(word)
        with m.If(checked & ((value < low) | (value > high))):
            self._fail(m, "descriptor_field", index_q)

    def _chunk_depth(self, layer):
        """Channels of a chunk as the weight buffer counts them: the intersect array in whole blocks."""
        if not self.config.intersect:
            return layer.chunk_channels
        shift = self.config.block.bit_length() - 1
        return (layer.chunk_channels + self.config.block - 1 >> shift) << shift

    def _refusals(self, layer, chunk):
        """A bit for each reason to refuse a descriptor that needs more than one field."""
        return Cat(*(refused for _, refused in relations(layer, self.config)),
                   chunk > self.config.weight_depth)

    def _report(self, m, refused):
        """The first reason. In one cycle the last failure wins: the order is reversed."""
        reasons = relations(self.o.p.layer, self.config)
        with m.If(refused[len(reasons)]):
            self._fail(m, "chunk_too_large", 0)
        for bit, (name, _) in reversed(list(enumerate(reasons))):
            with m.If(refused[bit]):
                self._fail(m, "descriptor_field", FIELD_BY_NAME[name].word)

    def _fail(self, m, error, word):
        """Word ``word`` of the descriptor is wrong."""
        m.d.sync += [self._found.eq(1), self._error.eq(ERRORS[error][0]), self._word.eq(word)]

    def _keep_first(self, m, address):
        """Keep the first failure, a cycle after it was found."""
        m.d.sync += self._found.eq(0)
        with m.If(self._found & ~self._failed):
            m.d.sync += [self._failed.eq(1), self.o_error_code.eq(self._error),
                         self.o_error_address.eq(address + (self._word << 2))]

"""Weights and scales of a layer, from DRAM to the memories of the intersect array and of the requantiser.

Source: golden/README.md, "Intersect array".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ... import payloads
from ...buffer.weight_loader import ADDRESS_BITS, build_scales, ceil_divide, least
from ...config import BEAT, ROUND_PHASES, AcceleratorConfig
from ...stream.fifo import StreamFifo, fifo_latency
from .processing_element import lowest_set, more_than_one
from .unpack import VALUES, Unpack

#: Where start value and threshold lie in the first beat of a lane.
START_BIT, THRESHOLD_BIT = 0, 32


def weight_round(c: AcceleratorConfig) -> data.StructLayout:
    """A round of a kernel block: its lanes, the words (taps x blocks of channels) of each, its phases less one."""
    return data.StructLayout({"lanes": range(c.lanes + 1), "words": range(c.weight_words + 1),
                              "joined": range(ROUND_PHASES)})


def single_round(layer):
    """Whether a layer has one round in all, which is then loaded once."""
    return ((layer.phases == layer.joined + 1) & (layer.chunk_rows >= layer.kernel_rows)
            & (layer.chunk_channels >= layer.in_channels))


class RoundWalker(wiring.Component):
    """Walk the rounds of a layer: kernel blocks, passes, phases, channel chunks, row chunks.

    The last ``joined`` phases share the rounds of the one before.

    ``words = rows * kernel_columns * ceil(channels / block)``. With one round in all there is one pass.

    Flow control: ``o`` is valid 5 cycles after the round before was taken; 6 in a new phase, 7 in a new pass, 8 in a
    new kernel block. So the next round is worked out while the present one is loaded.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(payloads.layer()))
        A layer whose chunks fit; copied when taken.
    i_idle : In(1)
        All rounds so far have been loaded. ``i`` is ready again only then.
    o : Out(stream.Signature(weight_round(config)))
        What to load, in the order of loading.
    o_idle : Out(1)
        No layer is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    i_idle: Signal
    o: stream.Interface
    o_idle: Signal
    o_active: Signal

    #: Cycles from a transfer on ``i`` to ``o.valid``.
    LATENCY = 7

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({"i": In(stream.Signature(payloads.layer())), "i_idle": In(1),
                          "o": Out(stream.Signature(weight_round(config))), "o_idle": Out(1), "o_active": Out(1)})

    def elaborate(self, platform):
        m = Module()
        c = self.config
        layer = Signal(payloads.layer())
        # What is left of each loop with the present round, and how much of it that round does.
        left = Signal(data.StructLayout({"lanes": layer.out_channels.shape(), "passes": layer.passes.shape(),
                                         "phases": layer.phases.shape(), "channels": layer.in_channels.shape(),
                                         "rows": layer.kernel_rows.shape()}))
        now = Signal(data.StructLayout({"channels": left.channels.shape(), "rows": left.rows.shape()}))
        taps = Signal(range(7 * 7 + 1))
        m.d.comb += self.o_active.eq(1)
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.i.ready.eq(1), self.o_idle.eq(1), self.o_active.eq(self.i.valid)]
                m.d.sync += [layer.eq(self.i.p), left.lanes.eq(self.i.p.out_channels)]
                with m.If(self.i.valid):
                    m.next = "Kernels"
            with m.State("Kernels"):
                m.d.sync += [self.o.p.lanes.eq(least(left.lanes, c.lanes)),
                             left.passes.eq(Mux(single_round(layer), 1, layer.passes))]
                m.next = "Pass"
            with m.State("Pass"):
                m.d.sync += left.phases.eq(layer.phases - layer.joined)
                m.next = "Phase"
            with m.State("Phase"):
                m.d.sync += [left.rows.eq(layer.kernel_rows), left.channels.eq(layer.in_channels),
                             self.o.p.joined.eq(Mux(left.phases == 1, layer.joined, 0))]
                m.next = "Chunk"
            with m.State("Chunk"):
                m.d.sync += [now.rows.eq(least(left.rows, layer.chunk_rows)),
                             now.channels.eq(least(left.channels, layer.chunk_channels))]
                m.next = "Taps"
            with m.State("Taps"):
                m.d.sync += taps.eq(now.rows * layer.kernel_columns)
                m.next = "Words"
            with m.State("Words"):
                blocks = Signal(range(c.weight_words + 1))
                m.d.comb += blocks.eq(ceil_divide(now.channels, c.block))
                m.d.sync += self.o.p.words.eq(taps * blocks)
                m.next = "Offer"
            with m.State("Offer"):
                m.d.comb += [self.o.valid.eq(1), self.o_active.eq(self.o.ready)]
                with m.If(self.o.ready):
                    m.next = "Advance"
            with m.State("Advance"):
                self._build_advance(m, layer, left, now)
            with m.State("Finish"):
                m.d.comb += self.o_active.eq(self.i_idle)
                with m.If(self.i_idle):
                    m.next = "Idle"
        return m

    def _build_advance(self, m, layer, left, now):
        """Go on to the next round of the innermost loop that has one."""
        m.next = "Chunk"
        with m.If(left.rows != now.rows):
            m.d.sync += left.rows.eq(left.rows - now.rows)
        with m.Elif(left.channels != now.channels):
            m.d.sync += [left.rows.eq(layer.kernel_rows), left.channels.eq(left.channels - now.channels)]
        with m.Elif(left.phases != 1):
            m.d.sync += left.phases.eq(left.phases - 1)
            m.next = "Phase"
        with m.Elif(left.passes != 1):
            m.d.sync += left.passes.eq(left.passes - 1)
            m.next = "Pass"
        with m.Elif(left.lanes != self.o.p.lanes):
            m.d.sync += left.lanes.eq(left.lanes - self.o.p.lanes)
            m.next = "Kernels"
        with m.Else():
            m.next = "Finish"


class ImageReader(wiring.Component):
    """Read the weight image of layer after layer: write the scales, give out the beats of the rounds.

    Those beats are read again for each pass, unless the layer has one round in all.

    Flow control: a kernel block's header and scales are requested when the half of the scale buffer is free and all
    data requested before have come; its rounds are requested ahead, as far as a queue of ``QUEUE_BEATS`` has room for
    them. So data are taken one beat a cycle without a stall.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(payloads.layer()))
        Copied when taken; ready again when the last beat has been requested.
    o_request, i_data : Out(stream.Signature(payloads.request())), In(stream.Signature(64))
        Requests, and their beats in the same order.
    o : Out(stream.Signature(64))
        The beats of the rounds of all kernel blocks and passes.
    o_scales, i_scales_free, i_scales_half, o_scales_filled
        As those of :class:`IntersectWeightLoader`.
    o_idle : Out(1)
        No layer is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    o_request: stream.Interface
    i_data: stream.Interface
    o: stream.Interface
    o_scales: stream.Interface
    i_scales_free: Signal
    i_scales_half: Signal
    o_scales_filled: Signal
    o_idle: Signal
    o_active: Signal

    #: Beats of rounds that are read ahead, and that a request asks for at most.
    QUEUE_BEATS, REQUEST_BEATS = 64, 16
    #: Cycles from a transfer on ``i_data`` to ``o.valid``.
    LATENCY = fifo_latency(QUEUE_BEATS)

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(payloads.layer())),
            "o_request": Out(stream.Signature(payloads.request())),
            "i_data": In(stream.Signature(BEAT)),
            "o": Out(stream.Signature(BEAT)),
            "o_scales": Out(stream.Signature(payloads.scale_write(config), always_ready=True)),
            "i_scales_free": In(1), "i_scales_half": In(1), "o_scales_filled": Out(1),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.queue = queue = StreamFifo(BEAT, self.QUEUE_BEATS)
        wiring.connect(m, queue.o, wiring.flipped(self.o))
        layer, left = Signal(payloads.layer()), Signal.like(self.i.p.out_channels)
        lanes, passes = Signal(range(c.lanes + 1)), Signal.like(self.i.p.passes)
        # Next beat to request; beats of the rounds to request, or of the scales to take.
        address, beats = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        rounds = Signal(data.StructLayout({"address": ADDRESS_BITS, "beats": ADDRESS_BITS}))
        requested, scales, taken, waits = Signal(), Signal(), Signal(), Signal()
        start, more, header = Signal(), Signal(), Signal()
        room, arrived = self._build_credit(m, queue, more)
        m.d.comb += [
            requested.eq(self.o_request.valid & self.o_request.ready),
            self.o_request.p.address.eq(Cat(C(0, 3), address)),
            queue.i.payload.eq(self.i_data.payload),
            queue.i.valid.eq(self.i_data.valid & ~scales),
            self.i_data.ready.eq(queue.i.ready | scales),
            taken.eq(self.i_data.valid & scales),
            self.o_active.eq(~waits | queue.o_moves | self.o_scales.valid),
        ]
        with m.If(requested):
            m.d.sync += address.eq(address + self.o_request.p.beats)
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.i.ready.eq(1), self.o_idle.eq(1), waits.eq(~self.i.valid)]
                m.d.sync += [layer.eq(self.i.p), left.eq(self.i.p.out_channels),
                             address.eq(self.i.p.weight_address >> 3)]
                with m.If(self.i.valid):
                    m.next = "Kernels"
            with m.State("Kernels"):
                m.d.sync += [lanes.eq(least(left, c.lanes)), passes.eq(Mux(single_round(layer), 1, layer.passes))]
                m.next = "Request"
            with m.State("Request"):
                scale_beats = ceil_divide(lanes, c.block) * (2 * c.block)
                m.d.comb += [start.eq(requested), waits.eq(~requested),
                             self.o_request.valid.eq(arrived & self.i_scales_free),
                             self.o_request.p.beats.eq(scale_beats + 1)]
                m.d.sync += [beats.eq(scale_beats), header.eq(1)]
                with m.If(requested):
                    m.next = "Receive"
            with m.State("Receive"):
                m.d.comb += [scales.eq(1), waits.eq(~taken)]
                with m.If(taken & header):
                    m.d.sync += [header.eq(0), rounds.address.eq(address), rounds.beats.eq(self.i_data.payload)]
                with m.Elif(taken):
                    m.d.sync += beats.eq(beats - 1)
                    with m.If(beats == 1):
                        m.next = "Write"
            with m.State("Write"):
                m.next = "Filled"
            with m.State("Filled"):
                m.d.comb += self.o_scales_filled.eq(1)
                m.next = "Pass"
            with m.State("Pass"):
                m.d.sync += [address.eq(rounds.address), beats.eq(rounds.beats)]
                m.next = "Rounds"
            with m.State("Rounds"):
                m.d.comb += [more.eq(requested), waits.eq((beats != 0) & ~requested),
                             self.o_request.valid.eq((beats != 0) & room),
                             self.o_request.p.beats.eq(least(beats, self.REQUEST_BEATS))]
                with m.If(requested):
                    m.d.sync += beats.eq(beats - self.o_request.p.beats)
                with m.If(beats == 0):
                    m.next = "Advance"
            with m.State("Advance"):
                with m.If(passes != 1):
                    m.d.sync += passes.eq(passes - 1)
                    m.next = "Pass"
                with m.Elif(left != lanes):
                    m.d.sync += left.eq(left - lanes)
                    m.next = "Kernels"
                with m.Else():
                    m.next = "Idle"
        build_scales(m, c, self.o_scales, half=self.i_scales_half, beat=self.i_data.payload, start=start,
                     taken=taken & ~header)
        return m

    def _build_credit(self, m, queue, requested):
        """Returns whether the queue has room for a further request, and whether it holds all that was requested."""
        # Beats requested and not yet given out.
        ahead = Signal(range(self.QUEUE_BEATS + 1))
        m.d.sync += ahead.eq(ahead + Mux(requested, self.o_request.p.beats, 0) - (queue.o.valid & queue.o.ready))
        return ahead <= self.QUEUE_BEATS - self.REQUEST_BEATS, ahead == queue.level


class RoundLoader(wiring.Component):
    """Load rounds from the beats of their lanes: start values, phase maps, values in the places of their channels.

    Flow control: a round is taken when its half of the weight buffer is free. A lane takes a cycle for its start, one
    for each map, one for each group of 8 channels that has values (a word without any: 1), and 3 besides; more where
    beats are late.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.

    Members
    -------
    i : In(stream.Signature(weight_round(config)))
        Rounds of at least a lane and a word.
    i_beats : In(stream.Signature(64))
        The beats of their lanes.
    o_starts, o_maps, o_values, i_free, i_half, o_filled
        As those of :class:`IntersectWeightLoader`.
    o_idle : Out(1)
        No round is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    i_beats: stream.Interface
    o_starts: stream.Interface
    o_maps: stream.Interface
    o_values: stream.Interface
    i_free: Signal
    i_half: Signal
    o_filled: Signal
    o_idle: Signal
    o_active: Signal

    #: Cycles from a transfer on ``i_beats`` to ``o_starts.valid`` or ``o_maps.valid``.
    LATENCY = 1

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(weight_round(config))),
            "i_beats": In(stream.Signature(BEAT)),
            "o_starts": Out(stream.Signature(payloads.lane_start(config), always_ready=True)),
            "o_maps": Out(stream.Signature(payloads.phase_map(config), always_ready=True)),
            "o_values": Out(stream.Signature(payloads.phase_values(config), always_ready=True)),
            "i_free": In(1), "i_half": In(1), "o_filled": Out(1), "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.unpack = unpack = Unpack()
        m.submodules.words = words = memory.Memory(shape=c.block, depth=c.weight_words, init=[])
        write, read = words.write_port(), words.read_port(domain="comb")
        present, half = Signal(weight_round(c)), Signal()
        # The word of a lane, and its place in a beat of maps.
        lane, word, part = Signal(range(c.lanes)), Signal(range(c.weight_words)), Signal(range(BEAT // c.block))
        phase, number = Signal(range(ROUND_PHASES)), Signal(range(ROUND_PHASES * c.weight_words))
        bits, present_word = Signal(c.block), Signal(c.block)
        last_map, last_word, starts, maps, masks, done, empty = (Signal() for _ in range(7))
        m.d.comb += [
            last_word.eq(word == present.words - 1), last_map.eq(last_word & (phase == present.joined)),
            bits.eq(self.i_beats.payload.word_select(part, c.block)),
            unpack.i_beats.payload.eq(self.i_beats.payload), unpack.i_beats.valid.eq(self.i_beats.valid),
            self.i_beats.ready.eq(unpack.i_beats.ready),
            # With what the phases before have of the word.
            write.addr.eq(word), write.en.eq(maps), write.data.eq(bits | Mux(phase == 0, 0, read.data)),
            self.o_active.eq(1),
        ]
        with m.FSM():
            with m.State("Idle"):
                take = self.i.valid & self.i_free
                m.d.comb += [self.o_idle.eq(1), self.i.ready.eq(self.i_free), self.o_active.eq(take)]
                m.d.sync += [present.eq(self.i.p), half.eq(self.i_half), lane.eq(0)]
                with m.If(take):
                    m.next = "Start"
            with m.State("Start"):
                # The values of the lane before come first.
                m.d.sync += [variable.eq(0) for variable in (word, part, phase, number)]
                with m.If(empty):
                    m.d.comb += [self.i_beats.ready.eq(1), starts.eq(self.i_beats.valid)]
                with m.If(starts):
                    m.next = "Maps"
            with m.State("Maps"):
                m.d.comb += [maps.eq(self.i_beats.valid), read.addr.eq(word),
                             self.i_beats.ready.eq(last_map | (part == BEAT // c.block - 1))]
                with m.If(maps):
                    m.d.sync += [word.eq(Mux(last_word, 0, word + 1)), part.eq(part + 1), phase.eq(phase + last_word),
                                 number.eq(number + 1)]
                    with m.If(last_map):
                        m.next = "Read"
            with m.State("Read"):
                m.d.sync += present_word.eq(read.data)
                m.next = "Values"
            with m.State("Values"):
                m.d.comb += [masks.eq(1), read.addr.eq(word + 1)]
                with m.If(done):
                    m.d.sync += [word.eq(word + 1), present_word.eq(read.data)]
                with m.If(done & last_word):
                    m.d.sync += lane.eq(lane + 1)
                    m.next = "Start"
                    with m.If(lane == present.lanes - 1):
                        m.next = "Drain"
            with m.State("Drain"):
                with m.If(empty & ~unpack.o.valid):
                    # The buffer answers in the next cycle, in which its i_free is looked at again.
                    m.d.comb += self.o_filled.eq(1)
                    m.next = "Idle"
        self._build_values(m, unpack, Cat(lane, word), present_word, last_word, enable=masks, done=done, empty=empty)
        m.d.sync += [
            self.o_starts.valid.eq(starts), self.o_starts.p.lane.eq(lane),
            self.o_starts.p.start.eq(self.i_beats.payload[START_BIT:]),
            self.o_starts.p.threshold.eq(self.i_beats.payload[THRESHOLD_BIT:]),
            self.o_maps.valid.eq(maps), self.o_maps.p.lane.eq(lane), self.o_maps.p.word.eq(number),
            self.o_maps.p.map.eq(bits),
        ]
        m.d.comb += [output.p.half.eq(half) for output in (self.o_starts, self.o_maps, self.o_values)]
        return m

    def _build_values(self, m, unpack, place, bits, last_word, *, enable, done, empty):
        """Give the masks in ``bits`` that are not 0 to ``unpack``, a group of 8 channels a cycle, and write the values.

        ``place``: lane and word of ``bits``. ``done``: the last group of the word is taken. ``empty``: all masks so far
        have their values.
        """
        groups = self.config.block_groups
        # Groups of the word that are still to be looked at.
        ahead, pending, chosen = Signal(groups, init=-1), Signal(groups), Signal(groups)
        mask, step = unpack.i_mask, Signal()
        filled = Cat(bits.word_select(n, VALUES).any() for n in range(groups))
        group = Cat(Cat(chosen[n] for n in range(groups) if n >> bit & 1).any()
                    for bit in range((groups - 1).bit_length()))
        m.d.comb += [
            # The last group of a lane, which ends its beats, has its turn in any case.
            pending.eq((filled | (last_word << groups - 1)) & ahead),
            chosen.eq(lowest_set(pending)),
            step.eq(~mask.valid | mask.ready),
            done.eq(enable & step & ~more_than_one(pending)),
            empty.eq(~mask.valid & unpack.o_idle),
            unpack.o.ready.eq(1),
        ]
        with m.If(step):
            m.d.sync += [
                mask.valid.eq(enable & pending.any()),
                mask.p.mask.eq(bits.word_select(group, VALUES)),
                mask.p.last.eq(last_word & chosen[-1]),
            ]
        with m.If(enable & step):
            m.d.sync += ahead.eq(Mux(done, -1, pending & ~chosen))
        # Where the values belong, in step with the mask and with its two stages in ``unpack``.
        places = [Signal(len(place) + len(group)) for _ in range(3)]
        with m.If(step):
            m.d.sync += places[0].eq(Cat(place, group))
        with m.If(mask.valid & mask.ready):
            m.d.sync += places[1].eq(places[0])
        m.d.sync += places[2].eq(places[1])
        write = self.o_values
        m.d.comb += [
            write.valid.eq(unpack.o.valid & unpack.o.p.mask.any()),
            Cat(write.p.lane, write.p.word, write.p.group).eq(places[2]),
            write.p.values.eq(unpack.o.p.values),
        ]


class IntersectWeightLoader(wiring.Component):
    """Load the weights and scales of layer after layer into the double buffers of the intersect array.

    Each kernel block has its scales in one half of the scale buffer, each round its lanes in one half of the weight
    buffer, in the order of the loops.

    Flow control: see :class:`ImageReader` for reads from memory, which never stall, and :class:`RoundLoader` for the
    rate of writing.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes, of an intersect array.

    Members
    -------
    i_layer : In(stream.Signature(payloads.layer()))
        A layer whose rounds fit ``weight_words``. Ready again when its last round has been filled.
    o_request : Out(stream.Signature(payloads.request()))
        Header and scales of a kernel block, and up to ``ImageReader.REQUEST_BEATS`` beats of its rounds.
    i_data : In(stream.Signature(64))
        Beats in the order of the requests.
    o_starts : Out(stream.Signature(payloads.lane_start(config), always_ready=True))
        One for each lane of a round.
    o_maps : Out(stream.Signature(payloads.phase_map(config), always_ready=True))
        One for each word and phase of each lane.
    o_values : Out(stream.Signature(payloads.phase_values(config), always_ready=True))
        One for each group of 8 channels with a value, behind the map of its word. Channels without a weight get 0.
    o_scales : Out(stream.Signature(payloads.scale_write(config), always_ready=True))
        One for each lane, up to a multiple of ``block``.
    i_free, i_half : In(1)
        A half of the weight buffer may be filled, and which.
    o_filled : Out(1)
        Pulse, the cycle after the last write of a round.
    i_scales_free, i_scales_half, o_scales_filled : In(1), In(1), Out(1)
        The same of the scale buffer, for a kernel block.
    o_idle : Out(1)
        No layer is in progress.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i_layer: stream.Interface
    o_request: stream.Interface
    i_data: stream.Interface
    o_starts: stream.Interface
    o_maps: stream.Interface
    o_values: stream.Interface
    o_scales: stream.Interface
    i_free: Signal
    i_half: Signal
    o_filled: Signal
    i_scales_free: Signal
    i_scales_half: Signal
    o_scales_filled: Signal
    o_idle: Signal
    o_active: Signal

    #: Cycles from a transfer on ``i_data`` to ``o_starts.valid`` or ``o_maps.valid``.
    LATENCY = ImageReader.LATENCY + RoundLoader.LATENCY

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_layer": In(stream.Signature(payloads.layer())),
            "o_request": Out(stream.Signature(payloads.request())),
            "i_data": In(stream.Signature(BEAT)),
            "o_starts": Out(stream.Signature(payloads.lane_start(config), always_ready=True)),
            "o_maps": Out(stream.Signature(payloads.phase_map(config), always_ready=True)),
            "o_values": Out(stream.Signature(payloads.phase_values(config), always_ready=True)),
            "o_scales": Out(stream.Signature(payloads.scale_write(config), always_ready=True)),
            "i_free": In(1), "i_half": In(1), "o_filled": Out(1),
            "i_scales_free": In(1), "i_scales_half": In(1), "o_scales_filled": Out(1),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.reader = reader = ImageReader(config=self.config)
        m.submodules.walker = walker = RoundWalker(config=self.config)
        m.submodules.rounds = rounds = RoundLoader(config=self.config)
        outer = {reader: ("o_request", "i_data", "o_scales"), rounds: ("o_starts", "o_maps", "o_values")}
        for part, names in outer.items():
            for name in names:
                wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(part, name))
        wiring.connect(m, reader.o, rounds.i_beats)
        wiring.connect(m, walker.o, rounds.i)
        m.d.comb += [
            # Both take a layer at the same time.
            reader.i.payload.eq(self.i_layer.payload), walker.i.payload.eq(self.i_layer.payload),
            reader.i.valid.eq(self.i_layer.valid & walker.i.ready),
            walker.i.valid.eq(self.i_layer.valid & reader.i.ready),
            self.i_layer.ready.eq(walker.i.ready & reader.i.ready),
            walker.i_idle.eq(rounds.o_idle),
            rounds.i_free.eq(self.i_free), rounds.i_half.eq(self.i_half), self.o_filled.eq(rounds.o_filled),
            reader.i_scales_free.eq(self.i_scales_free), reader.i_scales_half.eq(self.i_scales_half),
            self.o_scales_filled.eq(reader.o_scales_filled),
            self.o_idle.eq(reader.o_idle & walker.o_idle),
            self.o_active.eq(reader.o_active | walker.o_active | rounds.o_active),
        ]
        return m

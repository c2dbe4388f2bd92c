"""The beats of a round's lanes, to the weight memories of the clusters: a loader for each cluster.

Source: golden/README.md, "Intersect array".
"""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ... import payloads
from ...config import BEAT, ROUND_PHASES, AcceleratorConfig
from ...decode.map_writer import popcount
from .layouts import own_lanes
from .processing_element import lowest_set, more_than_one, set_bit
from .unpack import VALUES, Unpack

#: Where start value and threshold lie in the first beat of a lane.
START_BIT, THRESHOLD_BIT = 0, 32


def weight_round(c: AcceleratorConfig) -> data.StructLayout:
    """A round of a kernel block: its lanes, the words (taps x blocks of channels) of each, its phases less one."""
    return data.StructLayout({"lanes": range(c.lanes + 1), "words": range(c.weight_words + 1),
                              "joined": range(ROUND_PHASES)})


class LaneSplitter(wiring.Component):
    """Give the beats of each lane of a round to its cluster, ``lane % clusters``.

    A lane has a beat for its start, ``maps = ceil(words * phases * block / 64)`` beats of maps, and
    ``ceil(ones of the maps / 8)`` of values: the ones are counted as the maps pass.

    Flow control: a beat a cycle, passed on in the cycle in which it comes; one cycle without a beat for a lane without
    values, and one for a round.

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
    o : Out(stream.Signature(64)).array(clusters)
        Those of the lanes of each cluster.
    o_idle : Out(1)
        No round is in progress.
    """
    i: stream.Interface
    i_beats: stream.Interface
    o_idle: Signal

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(weight_round(config))), "i_beats": In(stream.Signature(BEAT)),
            "o": Out(stream.Signature(BEAT)).array(config.clusters), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        parts = BEAT // c.block
        present, lane = Signal(weight_round(c)), Signal(range(c.lanes))
        cluster = lane[:(c.clusters - 1).bit_length()]
        # Maps and values of the lane that are still to come.
        maps, values = (Signal(range(ROUND_PHASES * most + 1)) for most in (c.weight_words, c.weight_depth))
        beats, passes, taken, ends = Signal(range(BEAT + 1)), Signal(), Signal(), Signal()
        m.d.comb += [
            # Bits behind the last map are none.
            beats.eq(sum(Mux(maps > n, popcount(self.i_beats.payload.word_select(n, c.block)), 0)
                         for n in range(parts))),
            taken.eq(self.i_beats.valid & self.i_beats.ready),
        ]
        for n in range(c.clusters):
            m.d.comb += [self.o[n].payload.eq(self.i_beats.payload),
                         self.o[n].valid.eq(self.i_beats.valid & passes & (cluster == n))]
            with m.If(passes & (cluster == n)):
                m.d.comb += self.i_beats.ready.eq(self.o[n].ready)
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.o_idle.eq(1), self.i.ready.eq(1)]
                m.d.sync += [present.eq(self.i.p), lane.eq(0)]
                with m.If(self.i.valid):
                    m.next = "Start"
            with m.State("Start"):
                m.d.comb += passes.eq(1)
                m.d.sync += [maps.eq(present.words * (present.joined + 1)), values.eq(0)]
                with m.If(taken):
                    m.next = "Maps"
            with m.State("Maps"):
                m.d.comb += passes.eq(1)
                with m.If(taken):
                    m.d.sync += [maps.eq(maps - parts), values.eq(values + beats)]
                    with m.If(maps <= parts):
                        m.next = "Values"
            with m.State("Values"):
                m.d.comb += [passes.eq(values != 0), ends.eq((values == 0) | taken & (values <= VALUES))]
                with m.If(taken):
                    m.d.sync += values.eq(values - VALUES)
                with m.If(ends):
                    m.d.sync += lane.eq(lane + 1)
                    m.next = "Start"
                    with m.If(lane == present.lanes - 1):
                        m.next = "Idle"
        return m


class RoundLoader(wiring.Component):
    """Load the lanes of a cluster, round by round: start values, phase maps, values in the places of their channels.

    Flow control: a lane takes a cycle for its start, one for each map, one for each group of 8 channels that has values
    (a word without any: 1), and 3 besides; more where beats are late.

    Parameters
    ----------
    config : AcceleratorConfig
        Sizes.
    cluster : int
        Which one: lanes ``slot * clusters + cluster`` are its own.

    Members
    -------
    i : In(stream.Signature(weight_round(config)))
        Rounds, also those without a lane of the cluster.
    i_half : In(1)
        Which half of the weight buffer is to be filled; taken with ``i``.
    i_beats : In(stream.Signature(64))
        The beats of the cluster's lanes.
    o_starts, o_maps, o_values
        As those of :class:`~hw.array.intersect.weight_loader.IntersectWeightLoader`.
    o_idle : Out(1)
        No round is in progress: all of the last one has been written.
    """
    i: stream.Interface
    i_beats: stream.Interface
    o_starts: stream.Interface
    o_maps: stream.Interface
    o_values: stream.Interface
    i_half: Signal
    o_idle: Signal

    #: Cycles from a transfer on ``i_beats`` to ``o_starts.valid`` or ``o_maps.valid``.
    LATENCY = 1

    def __init__(self, *, config: AcceleratorConfig, cluster: int):
        self.config, self.cluster = config, cluster
        super().__init__({
            "i": In(stream.Signature(weight_round(config))),
            "i_beats": In(stream.Signature(BEAT)),
            "o_starts": Out(stream.Signature(payloads.lane_start(config), always_ready=True)),
            "o_maps": Out(stream.Signature(payloads.phase_map(config), always_ready=True)),
            "o_values": Out(stream.Signature(payloads.phase_values(config), always_ready=True)),
            "i_half": In(1), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.unpack = unpack = Unpack()
        m.submodules.words = words = memory.Memory(shape=c.block, depth=c.weight_words, init=[])
        write, read = words.write_port(), words.read_port(domain="comb")
        present, half = Signal(weight_round(c)), Signal()
        # Lanes of the cluster in a round; the present one, its word, and the place of that in a beat of maps.
        lanes, slots = Signal(range(c.cluster_lanes + 1)), Signal(range(c.cluster_lanes + 1))
        slot, word, part = Signal(range(c.cluster_lanes)), Signal(range(c.weight_words)), Signal(range(BEAT // c.block))
        phase, number = Signal(range(ROUND_PHASES)), Signal(range(ROUND_PHASES * c.weight_words))
        bits, present_word = Signal(c.block), Signal(c.block)
        last_map, last_word, starts, maps, masks, done, empty = (Signal() for _ in range(7))
        m.d.comb += [
            last_word.eq(word == present.words - 1), last_map.eq(last_word & (phase == present.joined)),
            bits.eq(self.i_beats.payload.word_select(part, c.block)),
            unpack.i_beats.payload.eq(self.i_beats.payload), unpack.i_beats.valid.eq(self.i_beats.valid),
            self.i_beats.ready.eq(unpack.i_beats.ready),
            lanes.eq(own_lanes(c, self.i.p.lanes, self.cluster)),
            # With what the phases before have of the word.
            write.addr.eq(word), write.en.eq(maps), write.data.eq(bits | Mux(phase == 0, 0, read.data)),
        ]
        with m.FSM():
            with m.State("Idle"):
                m.d.comb += [self.o_idle.eq(1), self.i.ready.eq(1)]
                m.d.sync += [present.eq(self.i.p), half.eq(self.i_half), slots.eq(lanes), slot.eq(0)]
                with m.If(self.i.valid & (lanes != 0)):
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
                    m.d.sync += slot.eq(slot + 1)
                    m.next = "Start"
                    with m.If(slot == slots - 1):
                        m.next = "Drain"
            with m.State("Drain"):
                with m.If(empty & ~unpack.o.valid):
                    m.next = "Idle"
        self._build_values(m, unpack, Cat(slot, word), present_word, last_word, enable=masks, done=done, empty=empty)
        m.d.sync += [
            self.o_starts.valid.eq(starts), self.o_starts.p.slot.eq(slot),
            self.o_starts.p.start.eq(self.i_beats.payload[START_BIT:]),
            self.o_starts.p.threshold.eq(self.i_beats.payload[THRESHOLD_BIT:]),
            self.o_maps.valid.eq(maps), self.o_maps.p.slot.eq(slot), self.o_maps.p.word.eq(number),
            self.o_maps.p.map.eq(bits),
        ]
        m.d.comb += [output.p.half.eq(half) for output in (self.o_starts, self.o_maps, self.o_values)]
        return m

    def _build_values(self, m, unpack, place, bits, last_word, *, enable, done, empty):
        """Give the masks in ``bits`` that are not 0 to ``unpack``, a group of 8 channels a cycle, and write the values.

        ``place``: slot and word of ``bits``. ``done``: the last group of the word is taken. ``empty``: all masks so far
        have their values.
        """
        groups = self.config.block_groups
        # Groups of the word that are still to be looked at.
        ahead, pending, chosen = Signal(groups, init=-1), Signal(groups), Signal(groups)
        mask, step = unpack.i_mask, Signal()
        filled = Cat(bits.word_select(n, VALUES).any() for n in range(groups))
        group = set_bit(chosen)
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
            Cat(write.p.slot, write.p.word, write.p.group).eq(places[2]),
            write.p.values.eq(unpack.o.p.values),
        ]

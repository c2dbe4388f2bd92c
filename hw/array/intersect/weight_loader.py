"""Weights and scales of a layer, from DRAM to the memories of the intersect array and of the requantiser.

Source: golden/README.md, "Intersect array".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ... import payloads
from ...buffer.weight_loader import ADDRESS_BITS, build_scales, ceil_divide, least
from ...config import BEAT, AcceleratorConfig
from ...stream.fifo import StreamFifo, fifo_latency
from .round_loader import LaneSplitter, RoundLoader, weight_round

#: Beats that wait for the loader of a cluster, while those of another one are written.
LANE_BEATS = 64


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


class IntersectWeightLoader(wiring.Component):
    """Load the weights and scales of layer after layer into the double buffers of the intersect array.

    Each kernel block has its scales in one half of the scale buffer, each round its lanes in one half of the weight
    buffer, in the order of the loops.

    Flow control: see :class:`ImageReader` for reads from memory, which never stall. A round is taken when its half of
    the weight buffer is free. :class:`LaneSplitter` passes a beat a cycle as long as the queue of its cluster has room,
    and the loaders of all clusters write at the same time, at the rate that :class:`RoundLoader` gives.

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
    o_starts : Out(stream.Signature(payloads.lane_start(config), always_ready=True)).array(clusters)
        One for each lane of a round, to its cluster.
    o_maps : Out(stream.Signature(payloads.phase_map(config), always_ready=True)).array(clusters)
        One for each word and phase of each lane.
    o_values : Out(stream.Signature(payloads.phase_values(config), always_ready=True)).array(clusters)
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
    LATENCY = ImageReader.LATENCY + fifo_latency(LANE_BEATS) + RoundLoader.LATENCY

    def __init__(self, *, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i_layer": In(stream.Signature(payloads.layer())),
            "o_request": Out(stream.Signature(payloads.request())),
            "i_data": In(stream.Signature(BEAT)),
            "o_starts": Out(stream.Signature(payloads.lane_start(config), always_ready=True)).array(config.clusters),
            "o_maps": Out(stream.Signature(payloads.phase_map(config), always_ready=True)).array(config.clusters),
            "o_values": Out(stream.Signature(payloads.phase_values(config), always_ready=True)).array(config.clusters),
            "o_scales": Out(stream.Signature(payloads.scale_write(config), always_ready=True)),
            "i_free": In(1), "i_half": In(1), "o_filled": Out(1),
            "i_scales_free": In(1), "i_scales_half": In(1), "o_scales_filled": Out(1),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        c = self.config
        m.submodules.reader = reader = ImageReader(config=c)
        m.submodules.walker = walker = RoundWalker(config=c)
        m.submodules.splitter = splitter = LaneSplitter(config=c)
        for name in ("o_request", "i_data", "o_scales"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(reader, name))
        wiring.connect(m, reader.o, splitter.i_beats)
        loaders = [RoundLoader(config=c, cluster=n) for n in range(c.clusters)]
        for n, loader in enumerate(loaders):
            m.submodules[f"loader{n}"] = loader
            m.submodules[f"beats{n}"] = beats = StreamFifo(BEAT, LANE_BEATS)
            wiring.connect(m, splitter.o[n], beats.i)
            wiring.connect(m, beats.o, loader.i_beats)
            m.d.comb += loader.i_half.eq(self.i_half)
            for name in ("o_starts", "o_maps", "o_values"):
                wiring.connect(m, wiring.flipped(getattr(self, name)[n]), getattr(loader, name))
        loading = self._build_rounds(m, walker, [splitter, *loaders])
        m.d.comb += [
            # Both take a layer at the same time.
            reader.i.payload.eq(self.i_layer.payload), walker.i.payload.eq(self.i_layer.payload),
            reader.i.valid.eq(self.i_layer.valid & walker.i.ready),
            walker.i.valid.eq(self.i_layer.valid & reader.i.ready),
            self.i_layer.ready.eq(walker.i.ready & reader.i.ready), walker.i_idle.eq(~loading),
            reader.i_scales_free.eq(self.i_scales_free), reader.i_scales_half.eq(self.i_scales_half),
            self.o_scales_filled.eq(reader.o_scales_filled),
            self.o_idle.eq(reader.o_idle & walker.o_idle),
            self.o_active.eq(reader.o_active | walker.o_active | loading),
        ]
        return m

    def _build_rounds(self, m, walker, parts):
        """Give each round to all ``parts`` at once. Returns whether one is in progress."""
        loading, takes = Signal(), Signal()
        m.d.comb += [
            walker.o.ready.eq(self.i_free & ~loading), takes.eq(walker.o.valid & walker.o.ready),
            # The buffer answers in the next cycle, in which its i_free is looked at again.
            self.o_filled.eq(loading & Cat(part.o_idle for part in parts).all()),
        ]
        for part in parts:
            m.d.comb += [part.i.valid.eq(takes), part.i.payload.eq(walker.o.payload)]
        m.d.sync += loading.eq(takes | loading & ~self.o_filled)
        return loading

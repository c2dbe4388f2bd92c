"""The read side of the AXI4 master."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import BEAT
from ..payloads import request
from ..stream.register import StreamRegister
from .axi4 import ADDRESS_BITS, BURST_INCR, CACHE, ID_BITS, SIZE, Axi4ReadSignature, Response
from .burst import BurstScheduler, BurstTracker


class AxiReader(wiring.Component):
    """Read what the clients request and give each its beats in the order of its requests.

    Requests are split at multiples of ``max_burst`` beats, so no burst crosses 4 KiB. Clients take turns burst by
    burst. ARID is the client's number; data are routed by RID, and may come in any order between clients.

    Flow control: one burst and one beat a cycle, up to 16 bursts in flight. A client that does not take its beat blocks
    the R channel for all. All outputs of the bus come from registers. A beat with an error is delivered like any other.

    Parameters
    ----------
    clients : int
        Clients, 1 to 16.
    max_burst : int
        Beats of the longest burst, a power of two up to 256.

    Members
    -------
    i_request : In(stream.Signature(request())).array(clients)
        What to read.
    o_data : Out(stream.Signature(64)).array(clients)
        The beats.
    axi : Out(Axi4ReadSignature())
        Channels AR and R.
    o_error : Out(1)
        A beat came with SLVERR or DECERR. Sticky until ``i_abort`` falls (or reset).
    o_error_address : Out(32)
        Address of the burst of the first such beat.
    i_abort : In(1)
        Forget requests that have not been issued, issue nothing, drop the data of bursts in flight. To be held until
        ``o_idle``, and until the clients are reset: their streams are cut off without regard to ``valid``.
    o_idle : Out(1)
        Everything requested has been delivered or dropped; ``o_error`` is up to date.
    o_beats : Out(1)
        Pulse for each beat that was read.
    """
    axi: wiring.PureInterface

    #: Cycles from a transfer on ``i_request`` to ``arvalid``, and from a beat on the bus to its ``o_data``.
    LATENCY = BurstScheduler.LATENCY
    DATA_LATENCY = StreamRegister.LATENCY

    def __init__(self, clients: int, max_burst: int):
        self.clients, self.max_burst = clients, max_burst
        super().__init__({
            "i_request": In(stream.Signature(request())).array(clients),
            "o_data": Out(stream.Signature(BEAT)).array(clients),
            "axi": Out(Axi4ReadSignature()),
            "o_error": Out(1), "o_error_address": Out(ADDRESS_BITS),
            "i_abort": In(1), "o_idle": Out(1), "o_beats": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.scheduler = scheduler = BurstScheduler(self.clients, self.max_burst)
        m.submodules.tracker = tracker = BurstTracker(self.clients)
        for inner, outer in zip(scheduler.i_request, self.i_request, strict=True):
            wiring.connect(m, inner, wiring.flipped(outer))
        abort_q = Signal()
        m.d.sync += abort_q.eq(self.i_abort)
        m.d.comb += [
            self.axi.arid.eq(scheduler.o.p.client), self.axi.araddr.eq(scheduler.o.p.place << 3),
            self.axi.arlen.eq(scheduler.o.p.beats - 1), self.axi.arsize.eq(SIZE), self.axi.arburst.eq(BURST_INCR),
            self.axi.arcache.eq(CACHE), self.axi.arvalid.eq(scheduler.o.valid), scheduler.o.ready.eq(self.axi.arready),
            scheduler.i_abort.eq(self.i_abort), scheduler.i_hold.eq(tracker.o_full),
            tracker.i_issue.eq(scheduler.o_issue), tracker.i_issue_client.eq(scheduler.o_issued.client),
            tracker.i_issue_place.eq(scheduler.o_issued.place),
            tracker.i_clear.eq(abort_q & ~self.i_abort),
            self.o_error.eq(tracker.o_error), self.o_error_address.eq(tracker.o_error_address),
            self.o_idle.eq(scheduler.o_idle & tracker.o_empty),
        ]
        self._build_data(m, tracker)
        return m

    def _build_data(self, m, tracker):
        """Channel R: register, then the client that RID names."""
        layout = data.StructLayout({"id": ID_BITS, "data": BEAT, "response": Response, "last": 1})
        m.submodules.beat = register = StreamRegister(layout)
        beat = register.o
        m.d.comb += [
            register.i.p.id.eq(self.axi.rid), register.i.p.data.eq(self.axi.rdata),
            Value.cast(register.i.p.response).eq(self.axi.rresp), register.i.p.last.eq(self.axi.rlast),
            register.i.valid.eq(self.axi.rvalid), self.axi.rready.eq(register.i.ready),
            self.o_beats.eq(beat.valid & beat.ready),
            tracker.i_response.eq(self.o_beats), tracker.i_response_client.eq(beat.p.id),
            tracker.i_response_error.eq(beat.p.response != Response.OKAY), tracker.i_response_last.eq(beat.p.last),
        ]
        for n, client in enumerate(self.o_data):
            m.d.comb += [
                client.payload.eq(beat.p.data),
                client.valid.eq(beat.valid & (beat.p.id == n) & ~self.i_abort),
            ]
        with m.Switch(beat.p.id):
            for n, client in enumerate(self.o_data):
                with m.Case(n):
                    m.d.comb += beat.ready.eq(client.ready | self.i_abort)

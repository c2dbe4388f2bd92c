"""The write side of the AXI4 master."""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import BEAT
from ..payloads import request
from ..stream.fifo import StreamFifo
from ..stream.register import StreamRegister
from .axi4 import ADDRESS_BITS, BURST_INCR, CACHE, SIZE, Axi4WriteSignature, Response
from .burst import BurstScheduler, BurstTracker, burst_layout

#: Bursts whose address is ahead of their data.
MAX_AHEAD = 8


class AxiWriter(wiring.Component):
    """Write the clients' beats where their requests say.

    Requests are split at multiples of ``max_burst`` beats, so no burst crosses 4 KiB. Clients take turns burst by
    burst; data follow in the order of the addresses, up to 8 bursts behind. AWID is the client's number.

    Flow control: one burst and one beat a cycle, up to 16 bursts unanswered. A client that has requested and has no
    data blocks the others: it should have them, or be able to get them without the others. ``i_data[n].ready`` depends
    on registers and ``i_abort`` only. All outputs of the bus come from registers.

    Parameters
    ----------
    clients : int
        Clients, 1 to 16.
    max_burst : int
        Beats of the longest burst, a power of two up to 256.

    Members
    -------
    i_request : In(stream.Signature(request())).array(clients)
        Where to write; before the data.
    i_data : In(stream.Signature(64)).array(clients)
        The beats of the requests, in their order.
    axi : Out(Axi4WriteSignature())
        Channels AW, W and B.
    o_error : Out(1)
        A burst was answered SLVERR or DECERR. Sticky until ``i_abort`` falls (or reset).
    o_error_address : Out(32)
        Address of the first such burst.
    i_abort : In(1)
        Forget requests that have not been issued, issue nothing, complete what was issued with strobes 0 without
        waiting for data. To be held until ``o_idle``, and until the clients are reset.
    o_idle : Out(1)
        Every write is answered; ``o_error`` is up to date.
    o_beats : Out(1)
        Pulse for each beat that was written.
    """
    axi: wiring.PureInterface

    #: Cycles from a transfer on ``i_request`` to ``awvalid``, and from one on ``i_data`` to ``wvalid``.
    LATENCY = BurstScheduler.LATENCY
    DATA_LATENCY = StreamRegister.LATENCY

    def __init__(self, clients: int, max_burst: int):
        self.clients, self.max_burst = clients, max_burst
        super().__init__({
            "i_request": In(stream.Signature(request())).array(clients),
            "i_data": In(stream.Signature(BEAT)).array(clients),
            "axi": Out(Axi4WriteSignature()),
            "o_error": Out(1), "o_error_address": Out(ADDRESS_BITS),
            "i_abort": In(1), "o_idle": Out(1), "o_beats": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.scheduler = scheduler = BurstScheduler(self.clients, self.max_burst)
        m.submodules.tracker = tracker = BurstTracker(self.clients)
        m.submodules.order = order = StreamFifo(burst_layout(self.max_burst), MAX_AHEAD)
        for inner, outer in zip(scheduler.i_request, self.i_request, strict=True):
            wiring.connect(m, inner, wiring.flipped(outer))
        m.d.comb += [
            self.axi.awid.eq(scheduler.o.p.client), self.axi.awaddr.eq(scheduler.o.p.place << 3),
            self.axi.awlen.eq(scheduler.o.p.beats - 1), self.axi.awsize.eq(SIZE), self.axi.awburst.eq(BURST_INCR),
            self.axi.awcache.eq(CACHE), self.axi.awvalid.eq(scheduler.o.valid), scheduler.o.ready.eq(self.axi.awready),
            # Data may pass a stalled address: a slave may wait for wvalid before it raises awready.
            order.i.valid.eq(scheduler.o_issue), order.i.payload.eq(scheduler.o_issued),
            scheduler.i_abort.eq(self.i_abort), scheduler.i_hold.eq(tracker.o_full | ~order.i.ready),
            tracker.i_issue.eq(scheduler.o_issue), tracker.i_issue_client.eq(scheduler.o_issued.client),
            tracker.i_issue_place.eq(scheduler.o_issued.place),
            self.o_idle.eq(scheduler.o_idle & tracker.o_empty),
        ]
        self._build_data(m, order.o)
        self._build_response(m, tracker)
        return m

    def _build_data(self, m, burst):
        """Channel W: the beats of the client whose burst is next."""
        layout = data.StructLayout({"data": BEAT, "strobe": BEAT // 8, "last": 1, "client": len(self.axi.wid)})
        m.submodules.beat = register = StreamRegister(layout)
        sent = Signal(range(max(2, self.max_burst)))
        with m.Switch(burst.p.client):
            for n, client in enumerate(self.i_data):
                with m.Case(n):
                    m.d.comb += [
                        register.i.p.data.eq(client.payload),
                        register.i.valid.eq(burst.valid & (client.valid | self.i_abort)),
                        client.ready.eq(burst.valid & register.i.ready & ~self.i_abort),
                    ]
        m.d.comb += [
            register.i.p.client.eq(burst.p.client),
            register.i.p.strobe.eq(Mux(self.i_abort, 0, -1)), register.i.p.last.eq(sent == burst.p.beats - 1),
            burst.ready.eq(register.i.valid & register.i.ready & register.i.p.last),
            self.axi.wdata.eq(register.o.p.data), self.axi.wstrb.eq(register.o.p.strobe),
            self.axi.wlast.eq(register.o.p.last), self.axi.wid.eq(register.o.p.client),
            self.axi.wvalid.eq(register.o.valid), register.o.ready.eq(self.axi.wready),
            self.o_beats.eq(self.axi.wvalid & self.axi.wready),
        ]
        with m.If(register.i.valid & register.i.ready):
            m.d.sync += sent.eq(Mux(register.i.p.last, 0, sent + 1))

    def _build_response(self, m, tracker):
        """Channel B: always taken; the tracker finds the address of a failure."""
        abort_q = Signal()
        m.d.sync += abort_q.eq(self.i_abort)
        m.d.comb += [
            self.axi.bready.eq(1),
            tracker.i_response.eq(self.axi.bvalid), tracker.i_response_client.eq(self.axi.bid),
            tracker.i_response_error.eq(self.axi.bresp != Response.OKAY.value), tracker.i_response_last.eq(1),
            tracker.i_clear.eq(abort_q & ~self.i_abort),
            self.o_error.eq(tracker.o_error), self.o_error_address.eq(tracker.o_error_address),
        ]

"""What the reader and the writer share: splitting requests into bursts, and keeping track of bursts in flight."""
from amaranth import *
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out

from ..config import is_power_of_two
from ..payloads import request
from ..stream.register import StreamRegister
from .axi4 import ADDRESS_BITS, ID_BITS

#: An address counts beats of 8 bytes in here: the low bits of every address are 0.
PLACE_BITS = ADDRESS_BITS - 3
#: Bursts in flight.
MAX_BURSTS = 16


def burst_layout(max_burst: int) -> data.StructLayout:
    """A burst of ``beats`` beats (1 to ``max_burst``) for ``client``; ``place`` is its address / 8."""
    return data.StructLayout({"client": ID_BITS, "place": PLACE_BITS, "beats": range(max_burst + 1)})


def check_parameters(clients, max_burst):
    """Refuse what neither the reader nor the writer can do."""
    if not isinstance(clients, int) or not 1 <= clients <= 2 ** ID_BITS:
        raise ValueError(f"clients must be 1 to {2 ** ID_BITS}, not {clients!r}")
    if not isinstance(max_burst, int) or not is_power_of_two(max_burst) or max_burst > 256:
        raise ValueError(f"max_burst must be a power of two up to 256, not {max_burst!r}")


class BurstScheduler(wiring.Component):
    """Split the requests of all clients into bursts and issue them in turn, one burst of a client at a time.

    A burst ends at the next multiple of ``max_burst`` beats or with its request: so none crosses 4 KiB, and all but the
    first and the last of a long request are aligned and full.

    Flow control: one burst a cycle, also from a single client. ``o`` comes from registers. ``i_request[n].ready``
    depends on registers, ``i_hold`` and ``i_abort`` only.

    Parameters
    ----------
    clients : int
        Clients, 1 to 16.
    max_burst : int
        Beats of the longest burst, a power of two up to 256.

    Members
    -------
    i_request : In(stream.Signature(request())).array(clients)
        Transfers to split; ``beats`` at least 1.
    o : Out(stream.Signature(burst_layout(max_burst)))
        Bursts for the address channel.
    i_hold : In(1)
        Issue nothing in this cycle.
    o_issue : Out(1)
        Pulse: ``o_issued`` is issued. It appears at ``o`` in a later cycle and can no longer be taken back.
    o_issued : Out(burst_layout(max_burst))
        The burst that ``o_issue`` is about.
    i_abort : In(1)
        Issue nothing and forget all requests; what has been issued still leaves at ``o``.
    o_idle : Out(1)
        There is no request to be issued and no burst at ``o``.
    """
    #: Cycles from a transfer on ``i_request`` to its first burst at ``o``.
    LATENCY = 3

    def __init__(self, clients: int, max_burst: int):
        check_parameters(clients, max_burst)
        self.clients, self.max_burst = clients, max_burst
        layout = burst_layout(max_burst)
        super().__init__({
            "i_request": In(stream.Signature(request())).array(clients), "o": Out(stream.Signature(layout)),
            "i_hold": In(1), "o_issue": Out(1), "o_issued": Out(layout), "i_abort": In(1), "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self._ready = Signal(self.clients)
        self._grant = Signal(self.clients)
        bursts, active = zip(*(self._build_client(m, n) for n in range(self.clients)), strict=True)
        m.submodules.output = output = StreamRegister(burst_layout(self.max_burst))
        self._build_turn(m)

        # The grant is one-hot: an AND-OR is shorter than a multiplexer that decodes a number.
        chosen = Const(0)
        for n, burst in enumerate(bursts):
            chosen |= Mux(self._grant[n], Value.cast(burst), 0)
        m.d.comb += [
            self.o_issue.eq(output.i.ready & self._ready.any() & ~self.i_hold & ~self.i_abort),
            Value.cast(self.o_issued).eq(chosen),
            output.i.valid.eq(self.o_issue),
            output.i.payload.eq(self.o_issued),
            self.o_idle.eq(~Cat(*active, self._ready, output.o.valid).any()),
        ]
        wiring.connect(m, output.o, wiring.flipped(self.o))
        return m

    def _build_client(self, m, n):
        """The rest of client n's request, and the next burst of it. Returns (burst, request in work)."""
        asked, low_bits = self.i_request[n], (self.max_burst - 1).bit_length()
        active = Signal(name=f"active_{n}")
        # ``end`` counts beats from the start of a stretch of max_burst beats; those from ``low`` on are asked for.
        stretch = Signal(PLACE_BITS - low_bits, name=f"stretch_{n}")
        low = Signal(low_bits, name=f"low_{n}")
        end = Signal(25, name=f"end_{n}")
        burst = Signal(burst_layout(self.max_burst), name=f"burst_{n}")
        last, move = Signal(name=f"last_{n}"), Signal(name=f"move_{n}")
        m.d.comb += [
            last.eq(end <= self.max_burst),
            move.eq(active & (~self._ready[n] | (self._grant[n] & self.o_issue))),
            asked.ready.eq(~self.i_abort & (~active | (move & last))),
        ]
        with m.If(move):
            m.d.sync += [
                burst.client.eq(n), burst.place.eq(Cat(low, stretch)),
                burst.beats.eq(Mux(last, end[:low_bits + 1], self.max_burst) - low), stretch.eq(stretch + 1), low.eq(0),
                end.eq(end - self.max_burst), active.eq(~last), self._ready[n].eq(1),
            ]
        with m.Elif(self._grant[n] & self.o_issue):
            m.d.sync += self._ready[n].eq(0)
        with m.If(asked.valid & asked.ready):
            first = asked.p.address[3:3 + low_bits]
            m.d.sync += [active.eq(1), stretch.eq(asked.p.address[3 + low_bits:]), low.eq(first),
                         end.eq(first + asked.p.beats)]
        with m.If(self.i_abort):
            m.d.sync += [active.eq(0), self._ready[n].eq(0)]
        return burst, active

    def _build_turn(self, m):
        """Round robin: the first client after the one that was served last."""
        later = Signal(self.clients)
        ahead = Signal(self.clients)
        pool = Signal(self.clients)
        m.d.comb += [
            ahead.eq(self._ready & later),
            pool.eq(Mux(ahead.any(), ahead, self._ready)),
            self._grant.eq(pool & -pool),
        ]
        with m.If(self.o_issue):
            m.d.sync += later.eq(~(self._grant | (self._grant - 1)))


class BurstTracker(wiring.Component):
    """Count the bursts in flight and remember where they are, so that an error can name its address.

    Responses of one client come in the order of its bursts, those of different clients in any order.

    Flow control: one burst and one response a cycle.

    Parameters
    ----------
    clients : int
        Clients, 1 to 16.

    Members
    -------
    i_issue : In(1)
        Pulse: a burst of ``i_issue_client`` at ``i_issue_place`` is issued; only while ``o_full`` is 0.
    i_response : In(1)
        Pulse: a response for ``i_response_client``, with ``i_response_error`` if it is not OKAY, with
        ``i_response_last`` if it is the last one of its burst.
    i_clear : In(1)
        Forget the error.
    o_full : Out(1)
        ``MAX_BURSTS`` bursts are in flight.
    o_empty : Out(1)
        None is in flight, and ``o_error`` is up to date.
    o_error : Out(1)
        A response was not OKAY since the last ``i_clear``.
    o_error_address : Out(32)
        Address of the burst of the first such response.
    """
    #: Cycles from an ``i_response`` to its ``o_error``.
    LATENCY = 2

    def __init__(self, clients: int):
        self.clients = clients
        super().__init__({
            "i_issue": In(1), "i_issue_client": In(ID_BITS), "i_issue_place": In(PLACE_BITS),
            "i_response": In(1), "i_response_client": In(ID_BITS), "i_response_error": In(1), "i_response_last": In(1),
            "i_clear": In(1), "o_full": Out(1), "o_empty": Out(1), "o_error": Out(1),
            "o_error_address": Out(ADDRESS_BITS),
        })

    def elaborate(self, platform):
        m = Module()
        count = Signal(range(MAX_BURSTS + 1))
        done = Signal()
        m.d.comb += [done.eq(self.i_response & self.i_response_last), self.o_full.eq(count == MAX_BURSTS)]
        m.d.sync += count.eq(count + self.i_issue - done)
        with m.If(self.i_issue):
            m.d.sync += Assert(~self.o_full, "a burst is issued while the tracker is full")
        with m.If(done):
            m.d.sync += Assert(count != 0, "a response comes without a burst")

        m.submodules.places = places = memory.Memory(shape=PLACE_BITS, depth=self.clients * MAX_BURSTS, init=[])
        write, read = places.write_port(), places.read_port()
        m.d.comb += [
            write.en.eq(self.i_issue), write.data.eq(self.i_issue_place),
            write.addr.eq(self._build_pointer(m, "newest", self.i_issue_client, self.i_issue)),
            read.addr.eq(self._build_pointer(m, "oldest", self.i_response_client, done)),
        ]
        failed = Signal()
        m.d.sync += failed.eq(self.i_response & self.i_response_error)
        with m.If(failed & ~self.o_error):
            m.d.sync += [self.o_error.eq(1), self.o_error_address.eq(read.data << 3)]
        with m.If(self.i_clear):
            m.d.sync += self.o_error.eq(0)
        m.d.comb += self.o_empty.eq((count == 0) & ~failed)
        return m

    def _build_pointer(self, m, name, client, step):
        """Address of the entry of ``client``; it moves on after a ``step``."""
        address = Signal(range(self.clients * MAX_BURSTS), name=f"{name}_address")
        with m.Switch(client):
            for n in range(self.clients):
                pointer = Signal(range(MAX_BURSTS), name=f"{name}_{n}")
                with m.Case(n):
                    m.d.comb += address.eq(n * MAX_BURSTS + pointer)
                    m.d.sync += pointer.eq(pointer + step)
        return address

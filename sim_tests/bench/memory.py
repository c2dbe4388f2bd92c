"""Memory behind request and data streams, as AxiReader shows it to its clients."""
import random

from .stream import PATIENT


class Memory:
    """Answers requests ``{address, beats}`` of any number of clients with beats, in the order of each client.

    Every request is checked: aligned, inside of the contents, at least one beat, and not changed or withdrawn while it
    waits.

    >>> memory = Memory(contents, seed=1, latency=(5, 40), stall=0.5)
    >>> memory.client(dut.o_request, dut.i_data)
    >>> bench.testbench(memory.run, background=True)

    Parameters
    ----------
    contents : bytes
        Memory from address ``base`` on; a multiple of 8 bytes.
    base : int
        Address of the first byte.
    seed : int
        Fixes latencies and stalls.
    latency : tuple of int
        Least and largest number of cycles from a request to its first beat.
    stall : float
        How likely, in a cycle, no next beat is shown.
    request_stall : float or PATIENT
        How likely, in a cycle, a client's requests are stalled; ``PATIENT``: ready only after valid has been seen.
    shared : bool
        All clients together get one beat a cycle, as from one bus; a client that does not take its beat blocks others.
    """

    def __init__(self, contents, *, base=0, seed=0, latency=(1, 1), stall=0.0, request_stall=0.0,
                 shared=False):
        assert len(contents) % 8 == 0
        self.contents, self.base = bytes(contents), base
        self.latency, self.stall, self.request_stall, self.shared = latency, stall, request_stall, shared
        self.seed = seed
        self._chance = random.Random(f"{seed} memory")
        self._clients = []

    def client(self, request, data):
        """Serve the pair of streams. Returns the list of its requests, ``(cycle, address, beats)``, as they come."""
        client = _Client(request, data, number=len(self._clients))
        self._clients.append(client)
        return client.requests

    @property
    def outstanding(self):
        """Beats that have been requested and not yet taken, client by client."""
        return [len(client.queue) for client in self._clients]

    async def run(self, ctx):
        """The testbench that serves all clients."""
        cycle, turn = 0, 0
        while True:
            order = self._clients[turn:] + self._clients[:turn]
            shown = [client for client in order if client.shown]
            for client in order:
                due = client.queue and client.queue[0][0] <= cycle
                if due and not client.shown and not (self.shared and shown) and self._chance.random() >= self.stall:
                    client.show(ctx, self._beat(client.queue[0][1]))
                    shown.append(client)
                if self.request_stall == PATIENT:
                    client.accepting = client.waiting is not None
                else:
                    client.accepting = self._chance.random() >= self.request_stall
                ctx.set(client.request.ready, client.accepting)
            sampled = []
            for client in self._clients:
                sampled += [client.request.valid, client.request.p.address, client.request.p.beats, client.data.ready]
            _, _, *values = await ctx.tick().sample(*sampled)
            for index, client in enumerate(self._clients):
                valid, address, beats, ready = values[4 * index:4 * index + 4]
                self._answer(client, cycle, valid, address, beats)
                if client.shown and ready:
                    client.hide(ctx)
                    # A burst ends: the next client has its turn.
                    if not client.queue or client.queue[0][2]:
                        turn = (client.number + 1) % len(self._clients)
            cycle += 1

    def _beat(self, address):
        offset = address - self.base
        return int.from_bytes(self.contents[offset:offset + 8], "little")

    def _answer(self, client, cycle, valid, address, beats):
        where = f"client {client.number}, cycle {cycle}, seed {self.seed}"
        if client.waiting is not None:
            assert valid, f"request withdrawn ({where})"
            assert client.waiting == (address, beats), f"request changed while it waited ({where})"
        client.waiting = (address, beats) if valid and not client.accepting else None
        if valid and client.accepting:
            assert beats >= 1, f"request of no beats ({where})"
            assert address % 8 == 0, f"address {address:#x} is not a multiple of 8 ({where})"
            assert self.base <= address and address + 8 * beats <= self.base + len(self.contents), \
                f"request of {beats} beats at {address:#x} is outside of the memory ({where})"
            client.requests.append((cycle, address, beats))
            due = cycle + self._chance.randint(*self.latency)
            client.queue += [(due, address + 8 * beat, beat == 0) for beat in range(beats)]


class _Client:
    def __init__(self, request, data, *, number):
        self.request, self.data, self.number = request, data, number
        self.requests = []
        #: Beats to come: cycle, address, whether it is the first of its request.
        self.queue = []
        self.shown = self.accepting = False
        self.waiting = None

    def show(self, ctx, beat):
        ctx.set(self.data.payload, beat)
        ctx.set(self.data.valid, 1)
        self.shown = True

    def hide(self, ctx):
        ctx.set(self.data.valid, 0)
        self.shown = False
        self.queue.pop(0)

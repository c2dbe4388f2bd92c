"""The AXI master and the memory behind it. RTL: hw/bus/; memory: boards/sim/dram.h without random stalls.

Every function that steps a part takes ``now``, the number of the clock cycle, and looks at other parts as they were at
its start: those that take words are stepped before those that give them, and what is given is seen in the next cycle.
"""
from numba import njit

from .state import BURSTS, MAX_AHEAD, MAX_BURSTS, OPTIONS

#: Read and write clients, as in hw/accelerator.py.
DESCRIPTOR, MAP, VALUE, WEIGHT = range(4)
FULL, POOLED, LOG = range(3)


@njit(**OPTIONS)
def ask(bus, port, place, beats):
    """A client's request of ``beats`` beats, ``place`` its address in beats; only while ``port.ready``."""
    port.active, port.place, port.left = 1, place, beats
    bus.asked = 1


@njit(**OPTIONS)
def _schedule(run, bus, ports, hold):
    """Issue a burst, in turn, and cut the next ones. Returns whether one was issued."""
    if not bus.asked:
        return False
    chosen = -1
    if bus.out < 2 and not hold:
        for n in range(len(ports)):
            if ports[n].burst:
                if bus.later >> n & 1:
                    chosen = n
                    break
                if chosen < 0:
                    chosen = n
    if chosen >= 0:
        place = bus.out_in & 1
        bus.outs[place, 0], bus.outs[place, 1] = chosen, ports[chosen].burst_beats
        bus.out_in += 1
        bus.later = -(2 << chosen)
    bus.asked = 0
    for n in range(len(ports)):
        port = ports[n]
        port.ready = 1
        if port.active:
            bus.asked = 1
            if not port.burst or n == chosen:
                room = run.max_burst - (port.place & (run.max_burst - 1))
                last = port.left <= room
                port.burst, port.burst_beats = 1, port.left if last else room
                port.place += room
                port.left -= room
                port.active = not last
                port.ready = last
            else:
                port.ready = 0
        elif n == chosen:
            port.burst = 0
        elif port.burst:
            bus.asked = 1
    return chosen >= 0


@njit(**OPTIONS)
def step_read(now, run, bus, ports, ready):
    """A cycle of the read side. ``ready``: bit n, client n takes a beat. Returns the client that took one, or -1."""
    taken, done = -1, 0
    if not (bus.asked or bus.in_flight or bus.out):
        return taken
    if bus.beats:
        head = (bus.beat_in - bus.beats) & 1
        if ready >> bus.words[head, 0] & 1:
            taken, done = bus.words[head, 0], bus.words[head, 1]
    accepted, room = bus.out > 0 and bus.address_ready, bus.beats < 2
    first = (bus.out_in - bus.out) & 1
    client, length = bus.outs[first, 0], bus.outs[first, 1]
    issued = _schedule(run, bus, ports, bus.in_flight == MAX_BURSTS)
    bus.out += issued - accepted
    bus.in_flight += issued - done
    if accepted:
        last = bus.bursts_in % BURSTS
        bus.bursts[last, 0], bus.bursts[last, 1], bus.bursts[last, 2] = client, length, now + run.read_latency
        bus.bursts_in += 1
    if taken >= 0:
        bus.beats -= 1
        bus.total += 1
    if bus.valid and room:
        place = bus.beat_in & 1
        bus.words[place, 0], bus.words[place, 1] = bus.client, bus.last
        bus.beat_in += 1
        bus.beats += 1
        bus.valid = 0
    if not bus.valid and bus.bursts_in != bus.bursts_out and bus.next_beat <= now + 1:
        oldest = bus.bursts_out % BURSTS
        if bus.bursts[oldest, 2] <= now + 1:
            bus.bursts[oldest, 1] -= 1
            bus.valid, bus.client, bus.last = 1, bus.bursts[oldest, 0], bus.bursts[oldest, 1] == 0
            bus.bursts_out += bus.last
            bus.next_beat = now + 1 + run.cycles_per_beat
    bus.address_ready = bus.bursts_in - bus.bursts_out < MAX_BURSTS
    return taken


@njit(**OPTIONS)
def step_write(now, run, bus, ports, valid):
    """A cycle of the write side. ``valid``: bit n, client n has a beat. Returns the client whose beat was taken."""
    taken = -1
    if not (bus.asked or bus.in_flight or bus.out):
        return taken
    accepted, moved, answered = bus.out > 0 and bus.address_ready, bus.beats > 0 and bus.data_ready, bus.answer
    ahead = bus.order_in - bus.order_out
    if ahead and bus.beats < 2:
        front = bus.order_out % MAX_AHEAD
        if valid >> bus.order[front, 0] & 1:
            taken = bus.order[front, 0]
            bus.sent += 1
            if bus.sent == bus.order[front, 1]:
                bus.sent = 0
                bus.order_out += 1
    first = (bus.out_in - bus.out) & 1
    length = bus.outs[first, 1]
    issued = _schedule(run, bus, ports, bus.in_flight == MAX_BURSTS or ahead == MAX_AHEAD)
    if issued:
        back, last = bus.order_in % MAX_AHEAD, (bus.out_in - 1) & 1
        bus.order[back, 0], bus.order[back, 1] = bus.outs[last, 0], bus.outs[last, 1]
        bus.order_in += 1
    bus.out += issued - accepted
    bus.in_flight += issued - answered
    bus.beats += (taken >= 0) - moved
    if accepted:
        bus.bursts[bus.bursts_in % BURSTS, 1] = length
        bus.bursts_in += 1
    if moved:
        bus.total += 1
        bus.next_beat = now + run.cycles_per_beat
        filled = (bus.bursts_out + bus.complete) % BURSTS
        bus.bursts[filled, 1] -= 1
        if bus.bursts[filled, 1] == 0:
            bus.bursts[filled, 2] = now + run.write_latency
            bus.complete += 1
    bus.answer = bus.complete > 0 and bus.bursts[bus.bursts_out % BURSTS, 2] <= now + 1
    if bus.answer:
        bus.bursts_out += 1
        bus.complete -= 1
    waiting = bus.bursts_in - bus.bursts_out
    bus.address_ready = waiting < MAX_BURSTS
    bus.data_ready = bus.complete < waiting and bus.next_beat <= now + 1
    return taken


@njit(**OPTIONS)
def bus_idle(bus):
    """Nothing is requested, issued or unanswered."""
    return not (bus.asked or bus.out or bus.in_flight)


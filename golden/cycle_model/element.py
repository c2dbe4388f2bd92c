"""A processing element: which word and which element of it is where. RTL: hw/array/intersect/processing_element.py.

A word on its way to the queue is one integer: the number of its elements (activation and weight are not 0), the flags
below, and which of its elements takes the sum below 0. What is on its way from the queue to the sum is one of flags.
"""
from numba import njit

from .state import NEVER, OPTIONS

#: hw/array/intersect/processing_element.py, ``QUEUE_DEPTH`` and ``FETCH_STAGES``.
QUEUE_DEPTH, FETCH_STAGES = 16, 3

COUNT = 127
VALID, LAST, PARITY, WORK, DEAD = (1 << n for n in range(7, 12))
DEAD_AT = 12


@njit(**OPTIONS)
def takes_task(element):
    """``i_task.ready``."""
    return element.inside != 2


@njit(**OPTIONS)
def _has_room(element, parity):
    """Whether the queue of ``parity`` has room for the words on their way."""
    return element.queue_in[parity] - element.queue_out[parity] < QUEUE_DEPTH - FETCH_STAGES


@njit(**OPTIONS)
def step_element(now, element, words, cluster, group):
    """A cycle of a PE. ``words``: those of the last task of each parity. It sleeps in the middle of a word, and while
    there is nothing to do."""
    if element.since:
        skipped = now - element.since
        element.since = 0
        element.bits -= skipped
        if element.dead_at:
            element.dead_at -= skipped
    accepted, popped, could_take = element.accepted, element.popped, takes_task(element)
    element.accepted = element.popped = element.wake = 0
    moves = not element.result or popped
    added, head = element.added, element.head
    # The parity that is stopped in this cycle; -1: none.
    killed = _parity(added) if added & DEAD and moves else -1
    first = element.opening
    if head == killed and not first:
        # The task that is stopped had words left.
        head, first = 1 - head, 1
    chosen = element.valid and element.now_parity != killed
    final = element.bits <= 1
    pop = element.queue_in[head] != element.queue_out[head] and (not chosen or final) and moves
    older = 1 - element.parity
    fetched = older if element.fetching[older] and _has_room(element, older) else element.parity
    step = element.fetching[fetched] and _has_room(element, fetched)

    # Sum.
    ready = element.ready
    adds = ready and moves and _parity(ready) != killed
    working = 1 if adds and ready & WORK else 0
    group.working += working - element.working
    element.working = working
    raised = False
    if moves:
        element.result = raised = added & (LAST | DEAD) != 0
        element.result_parity = _parity(added)
        element.added = ready if adds else 0
        element.ready = element.read if _parity(element.read) != killed else 0
        element.read = element.one if _parity(element.one) != killed else 0
        element.one = 0
        if chosen:
            element.one = (VALID | PARITY * element.now_parity | (WORK if element.bits else 0)
                           | (LAST if element.last and final else 0) | (DEAD if element.dead_at == 1 else 0))

    # Bits of the word.
    if pop:
        word = element.queue[head, element.queue_out[head] % QUEUE_DEPTH]
        element.valid, element.now_parity, element.bits = 1, head, word & COUNT
        element.last, element.dead_at = word & LAST, word >> DEAD_AT
        element.queue_out[head] += 1
        first = element.last != 0
        if first:
            head = 1 - head
    elif moves and chosen and not final:
        element.bits -= 1
        element.dead_at -= element.dead_at > 0
    elif moves:
        element.valid = 0

    # Queues.
    element.head, element.opening = head, first
    word = element.second
    parity = _parity(word)
    if word & (COUNT | LAST) and parity != killed:
        element.queue[parity, element.queue_in[parity] % QUEUE_DEPTH] = word
        element.queue_in[parity] += 1

    # Fetch.
    element.second = element.first if _parity(element.first) != killed else 0
    element.first = 0
    if step:
        word = words[fetched, element.number[fetched]]
        group.map_reads += 2
        element.number[fetched] += 1
        if fetched != killed:
            element.first = word | VALID | PARITY * fetched
        if word & LAST:
            element.fetching[fetched] = 0
    if killed >= 0:
        element.fetching[killed] = 0
        element.queue_out[killed] = element.queue_in[killed]
    if accepted:
        element.parity = 1 - element.parity
        element.fetching[element.parity], element.number[element.parity] = 1, 0
    element.inside += accepted - popped
    if raised or takes_task(element) and not could_take:
        cluster.wake = 0
    _sleep(now, element)


@njit(**OPTIONS)
def _parity(word):
    return 1 if word & PARITY else 0


@njit(**OPTIONS)
def _sleep(now, element):
    """Until the last element of the word, or that which takes the sum below 0; or until a task comes."""
    if element.first or element.second or element.result:
        return
    for parity in range(2):
        if element.fetching[parity] and _has_room(element, parity):
            return
    if element.valid:
        steady = VALID | WORK | PARITY * element.now_parity
        same = (element.one == steady and element.read == steady and element.ready == steady
                and element.added == steady)
        count = (min(element.bits, element.dead_at) if element.dead_at else element.bits) - 1
        if same and count > 1:
            element.since, element.wake = now + 1, now + 1 + count
    elif not (element.one or element.read or element.ready or element.added or element.working
              or element.queue_in[0] != element.queue_out[0] or element.queue_in[1] != element.queue_out[1]):
        element.wake = NEVER

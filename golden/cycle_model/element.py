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
    return not element.fetching and not element.unstarted and element.inside != 2


@njit(**OPTIONS)
def step_element(now, element, words, cluster, group):
    """A cycle of a PE. ``words``: those of the task that was taken last. It sleeps in the middle of a word, and while
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
    added, parity = element.added, element.parity
    # The parity that is stopped in this cycle; -1: none.
    killed = added & PARITY if added & DEAD and moves else -1
    level = element.queue_in - element.queue_out
    chosen = element.valid and element.now_parity != killed
    final = element.bits <= 1
    pop = level and killed < 0 and (not element.valid or final) and moves

    # Sum.
    ready = element.ready
    adds = ready and moves and ready & PARITY != killed
    working = 1 if adds and ready & WORK else 0
    group.working += working - element.working
    element.working = working
    if adds and ready & PARITY == parity:
        element.unstarted = 0
    raised = False
    if moves:
        element.result = raised = added & (LAST | DEAD) != 0
        element.result_parity = 1 if added & PARITY else 0
        element.added = ready if adds else 0
        element.ready = element.read if element.read & PARITY != killed else 0
        element.read = element.one if element.one & PARITY != killed else 0
        element.one = 0
        if chosen:
            element.one = (VALID | element.now_parity | (WORK if element.bits else 0)
                           | (LAST if element.last and final else 0) | (DEAD if element.dead_at == 1 else 0))

    # Bits of the word.
    if pop:
        word = element.queue[element.queue_out % QUEUE_DEPTH]
        element.valid, element.now_parity, element.bits = 1, word & PARITY, word & COUNT
        element.last, element.dead_at = word & LAST, word >> DEAD_AT
    elif moves and chosen and not final:
        element.bits -= 1
        element.dead_at -= element.dead_at > 0
    elif moves and (final or not chosen):
        element.valid = 0

    # Queue.
    newest, newest_at, written = element.newest, element.newest_at, element.queue_in
    word = element.second
    if word and word & (COUNT | LAST) and word & PARITY != killed:
        if word & PARITY != newest:
            element.newest, element.newest_at = word & PARITY, written
        element.queue[written % QUEUE_DEPTH] = word
        element.queue_in += 1
    if pop:
        element.queue_out += 1
    elif level and killed >= 0 and element.queue[element.queue_out % QUEUE_DEPTH] & PARITY == killed:
        element.queue_out = written if newest == killed else newest_at

    # Fetch.
    element.second = element.first if element.first & PARITY != killed else 0
    element.first = 0
    if element.fetching:
        step = level < QUEUE_DEPTH - FETCH_STAGES
        if step:
            word = words[element.number]
            group.map_reads += 2
            element.number += 1
            if parity != killed:
                element.first = word | VALID | parity
        if step and word & LAST or parity == killed:
            element.fetching = 0
    if accepted:
        element.fetching, element.unstarted, element.number = 1, 1, 0
        element.parity ^= PARITY
    element.inside += accepted - popped
    if raised or takes_task(element) and not could_take:
        cluster.wake = 0
    _sleep(now, element)


@njit(**OPTIONS)
def _sleep(now, element):
    """Until the last element of the word, or that which takes the sum below 0; or until a task comes."""
    if element.fetching or element.first or element.second or element.result:
        return
    if element.valid:
        steady = VALID | WORK | element.now_parity
        same = (element.one == steady and element.read == steady and element.ready == steady
                and element.added == steady)
        count = (min(element.bits, element.dead_at) if element.dead_at else element.bits) - 1
        if same and count > 1 and not (element.unstarted and element.now_parity == element.parity):
            element.since, element.wake = now + 1, now + 1 + count
    elif not (element.one or element.read or element.ready or element.added or element.working
              or element.queue_in != element.queue_out):
        element.wake = NEVER

"""A group: which of its windows, words and bits is where. RTL: hw/array/broadcast/.

A word is one integer: the number of its bits, and the flags below.
"""
from numba import njit

from .load import is_full
from .state import ENDS, JOBS, OPTIONS, QUEUE_DEPTH, WINDOWS

BITS = 63
LAST, WINDOW, RELEASE_TILE, RELEASE_WEIGHTS, FIRST_CHUNK, LAST_CHUNK = (1 << n for n in range(6, 12))
#: Lanes and drained words of the window, above these bits.
LANES_AT, WORDS_AT = 12, 24
FIELD = 4095

IDLE, SETUP, SCAN = range(3)
#: hw/array/broadcast/word_filter.py, ``STAGES``; bit_walker.py, ``MIN_WINDOW_CYCLES``.
STAGES, MIN_WINDOW_CYCLES = 3, 3
#: Cycles from a bit to the release of what it was the last of, to the load of the shadow registers, to the first sum.
RELEASE_DELAY, LOAD_DELAY, SUM_DELAY = 3, 6, 9
#: Cycles from the scan of a window to the queue of starts.
SCAN_DELAY = 4


@njit(**OPTIONS)
def step_group(now, n, run, group, control, jobs, words, tiles, weights):
    """A cycle of group ``n``, from its bits back to its jobs. It sleeps while only bits of a word are walked."""
    if group.since:
        _wake(now, group)
    level, inside, emits, state = group.level, group.inside, group.emit, group.state
    valid, word = group.valid, group.walked
    waits_tile = state == SETUP and not group.tile_taken and not is_full(tiles, n)
    waits_weights = state == SETUP and not group.weights_taken and not is_full(weights, n) and not waits_tile
    found = valid or level or emits or inside or group.held or group.word or group.reading

    # The bit walker.
    final = group.bits <= 1
    end = valid and final and word & LAST and word & WINDOW
    issue = valid and (not end or group.room)
    if valid:
        if not issue:
            group.stall_output += 1
        elif group.bits:
            group.busy += 1
            group.lane_cycles += word >> LANES_AT & FIELD
        else:
            group.stall_find += 1
    elif found:
        group.stall_find += 1
    elif waits_tile:
        group.stall_tile += 1
    elif waits_weights:
        group.stall_weights += 1
    elif state != IDLE:
        group.stall_find += 1
    group.idle = (state == IDLE and not found and group.jobs_in == group.jobs_out and group.wait == 0
                  and group.free == run.capacity and now > group.drain_until and not _lanes_busy(now, group))
    popped = (not valid or issue and final) and level > 0
    ending = issue and end
    free, wait = group.free, group.wait
    if ending:
        _end_window(now, run, group, word)
    elif wait:
        group.wait -= 1
    if issue:
        released = final and word & LAST and word & RELEASE_TILE
        if released:
            tiles.releases[now + RELEASE_DELAY & 7] |= 1 << n
            if word & RELEASE_WEIGHTS:
                weights.releases[now + RELEASE_DELAY & 7] |= 1 << n
        if released or word & WINDOW:
            group.issued_before, group.issued = group.issued, now
        if final:
            group.valid = 0
        else:
            group.bits -= 1
    if popped:
        word = group.queue[group.queue_out % QUEUE_DEPTH]
        group.queue_out += 1
        group.valid, group.walked, group.bits = 1, word, word & BITS
    group.room = not ending and wait <= 1 and (not word & LAST_CHUNK or free >= word >> WORDS_AT)

    # The word filter.
    ready = group.filter_ready
    group.filter_ready = level < QUEUE_DEPTH - STAGES - 1
    pushed = False
    if group.word or group.held:
        pushed = _filter(group)
    group.level = level + pushed - popped
    group.word, group.word_value = group.reading, group.reading_word
    taken = emits and ready
    group.reading = taken

    # The window walker.
    last = False
    if taken:
        last = _emit(group, words)
    if not emits or last:
        group.emit = 0
        if inside and group.starts[group.starts_out % WINDOWS, 0] <= now:
            _next_window(run, group, jobs[group.job % JOBS])
            group.inside -= 1
    scan_ready = group.scan_ready
    group.scan_ready = inside < WINDOWS - 1
    done = False
    if group.active:
        done = _scan(now, n, run, group, jobs[group.job % JOBS], scan_ready)
    if state == IDLE:
        if group.jobs_in != group.jobs_out and not inside:
            group.job = group.jobs_out
            group.jobs_out += 1
            control.moved = 1
            group.tile_taken, group.count, group.state = 0, 0, SETUP
            group.weights_taken = not jobs[group.job % JOBS].weights_first
    elif state == SETUP:
        _set_up(n, run, group, jobs[group.job % JOBS], tiles, weights)
    elif done:
        group.state = IDLE
    _sleep(now, n, group)


@njit(**OPTIONS)
def _wake(now, group):
    """Catch up on the bits since ``group.since``."""
    cycles = now - group.since
    group.since = group.wake = 0
    if cycles:
        group.bits -= cycles
        group.busy += cycles
        group.lane_cycles += cycles * (group.walked >> LANES_AT & FIELD)
        group.wait = max(0, group.wait - cycles)
        group.issued_before, group.issued = now - 2 if cycles > 1 else group.issued, now - 1


@njit(**OPTIONS)
def _sleep(now, n, group):
    """Sleep until two bits of the word are left, if all before the bit walker waits for it."""
    if not (group.valid and group.bits > 2):
        return
    if group.word or group.reading or group.held and group.held_word & LAST:
        return
    if group.filter_ready != (group.level < QUEUE_DEPTH - STAGES - 1):
        return
    if group.filter_ready if group.emit else group.inside:
        return
    if group.state == SETUP or group.state == IDLE and group.jobs_in != group.jobs_out and not group.inside:
        return
    if group.active and (group.scan_ready or group.inside < WINDOWS - 1
                         or not (group.turn == n or group.left == 1 and not group.any_own)):
        return
    group.since = now + 1
    group.wake = now + group.bits - 1


@njit(**OPTIONS)
def _lanes_busy(now, group):
    """A bit is on its way through the lanes: one of the last two came at the right time."""
    return 2 <= now - group.issued <= LOAD_DELAY or 2 <= now - group.issued_before <= LOAD_DELAY


@njit(**OPTIONS)
def _end_window(now, run, group, word):
    """The last bit of a window: the drain is taken for as long as its words need."""
    drained = word >> WORDS_AT
    group.wait = max(drained, MIN_WINDOW_CYCLES) - 1
    group.drain_until = now + LOAD_DELAY + 2 + drained
    if not word & FIRST_CHUNK:
        group.sum_reads += drained * run.drain
    if word & LAST_CHUNK:
        group.free -= drained
        group.ends[group.ends_in % ENDS] = now + SUM_DELAY + run.sums_latency
        group.ends_in += 1
    else:
        group.sum_writes += drained * run.drain


@njit(**OPTIONS)
def _filter(group):
    """A word behind the test for zero meets the one that is held. Returns whether that one leaves."""
    word, held = group.word_value, group.held_word
    full, last = group.word and word & BITS, group.word and word & LAST
    closed = held & LAST
    pushed = group.held != 0 and (closed != 0 or full != 0 or last != 0)
    if pushed:
        if not full:
            held |= LAST
        group.queue[group.queue_in % QUEUE_DEPTH] = held
        group.queue_in += 1
    if full or last and (not group.held or closed):
        group.held, group.held_word = 1, word
    elif pushed:
        group.held = 0
    return pushed


@njit(**OPTIONS)
def _emit(group, words):
    """A map word: block by block, row by row, column by column. Returns whether it is the last of its window."""
    flags = group.flags
    if group.empty:
        group.reading_word = flags | LAST
        return True
    group.map_reads += 1
    bits = words[group.address + group.column]
    group.column += 1
    if group.column == group.columns:
        group.column = 0
        group.row += 1
        group.address += group.row_pitch
        if group.row == group.rows:
            group.row = 0
            group.block += 1
            group.address += group.block_pitch - group.rows * group.row_pitch
            if group.block == group.blocks:
                group.reading_word = flags | LAST | bits
                return True
    group.reading_word = flags | bits
    return False


@njit(**OPTIONS)
def _next_window(run, group, job):
    """The window at the output of the queue of starts is emitted from the next cycle on."""
    start, starts = group.starts_out % WINDOWS, group.starts
    group.starts_out += 1
    group.emit, group.empty = 1, starts[start, 3] == 0
    group.address, group.rows, group.columns = starts[start, 1], starts[start, 2], starts[start, 3]
    group.blocks = job.blocks
    group.row = group.column = group.block = 0
    flags = job.lanes << LANES_AT | job.words << WORDS_AT
    if starts[start, 4]:
        flags |= WINDOW
    if starts[start, 5]:
        flags |= RELEASE_TILE
        if job.weights_last:
            flags |= RELEASE_WEIGHTS
    if job.first_chunk:
        flags |= FIRST_CHUNK
    if job.last_chunk:
        flags |= LAST_CHUNK
    group.flags = flags


@njit(**OPTIONS)
def _scan(now, n, run, group, job, ready):
    """Visit a window. Returns whether it was the last of the tile."""
    own, last = group.turn == n, group.left == 1
    push = own or last and not group.any_own
    if push and not ready:
        return False
    if push:
        start, starts = group.starts_in % WINDOWS, group.starts
        group.starts_in += 1
        group.inside += 1
        top, left = max(group.y, 0), max(group.x, 0)
        rows = min(group.y + job.kernel_rows, group.in_height) - top
        columns = min(group.x + job.kernel_columns, group.row_pitch) - left
        starts[start, 0] = now + SCAN_DELAY
        starts[start, 1] = group.words_at + job.block * group.block_pitch + top * group.row_pitch + left
        starts[start, 2] = rows
        starts[start, 3] = columns if own and rows > 0 and columns > 0 else 0
        starts[start, 4] = own
        starts[start, 5] = not own or group.left <= run.groups
    group.turn = (group.turn + 1) % run.groups
    group.left -= 1
    group.columns_left -= 1
    group.x += group.stride
    if group.columns_left == 0:
        group.columns_left, group.x = job.columns, job.column_first
        group.y += group.stride
    group.any_own |= own
    group.active = not last
    return last


@njit(**OPTIONS)
def _set_up(n, run, group, job, tiles, weights):
    """Take tile and weights; multiplications take ``run.setup`` cycles."""
    tile_taken, weights_taken = group.tile_taken, group.weights_taken
    if not tile_taken and is_full(tiles, n):
        tiles.take |= 1 << n
        group.tile_taken = 1
    if not weights_taken and is_full(weights, n):
        weights.take |= 1 << n
        group.weights_taken = 1
    if group.count < run.setup:
        group.count += 1
    elif tile_taken and weights_taken:
        group.state, group.active, group.any_own = SCAN, 1, 0
        group.left, group.columns_left = job.rows * job.columns, job.columns
        group.y, group.x = job.row_first, job.column_first
        if job.pass_first:
            group.turn = 0

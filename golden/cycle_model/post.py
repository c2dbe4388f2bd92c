"""From the sums of the groups to slots in DRAM. RTL: hw/postprocess/, hw/encode/.

A position is one integer: flags of the pixel, then word, column, row and block.
"""
from numba import njit

from hw.config import SEGMENT

from .bus import FULL, POOLED, ask
from .load import is_full
from .state import ENDS, JOBS, OPTIONS
from .state import REQUANTISE_DEPTH as DEPTH
from .state import SLOTS as RING

ROW_FIRST, ROW_LAST, COLUMN_FIRST, COLUMN_LAST = (1 << n for n in range(4))
WORD_AT, X_AT, Y_AT, BLOCK_AT = 4, 12, 28, 44
#: Stages of the requantiser before its queue.
STAGES = 9
#: Cycles from the last word of a slot to the cycle in which the slot buffer knows it: the packer.
PACKER_DELAY = 5


@njit(**OPTIONS)
def _word(position):
    return position >> WORD_AT & 255


@njit(**OPTIONS)
def _x(position):
    return position >> X_AT & 65535


@njit(**OPTIONS)
def _y(position):
    return position >> Y_AT & 65535


@njit(**OPTIONS)
def encoder_idle(encoder):
    """Nothing is inside."""
    return not (encoder.word or encoder.occupied or encoder.busy or encoder.read or encoder.valid or encoder.request)


@njit(**OPTIONS)
def step_encoder(now, run, encoder, counts, at, rows, segments, bus, port, taken):
    """A cycle of an encoder, its input excepted: :func:`give` comes behind. ``taken``: the bus took a beat.

    ``counts[at + (block * rows + row) * segments + segment]`` are the values of each slot. Returns whether the input
    takes a word in this cycle.
    """
    if not (encoder.word or encoder.occupied or encoder.valid or encoder.read or encoder.request):
        return True
    # The slot buffer.
    step = not encoder.valid or taken
    requests = encoder.request
    releases = encoder.busy and step and encoder.beat == encoder.beats - 1
    ended = encoder.ends_in != encoder.ends_out and encoder.ends[encoder.ends_out % RING, 1] <= now
    begins = ended and (not encoder.busy or releases) and (not requests or port.ready)
    if requests and port.ready:
        # A slot starts at a multiple of its size: no burst is cut elsewhere than in one that starts at 0.
        ask(bus, port, 0, encoder.beats)
        encoder.request = 0
    if step:
        encoder.valid = encoder.read
        encoder.read = encoder.busy
        encoder.beat += encoder.busy
    if releases:
        encoder.busy = 0
    if begins:
        head = encoder.ends_out % RING
        encoder.ends_out += 1
        encoder.beats = run.map_beats + (encoder.ends[head, 0] + run.values_per_beat - 1) // run.values_per_beat
        encoder.busy, encoder.beat, encoder.request = 1, 0, 1
    # The register before the packer.
    ready = not encoder.word
    if encoder.word:
        position = encoder.position
        first = _word(position) == 0 and _x(position) % SEGMENT == 0
        ready = not first or encoder.occupied != run.slots
        if ready:
            encoder.occupied += first
            if _word(position) == run.block_words - 1 and (_x(position) % SEGMENT == SEGMENT - 1
                                                           or position & COLUMN_LAST):
                slot = ((position >> BLOCK_AT) * rows + _y(position)) * segments + _x(position) // SEGMENT
                tail = encoder.ends_in % RING
                encoder.ends[tail, 0], encoder.ends[tail, 1] = counts[at + slot], now + PACKER_DELAY
                encoder.ends_in += 1
    encoder.occupied -= releases
    return ready


@njit(**OPTIONS)
def give(encoder, ready, valid, position):
    """The input of an encoder at the end of a cycle in which it was ``ready``."""
    if ready:
        encoder.word, encoder.position = valid, position


@njit(**OPTIONS)
def pool_idle(pool):
    """No word is inside."""
    return not (pool.word or pool.column or pool.row or pool.valid)


@njit(**OPTIONS)
def step_pool(pool, kernel, valid, position):
    """A cycle of the pool in which its stages move on, and what it takes."""
    pool.valid, pool.position = 0, _pooled(pool.row_position, kernel)
    if pool.row:
        odd = _y(pool.row_position) & 1
        first, last = pool.row_position & ROW_FIRST, pool.row_position & ROW_LAST
        pool.valid = last or (not odd and not first if kernel == 3 else odd)
    pool.row, pool.row_position = 0, pool.column_position
    if pool.column:
        odd = _x(pool.column_position) & 1
        first, last = pool.column_position & COLUMN_FIRST, pool.column_position & COLUMN_LAST
        pool.row = last or (not odd and not first if kernel == 3 else odd)
    pool.column, pool.column_position = pool.word, pool.word_position
    pool.word, pool.word_position = valid, position


@njit(**OPTIONS)
def _pooled(position, kernel):
    """Where the window lies that the pixel at ``position`` ends."""
    x, y = _x(position), _y(position)
    column = (x >> 1) - (kernel == 3 and not x & 1 and not position & COLUMN_FIRST)
    row = (y >> 1) - (kernel == 3 and not y & 1 and not position & ROW_FIRST)
    return position & ~(65535 << X_AT | 65535 << Y_AT) | column << X_AT | row << Y_AT


@njit(**OPTIONS)
def step_requantise(collector, popped):
    """A cycle of the requantiser; ``popped``: its output was taken. The collector puts words into it."""
    collector.values += (collector.stages >> STAGES - 1 & 1) - popped
    collector.stages = collector.stages << 1 & (1 << STAGES) - 1
    collector.positions_out += popped


@njit(**OPTIONS)
def collector_idle(collector):
    """No job is held, and no word is in the collector or the requantiser."""
    return not (collector.held or collector.valid or collector.positions_in != collector.positions_out)


@njit(**OPTIONS)
def step_collector(now, run, collector, control, groups, jobs, scales, waiting):
    """A cycle of the collector. ``waiting``: words in the requantiser when the cycle began."""
    takes = collector.valid and waiting < DEPTH
    wants = collector.held and collector.wants_scales
    full = wants and is_full(scales, 0)
    step = collector.held and (not collector.valid or takes) and (not wants or full)
    if takes:
        collector.positions[collector.positions_in % DEPTH] = collector.position
        collector.positions_in += 1
        collector.stages |= 1
        collector.valid = 0
        if collector.release:
            scales.release = 1
    if full:
        scales.take = 1
        collector.wants_scales = 0
    ended = False
    if step:
        group = groups[collector.turn]
        if group.ends_in != group.ends_out and group.ends[group.ends_out % ENDS] + collector.lane_word <= now:
            ended = _take(run, collector, group, jobs[collector.job % JOBS])
    if not collector.held or ended:
        collector.held = control.collect_in != control.collect_out
        if collector.held:
            collector.job = control.collects[control.collect_out % JOBS]
            control.collect_out += 1
            control.moved = 1
            job = jobs[collector.job % JOBS]
            collector.wants_scales = job.scales_first
            collector.row = 0
            if job.pass_first:
                collector.turn = 0


@njit(**OPTIONS)
def _take(run, collector, group, job):
    """A word of the group whose turn it is. Returns whether it is the last of its job."""
    word, row, column = collector.lane_word, collector.row, collector.column
    row_last, column_last = row + 1 == job.rows, column + 1 == job.columns
    collector.valid, collector.release = 1, 0
    collector.position = ((row == 0) * ROW_FIRST | row_last * ROW_LAST | (column == 0) * COLUMN_FIRST
                          | column_last * COLUMN_LAST | word % run.block_words << WORD_AT | job.x + column << X_AT
                          | job.y + row << Y_AT | job.out_block + word // run.block_words << BLOCK_AT)
    group.free += 1
    collector.lane_word += 1
    if collector.lane_word < job.words:
        return False
    group.ends_out += 1
    collector.lane_word = 0
    collector.turn = (collector.turn + 1) % run.groups
    collector.column += 1
    if not column_last:
        return False
    collector.column = 0
    collector.row += 1
    collector.release = row_last and job.scales_last
    return row_last


@njit(**OPTIONS)
def step_post(now, run, layer, collector, control, groups, jobs, scales, full, full_counts, pool, pooled,
              pooled_counts, bus, ports, taken):
    """A cycle from the collector to the encoders, from their end to their beginning. ``taken``: the client of the bus
    whose beat was taken."""
    waiting = collector.positions_in - collector.positions_out
    valid, position = collector.values > 0, collector.positions[collector.positions_out % DEPTH]
    full_ready = pool_taken = True
    if layer.write_full:
        full_ready = step_encoder(now, run, full, full_counts, layer.full_at, layer.full_rows,
                                  layer.full_segments, bus, ports[FULL], taken == FULL)
    if layer.pool:
        ready = step_encoder(now, run, pooled, pooled_counts, layer.pool_at, layer.pool_rows,
                             layer.pool_segments, bus, ports[POOLED], taken == POOLED)
        give(pooled, ready, pool.valid, pool.position)
        pool_taken = not pool.valid or ready
    popped = valid and (full_ready or collector.served & 1) and (pool_taken or collector.served & 2)
    if layer.write_full:
        give(full, full_ready, valid and not collector.served & 1, position)
    if layer.pool and pool_taken:
        step_pool(pool, layer.pool, valid and not collector.served & 2, position)
    if valid:
        collector.served = 0 if popped else collector.served | full_ready | pool_taken << 1
    step_requantise(collector, popped)
    step_collector(now, run, collector, control, groups, jobs, scales, waiting)

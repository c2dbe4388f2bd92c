"""Clusters, what joins their sums, and the tile unpacker. RTL: hw/array/intersect/."""
from numba import njit

from golden.tasks import walk_step
from hw.config import SEGMENT

from .element import DEAD_AT, LAST, takes_task
from .load import is_free, is_full
from .state import JOBS, NEVER, OPTIONS

WAIT, TABLE, DEAL = range(3)
#: hw/array/intersect/cluster.py, ``SUMS_DEPTH``; jobs whose sums wait for the drain.
SUMS_DEPTH, FINISHED_DEPTH = 8, 2
#: Cycles from the job to its first word in the table of offsets (hw/array/intersect/job_table.py).
TABLE_CYCLES = 4
#: Cycles of the unpacker for a job besides those of its words, and its ``LATENCY``.
UNPACK_CYCLES, UNPACK_LATENCY = 3, 3
#: No sum is below it.
LEAST = -1 << 62
#: What a cluster waits for, or that it is idle.
WAITS_OUTPUT, WAITS_TILE, WAITS_WEIGHTS, IDLE = (1 << n for n in range(4))


@njit(**OPTIONS)
def step_unpacker(now, run, layer, unpacker, loader, control, jobs, words, packed, tiles):
    """A cycle of the tile unpacker: the last of the records of clusters."""
    if unpacker.state == WAIT:
        if unpacker.jobs_in != unpacker.jobs_out and is_full(packed, 0) and is_free(tiles):
            job = jobs[unpacker.jobs_out % JOBS]
            unpacker.jobs_out += 1
            control.moved = 1
            packed.take, unpacker.state, unpacker.idle = 1, TABLE, 0
            cycles = _unpack_cycles(run, layer, job, words)
            loader.unpacked += cycles
            unpacker.until = now + UNPACK_CYCLES + UNPACK_LATENCY + cycles
    elif now == unpacker.until:
        packed.release = tiles.filled = 1
        unpacker.state, unpacker.idle = WAIT, 1


@njit(**OPTIONS)
def _unpack_cycles(run, layer, job, words):
    """A cycle for each part of a word with values, one for a word without any."""
    cycles = job.in_rows * job.segments * job.blocks * SEGMENT
    for block in range(job.block, job.block + job.blocks):
        for row in range(job.row, job.row + job.in_rows):
            at = layer.words_at + (block * layer.in_height + row) * layer.in_width
            for column in range(job.segment * SEGMENT, min((job.segment + job.segments) * SEGMENT, layer.in_width)):
                if words[at + column]:
                    cycles += run.parts - 1
    return cycles


@njit(**OPTIONS)
def step_joiner(run, group, clusters):
    """A cycle of the joiner behind ``clusters`` of a group, after that of the collector. A word that waits is the end
    of a window to the collector, whichever of its words it is."""
    offered = group.level < run.joined_words
    group.level -= group.free
    group.free = 0
    for n in range(run.clusters):
        offered = offered and clusters[n].sums > 0
    if offered:
        for n in range(run.clusters):
            clusters[n].joined, clusters[n].wake = 1, 0
        group.step += 1
        if group.step == run.joins:
            group.step = 0
            group.level += 1
    group.ends_in = group.ends_out + (group.level > 0)


@njit(**OPTIONS)
def step_activity(run, group, clusters):
    """What a group does in this cycle: one of the counters, or nothing."""
    if group.working:
        group.busy += 1
        group.lane_cycles += group.working
        return
    some, every = 0, IDLE
    for n in range(run.clusters):
        some |= clusters[n].waits
        every &= clusters[n].waits
    if every:
        return
    if some & WAITS_OUTPUT:
        group.stall_output += 1
    elif some & WAITS_TILE:
        group.stall_tile += 1
    elif some & WAITS_WEIGHTS:
        group.stall_weights += 1
    else:
        group.stall_find += 1


@njit(**OPTIONS)
def step_cluster(now, at, run, layer, cluster, group, elements, control, jobs, tiles, weights, operands, memory):
    """A cycle of cluster ``at``. ``elements``: its PEs. ``memory``: its partial sums, which of them are marked as below
    0 (1) and predicted (2), the slots of the window that are left, and the words of its PEs' tasks."""
    sums, marks, slots, words = memory
    job, held, dealing = jobs[cluster.job % JOBS], cluster.held, cluster.state == DEAL
    parity, oldest, free, window = cluster.parity, cluster.oldest, cluster.free, cluster.window
    offered, level = cluster.jobs_in != cluster.jobs_out, cluster.finished_in - cluster.finished_out
    waits = 0
    if dealing and window and job.first_chunk and not free:
        waits = WAITS_OUTPUT
    elif not (cluster.unfinished or level or cluster.arrives or cluster.sums or offered):
        waits = IDLE
    complete = cluster.dealt[oldest] and not cluster.left[oldest] and (not cluster.last_chunk[oldest]
                                                                       or level < FINISHED_DEPTH)
    result = -1
    for n in range(run.pes):
        if elements[n].result:
            result = n
            break

    # The task that waits for a PE, and the next one.
    begun, gone = -1, False
    if held:
        gone = cluster.dead or job.stop and cluster.value < 0
        if not gone:
            for n in range(run.pes):
                if takes_task(elements[n]):
                    begun, gone = n, True
                    break
    fire = ready = load = False
    address = 0
    if dealing and cluster.loaded:
        address = cluster.index * run.cluster_lanes + slots[cluster.slot]
        if (not held or gone) and not (held and cluster.address == address) and not _in_flight(run, elements, address):
            fire = True
            ready = cluster.slot + 1 == cluster.slots
    elif dealing and window and (not job.first_chunk or free and result < 0):
        load = True
        cluster.slot = cluster.slots = 0
        for slot in range((job.lanes + run.clusters - 1 - at % run.clusters) // run.clusters):
            if not (job.stop and marks[cluster.index * run.cluster_lanes + slot] & 1):
                slots[cluster.slots] = slot
                cluster.slots += 1
        ready = cluster.slots == 0
    if begun >= 0:
        _begin(run, layer, job, cluster, elements[begun], words[begun], at, operands)
        cluster.left[parity] += 1
    if fire:
        slot = slots[cluster.slot]
        cluster.address, cluster.held_slot, cluster.held_row, cluster.held_column = (address, slot, cluster.window_row,
                                                                                    cluster.window_column)
        lane = job.out_block * run.block + slot * run.clusters + at % run.clusters
        cluster.value, cluster.dead = operands[4][layer.bias_at + lane], 0
        if not job.first_chunk:
            cluster.value, cluster.dead = sums[address], marks[address] & 2
        group.sum_reads += not job.first_chunk
        cluster.slot += 1
        cluster.loaded = not ready
    elif load:
        cluster.loaded = not ready
        if job.first_chunk:
            for slot in range(run.cluster_lanes):
                marks[cluster.index * run.cluster_lanes + slot] = 0
    cluster.held = fire or held and not gone
    cluster.free -= load and job.first_chunk

    # Results.
    if result >= 0:
        element = elements[result]
        which = element.result_parity
        place = element.places[which]
        sums[place] = element.outcomes[which]
        predicted = element.outcomes[which] < element.thresholds[which]
        if predicted and sums[place] >= 0:
            sums[place] = -1
        marks[place] = (sums[place] < 0) + 2 * predicted
        group.sum_writes += 1
        element.busy[which] = 0
        element.popped, element.wake = 1, 0
        cluster.left[element.jobs[which]] -= 1
    if complete:
        tiles.release |= 1 << at
        if cluster.weights_last[oldest]:
            weights.release |= 1 << at
        if cluster.last_chunk[oldest]:
            tail = cluster.finished_in % FINISHED_DEPTH
            cluster.finished[tail, 0], cluster.finished[tail, 1] = cluster.windows_of[oldest], cluster.slots_of[oldest]
            cluster.finished_in += 1
        cluster.dealt[oldest] = 0
        cluster.oldest ^= 1
        cluster.unfinished -= 1
    drains = _drain(run, cluster, group, level, fire)

    # Jobs.
    walking, state = cluster.walking, cluster.state
    if state == WAIT:
        if offered:
            waits |= _take_job(now, at, cluster, control, jobs, tiles, weights, complete)
    elif state == TABLE:
        if now == cluster.until:
            cluster.state, cluster.walking, cluster.row, cluster.column = DEAL, 1, 0, 0
            if job.pass_first:
                cluster.turn = 0
    elif not walking and not window and not held:
        cluster.dealt[parity], cluster.weights_last[parity] = 1, job.weights_last
        cluster.last_chunk[parity], cluster.windows_of[parity] = job.last_chunk, cluster.windows
        cluster.slots_of[parity] = job.words * run.joins
        cluster.parity ^= 1
        cluster.state = WAIT
    if ready:
        cluster.window = 0
        cluster.index = (cluster.index + 1) % run.sum_windows
        cluster.windows += 1
    steps = walking and (not window or ready)
    if steps:
        _step_window(run, cluster, job, at // run.clusters)
    cluster.waits = waits
    cluster.idle = not (cluster.unfinished or cluster.finished_in != cluster.finished_out or cluster.arrives
                        or cluster.sums)
    changed = (complete or result >= 0 or gone or fire or load or drains or steps or cluster.state != state
               or cluster.held != held)
    cluster.wake = now + 1 if changed else cluster.until if cluster.state == TABLE else NEVER


@njit(**OPTIONS)
def _in_flight(run, elements, address):
    """A task whose sum goes to ``address`` is in a PE."""
    for n in range(run.pes):
        element = elements[n]
        if element.busy[0] and element.places[0] == address or element.busy[1] and element.places[1] == address:
            return True
    return False


@njit(**OPTIONS)
def _begin(run, layer, job, cluster, element, words, at, operands):
    """Give the task that waits to a PE."""
    x_maps, x_values, w_maps, w_values, _, thresholds = operands
    which = 1 - element.parity
    lane = job.out_block * run.block + cluster.held_slot * run.clusters + at % run.clusters
    row, column = job.y + cluster.held_row, job.x + cluster.held_column
    x_pitch = layer.x_columns * layer.in_blocks
    lane_words = layer.kernel_rows * layer.kernel_columns * layer.in_blocks
    x_at = layer.x_at + row * layer.stride * x_pitch + column * layer.stride * layer.in_blocks
    w_at = layer.maps_at + (job.phase * layer.out_channels + lane) * lane_words
    count, total, stopped = job.kernel_rows * layer.kernel_columns * job.blocks, cluster.value, False
    for part in range(job.joined + 1):
        step, before = words[which, part * count:], stopped
        products, number, total, stopped = walk_step(
            x_maps, x_values, w_maps, w_values, x_at, x_pitch, w_at + part * layer.out_channels * lane_words,
            layer.in_blocks, layer.kernel_columns, job.block, job.block + job.blocks, job.kernel_row,
            job.kernel_row + job.kernel_rows, part >= job.stop_part, before, total, step)
        if stopped and not before:
            for n in range(number - 1):
                products -= step[n]
            step[number - 1] |= products << DEAD_AT
    words[which, (job.joined + 1) * count - 1] |= LAST
    element.outcomes[which], element.places[which], element.busy[which] = total, cluster.address, 1
    element.jobs[which] = cluster.parity
    element.thresholds[which] = thresholds[layer.bias_at + lane] if job.predict else LEAST
    element.accepted, element.wake = 1, 0


@njit(**OPTIONS)
def _drain(run, cluster, group, level, fire):
    """A cycle of the drain. Returns whether it changed anything."""
    stored, arrives = cluster.sums, cluster.arrives
    cluster.sums += arrives - cluster.joined
    cluster.arrives = 0
    changed = arrives or cluster.joined
    cluster.joined = 0
    if not level:
        return changed
    head = cluster.finished_out % FINISHED_DEPTH
    if cluster.done == cluster.finished[head, 0]:
        cluster.finished_out += 1
        cluster.done = 0
        return True
    if fire or stored + arrives >= SUMS_DEPTH:
        return changed
    cluster.arrives = 1
    group.sum_reads += 1
    cluster.drained += 1
    if cluster.drained == cluster.finished[head, 1]:
        cluster.drained = 0
        cluster.done += 1
        cluster.free += 1
    return True


@njit(**OPTIONS)
def _take_job(now, at, cluster, control, jobs, tiles, weights, complete):
    """Take the next job if all is there that it needs. Returns what it waits for."""
    job = jobs[cluster.jobs_out % JOBS]
    waits, full = 0, is_full(tiles, at)
    if not full:
        waits |= WAITS_TILE
    if job.weights_first and not is_full(weights, at):
        waits |= WAITS_WEIGHTS
    # ``unfinished`` counts a job that is completed in this cycle no longer.
    if waits or cluster.unfinished + (complete != 0) == 2:
        return waits
    cluster.job = cluster.jobs_out
    cluster.jobs_out += 1
    control.moved = 1
    tiles.take |= 1 << at
    if job.weights_first:
        weights.take |= 1 << at
    if job.pass_first:
        if job.first_chunk:
            cluster.pass_index = cluster.index
        else:
            cluster.index = cluster.pass_index
    cluster.windows = 0
    cluster.unfinished += 1
    cluster.state = TABLE
    cluster.until = now + TABLE_CYCLES - 1 + job.kernel_rows * job.kernel_columns * job.blocks
    return waits


@njit(**OPTIONS)
def _step_window(run, cluster, job, group):
    """The next position of the window stepper."""
    cluster.window = cluster.turn == group
    cluster.window_row, cluster.window_column = cluster.row, cluster.column
    cluster.turn = (cluster.turn + 1) % run.groups
    cluster.column += 1
    if cluster.column == job.columns:
        cluster.column = 0
        cluster.row += 1
        cluster.walking = cluster.row != job.rows

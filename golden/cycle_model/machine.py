"""All parts together: the clock loop."""
import numpy as np
from numba import njit

from .bus import DESCRIPTOR, FULL, LOG, POOLED, WEIGHT, bus_idle, step_read, step_write
from .control import (
    IDLE,
    READ_REQUEST,
    READ_WORDS,
    SETTLE,
    log_ready,
    step_jobs,
    step_log,
    step_reader,
    step_sequencer,
)
from .group import step_group
from .load import MAP_DEPTH, RECEIVE, loader_idle, loader_ready, step_buffer, step_loader, step_weights
from .post import collector_idle, encoder_idle, pool_idle, step_post
from .state import (
    BUFFER,
    BUS,
    COLLECTOR,
    CONTROL,
    ENCODER,
    GROUP,
    JOB,
    JOBS,
    LOADER,
    OPTIONS,
    POOL,
    PORT,
    WEIGHTS,
)

#: Cycles after which a run without a beat on the bus and without a multiplication is given up.
QUIET_LIMIT = 1 << 22


def simulate(run, layers, words, slots, full_counts, pooled_counts):
    """Run all layers.

    Parameters
    ----------
    run, layers : record arrays (``state.RUN``, one; ``state.LAYER``, one for each layer)
    words, slots, full_counts, pooled_counts : arrays of small integers
        Of all layers, one behind the other: non-zero values of map words and slots of the inputs, and of the slots that
        are written.

    Returns
    -------
    totals : int array [2 * layers, len(TOTALS)]
        What :data:`TOTALS` names, since the start of the run: two rows a layer, when it begins and when it has ended.
    cycles : int
        From start to interrupt; -1 if the run does not end.
    """
    def zeros(kind, count=1):
        return np.zeros(count, kind)

    state = (zeros(CONTROL), zeros(BUS), zeros(PORT, 4), zeros(BUS), zeros(PORT, 3), zeros(LOADER), zeros(WEIGHTS),
             zeros(BUFFER), zeros(BUFFER), zeros(BUFFER), zeros(GROUP, int(run[0]["groups"])), zeros(COLLECTOR),
             zeros(ENCODER), zeros(POOL), zeros(ENCODER), zeros(JOB, JOBS))
    totals = np.zeros((2 * len(layers), len(TOTALS)), np.int64)
    cycles = _clock(run, layers, words, slots, full_counts, pooled_counts, state, totals)
    return totals, cycles


#: Columns of what :func:`simulate` returns.
TOTALS = ("cycle", "read_beats", "write_beats", "lane_cycles", "busy", "stall_output", "stall_tile", "stall_weights",
          "stall_find", "map_reads", "sum_reads", "sum_writes", "weight_beats", "map_words", "value_beats", "unpacked")


@njit(**OPTIONS)
def note(now, row, reads, writes, groups, weights, loader):
    """The totals so far."""
    row[0], row[1], row[2] = now, reads.total, writes.total
    row[12], row[13], row[14], row[15] = (weights.weight_beats, loader.map_words, loader.value_writes,
                                          loader.unpacked)
    for n in range(len(groups)):
        group = groups[n]
        row[3] += group.lane_cycles
        row[4] += group.busy
        row[5] += group.stall_output
        row[6] += group.stall_tile
        row[7] += group.stall_weights
        row[8] += group.stall_find
        row[9] += group.map_reads
        row[10] += group.sum_reads
        row[11] += group.sum_writes


@njit(**OPTIONS)
def all_idle(control, writes, loader, groups, collector, full, pool, pooled):
    """No job is anywhere, and every write has been answered: ``i_idle`` of the sequencer."""
    if control.log or control.load_in != control.load_out or control.collect_in != control.collect_out:
        return False
    for n in range(len(groups)):
        if not groups[n].idle or groups[n].jobs_in != groups[n].jobs_out:
            return False
    return (loader_idle(loader) and collector_idle(collector) and pool_idle(pool) and encoder_idle(full)
            and encoder_idle(pooled) and bus_idle(writes))


@njit(**OPTIONS)
def _begin(run, layer, groups):
    """What the groups know of a layer."""
    for n in range(run.groups):
        group = groups[n]
        group.in_height, group.row_pitch, group.stride = layer.in_height, layer.in_width, layer.stride
        group.block_pitch, group.words_at = layer.in_height * layer.in_width, layer.words_at


@njit(cache=True, **OPTIONS)
def _clock(runs, layers, words, slots, full_counts, pooled_counts, state, totals):
    """The clock loop. Cycle 0 is the one in which the run is started."""
    run = runs[0]
    control, reads, read_ports, writes, write_ports = state[0][0], state[1][0], state[2], state[3][0], state[4]
    loader, weights, tile_buffer, weight_buffer, scale_buffer = (state[5][0], state[6][0], state[7][0], state[8][0],
                                                                 state[9][0])
    groups, collector, full, pool, pooled, jobs = (state[10], state[11][0], state[12][0], state[13][0], state[14][0],
                                                   state[15])
    control.reader, control.layer = READ_REQUEST, -1
    weights.new_layer = -1
    loader.allowed, loader.room = 1, MAP_DEPTH
    reads.address_ready = writes.address_ready = 1
    for port in range(len(read_ports)):
        read_ports[port].ready = 1
    for port in range(len(write_ports)):
        write_ports[port].ready = 1
    for n in range(run.groups):
        groups[n].free, groups[n].scan_ready, groups[n].filter_ready, groups[n].idle = run.capacity, 1, 1, 1
        groups[n].issued = groups[n].issued_before = -16
    now, ended, last_progress = 0, 0, 0
    while True:
        now += 1
        idle = False
        if control.state == IDLE or control.state == SETTLE:
            idle = all_idle(control, writes, loader, groups, collector, full, pool, pooled)
            if idle and ended == run.layers:
                return now
        # The buses.
        offered = reads.beats > 0 and reads.words[(reads.beat_in - reads.beats) & 1, 0] == DESCRIPTOR
        ready = loader_ready(loader) | (weights.state == RECEIVE) << WEIGHT
        if control.reader == READ_WORDS and control.reader_upper:
            ready |= 1 << DESCRIPTOR
        taken = step_read(now, run, reads, read_ports, ready)
        valid = full.valid << FULL | pooled.valid << POOLED | log_ready(control) << LOG
        written = step_write(now, run, writes, write_ports, valid)
        # Control.
        begins = step_reader(run, control, weights, reads, read_ports, offered, idle)
        ends_layer = step_sequencer(run, control, layers, jobs, groups, begins, idle)
        if begins:
            _begin(run, layers[control.layer], groups)
            note(now, totals[2 * control.layer], reads, writes, groups, weights, loader)
        if ends_layer:
            note(now, totals[2 * control.layer + 1], reads, writes, groups, weights, loader)
            ended += 1
        if control.log or ends_layer:
            step_log(run, control, writes, write_ports, written == LOG, ends_layer)
        # The data path.
        step_weights(run, weights, layers, reads, read_ports, weight_buffer, scale_buffer, taken == WEIGHT)
        if control.layer >= 0:
            layer = layers[control.layer]
            step_loader(run, loader, layer, jobs, control, slots, reads, read_ports,
                        tile_buffer, taken)
            for n in range(run.groups):
                if groups[n].wake <= now:
                    step_group(now, n, run, groups[n], control, jobs, words, tile_buffer, weight_buffer)
            step_post(now, run, layer, collector, control, groups, jobs, scale_buffer, full, full_counts, pool, pooled,
                      pooled_counts, writes, write_ports, written)
            tile_buffer.release, tile_buffer.releases[now & 7] = tile_buffer.releases[now & 7], 0
            weight_buffer.release, weight_buffer.releases[now & 7] = weight_buffer.releases[now & 7], 0
        step_buffer(tile_buffer, run.groups)
        step_buffer(weight_buffer, run.groups)
        step_buffer(scale_buffer, 1)
        if control.push_load or control.push_collect or control.push_groups:
            step_jobs(run, control, groups)
        if now & QUIET_LIMIT - 1 == 0:
            progress = reads.total + writes.total
            for n in range(run.groups):
                progress += groups[n].busy
            if progress == last_progress:
                return -1
            last_progress = progress

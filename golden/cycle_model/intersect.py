"""All parts together with the intersect array: its clock loop."""
import numpy as np
from numba import njit

from .bus import DESCRIPTOR, FULL, LOG, POOLED, WEIGHT, step_read, step_write
from .cluster import step_activity, step_cluster, step_joiner, step_unpacker
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
from .element import step_element
from .load import MAP_DEPTH, loader_ready, step_buffer, step_loader
from .machine import QUIET_LIMIT, TOTALS, all_idle, note
from .post import step_post
from .rounds import step_rounds, weights_ready
from .state import (
    BUFFER,
    BUS,
    CLUSTER,
    COLLECTOR,
    CONTROL,
    ELEMENT,
    ENCODER,
    JOB,
    JOBS,
    JOINER,
    LANES,
    LOADER,
    OPTIONS,
    POOL,
    PORT,
    ROUNDS,
)


def simulate_intersect(run, layers, words, slots, full_counts, pooled_counts, operands, beats, weight_words):
    """Run all layers on the intersect array; as :func:`golden.cycle_model.machine.simulate`.

    Parameters
    ----------
    operands : tuple of flat arrays
        Of all layers, one behind the other: ``x_maps``, ``x_values``, ``w_maps``, ``w_values`` of
        :class:`golden.tasks.Operands`, what sums begin with and the thresholds of predictions.
    beats : int array
        Beats of the rounds of each kernel block, of all layers.
    weight_words : int
        Words of a task at most.
    """
    def zeros(kind, count=1):
        return np.zeros(count, kind)

    groups, clusters = (int(run[0][name]) for name in ("groups", "clusters"))
    clusters *= groups
    elements = clusters * int(run[0]["pes"])
    lanes = int(run[0]["cluster_lanes"])
    sums = int(run[0]["sum_windows"]) * lanes
    state = (zeros(CONTROL), zeros(BUS), zeros(PORT, 4), zeros(BUS), zeros(PORT, 3), zeros(LOADER), zeros(ROUNDS),
             zeros(BUFFER), zeros(BUFFER), zeros(BUFFER), zeros(BUFFER), zeros(JOINER, groups),
             zeros(CLUSTER, clusters + 1), zeros(ELEMENT, elements), zeros(COLLECTOR), zeros(ENCODER), zeros(POOL),
             zeros(ENCODER), zeros(JOB, JOBS), np.zeros((clusters, sums), np.int64),
             np.zeros((clusters, sums), np.uint8), np.zeros((clusters, lanes), np.int64),
             np.zeros((elements, 2, weight_words), np.int64), zeros(LANES, int(run[0]["clusters"])))
    totals = np.zeros((2 * len(layers), len(TOTALS)), np.int64)
    cycles = _clock(run, layers, words, slots, full_counts, pooled_counts, operands, beats, state, totals)
    return totals, cycles


@njit(cache=True, **OPTIONS)
def _clock(runs, layers, words, slots, full_counts, pooled_counts, operands, beats, state, totals):
    """The clock loop. Cycle 0 is the one in which the run is started."""
    run = runs[0]
    control, reads, read_ports, writes, write_ports = state[0][0], state[1][0], state[2], state[3][0], state[4]
    loader, weights, packed, tiles = state[5][0], state[6][0], state[7][0], state[8][0]
    weight_buffer, scale_buffer, groups, clusters, elements = state[9][0], state[10][0], state[11], state[12], state[13]
    collector, full, pool, pooled, jobs = state[14][0], state[15][0], state[16][0], state[17][0], state[18]
    sums, marks, left, tasks, loaders = state[19], state[20], state[21], state[22], state[23]
    count = run.groups * run.clusters
    unpacker = clusters[count]
    control.reader, control.layer = READ_REQUEST, -1
    weights.new_layer = -1
    loader.allowed, loader.room = 1, MAP_DEPTH
    reads.address_ready = writes.address_ready = 1
    for port in range(len(read_ports)):
        read_ports[port].ready = 1
    for port in range(len(write_ports)):
        write_ports[port].ready = 1
    for n in range(len(clusters)):
        clusters[n].free, clusters[n].idle = run.sum_windows, 1
    for n in range(len(elements)):
        elements[n].parity = elements[n].opening = 1
    now, ended, last_progress = 0, 0, 0
    while True:
        now += 1
        idle = False
        if control.state == IDLE or control.state == SETTLE:
            idle = all_idle(control, writes, loader, clusters, collector, full, pool, pooled)
            for n in range(run.groups):
                idle = idle and groups[n].step == 0 and groups[n].ends_in == groups[n].ends_out
            if idle and ended == run.layers:
                return now
        # The buses.
        offered = reads.beats > 0 and reads.words[(reads.beat_in - reads.beats) & 1, 0] == DESCRIPTOR
        ready = loader_ready(loader) | weights_ready(weights) << WEIGHT
        if control.reader == READ_WORDS and control.reader_upper:
            ready |= 1 << DESCRIPTOR
        taken = step_read(now, run, reads, read_ports, ready)
        valid = full.valid << FULL | pooled.valid << POOLED | log_ready(control) << LOG
        written = step_write(now, run, writes, write_ports, valid)
        # Control.
        begins = step_reader(run, control, weights, reads, read_ports, offered, idle)
        ends_layer = step_sequencer(run, control, layers, jobs, clusters, begins, idle)
        if begins:
            note(now, totals[2 * control.layer], reads, writes, groups, weights, loader)
        if ends_layer:
            note(now, totals[2 * control.layer + 1], reads, writes, groups, weights, loader)
            ended += 1
        if control.log or ends_layer:
            step_log(run, control, writes, write_ports, written == LOG, ends_layer)
        # The data path.
        step_rounds(run, weights, loaders, layers, reads, read_ports, weight_buffer, scale_buffer, operands[2], beats,
                    taken == WEIGHT)
        if control.layer >= 0:
            layer = layers[control.layer]
            step_loader(run, loader, layer, jobs, control, slots, reads, read_ports, packed, taken)
            step_post(now, run, layer, collector, control, groups, jobs, scale_buffer, full, full_counts, pool, pooled,
                      pooled_counts, writes, write_ports, written)
            step_unpacker(now, run, layer, unpacker, loader, control, jobs, words, packed, tiles)
            for n in range(run.groups):
                step_joiner(run, groups[n], clusters[n * run.clusters:(n + 1) * run.clusters])
            for n in range(count):
                if clusters[n].wake <= now:
                    own = elements[n * run.pes:(n + 1) * run.pes]
                    step_cluster(now, n, run, layer, clusters[n], groups[n // run.clusters], own, control, jobs, tiles,
                                 weight_buffer, operands, (sums[n], marks[n], left[n],
                                                           tasks[n * run.pes:(n + 1) * run.pes]))
            for n in range(run.groups):
                step_activity(run, groups[n], clusters[n * run.clusters:(n + 1) * run.clusters])
            for n in range(len(elements)):
                if elements[n].wake <= now:
                    cluster = n // run.pes
                    step_element(now, elements[n], tasks[n], clusters[cluster], groups[cluster // run.clusters])
        if tiles.filled or weight_buffer.filled:
            for n in range(count):
                clusters[n].wake = 0
        step_buffer(packed, 1)
        step_buffer(tiles, count)
        step_buffer(weight_buffer, count)
        step_buffer(scale_buffer, 1)
        if control.push_load or control.push_collect or control.push_groups:
            step_jobs(run, control, clusters)
        if now & QUIET_LIMIT - 1 == 0:
            progress = reads.total + writes.total
            for n in range(run.groups):
                progress += groups[n].busy
            if progress == last_progress:
                return -1
            last_progress = progress

"""Descriptors, the loops over jobs, the log. RTL: hw/control/, hw/accelerator.py."""
from numba import njit

from hw.config import ROUND_PHASES, SEGMENT
from hw.descriptor import DESCRIPTOR_BYTES
from hw.registers import LOG_BYTES

from .bus import DESCRIPTOR, LOG, ask
from .load import PLAN_IDLE
from .state import JOB_DEPTH, JOBS, OPTIONS

READ_IDLE, READ_REQUEST, READ_WORDS, READ_CHECK, READ_SEND = range(5)
#: Cycles from the last beat of a descriptor to its offer: taps, chunk, check, report, keep.
CHECK_CYCLES = 5
IDLE, LAYER, PREPARE, COMPUTE, CHECK, OFFER, ADVANCE, SETTLE = range(8)
#: hw/control/tile_geometry.py, ``LATENCY``; hw/control/sequencer.py, ``SETTLE``.
GEOMETRY_LATENCY, SETTLE_CYCLES = 8, 8
LOAD_JOB, GROUP_JOB, COLLECT_JOB = 1, 2, 4


@njit(**OPTIONS)
def step_reader(run, control, weights, bus, ports, beat, idle):
    """A cycle of the descriptor reader. ``beat``: one is offered to it. Returns whether the sequencer takes a layer."""
    if control.reader == READ_REQUEST:
        if ports[DESCRIPTOR].ready:
            place = run.descriptor_address // 8 + control.offered * (DESCRIPTOR_BYTES // 8)
            ask(bus, ports[DESCRIPTOR], place, DESCRIPTOR_BYTES // 8)
            control.reader, control.reader_beat, control.reader_upper = READ_WORDS, 0, 0
    elif control.reader == READ_WORDS:
        if beat:
            control.reader_beat += control.reader_upper
            control.reader_upper ^= 1
            if control.reader_beat == DESCRIPTOR_BYTES // 8:
                control.reader, control.reader_wait = READ_CHECK, CHECK_CYCLES
    elif control.reader == READ_CHECK:
        control.reader_wait -= 1
        if control.reader_wait == 0:
            control.reader = READ_SEND
    elif control.reader == READ_SEND:
        begins = not control.served & 1 and control.state == IDLE and idle
        if not control.served & 2 and weights.planner == PLAN_IDLE:
            weights.new_layer = control.offered
            control.served |= 2
        if begins:
            control.served |= 1
        if control.served == 3:
            control.served = 0
            control.offered += 1
            control.reader = READ_IDLE if control.offered == run.layers else READ_REQUEST
        return begins
    return False


@njit(**OPTIONS)
def step_sequencer(run, control, layers, jobs, groups, begins, idle):
    """A cycle of the sequencer. Pushes of jobs are noted for the end of the cycle. Returns whether a layer ends."""
    state = control.state
    if state == IDLE:
        if begins:
            control.state = LAYER
            control.layer += 1
        return False
    if state == ADVANCE and not control.moved:
        return False
    layer = layers[control.layer]
    control.wait -= 1
    if state == LAYER:
        control.channels_done = control.channel = control.row = control.tile = 0
        control.y = control.x = control.pass_y = control.pass_x = 0
        control.state = PREPARE
    elif state == PREPARE:
        control.wait = GEOMETRY_LATENCY + 1
        control.state = COMPUTE
    elif state == COMPUTE:
        if control.wait < 0:
            control.state = CHECK
    elif state == CHECK:
        control.state = OFFER
    elif state == OFFER:
        _make_job(run, control, layer, jobs[control.jobs_in % JOBS])
        control.pending = LOAD_JOB | GROUP_JOB | COLLECT_JOB * jobs[control.jobs_in % JOBS].last_chunk
        control.state, control.moved = ADVANCE, 1
    elif state == ADVANCE:
        # Nothing changes before a queue has given out a job.
        control.moved = 0
        _offer(run, control, groups)
        if not control.pending:
            done = _advance(run, control, layer, jobs[control.jobs_in % JOBS])
            control.jobs_in += 1
            control.wait = SETTLE_CYCLES
            control.state = SETTLE if done else PREPARE
    elif not idle:
        control.wait = SETTLE_CYCLES
    elif control.wait < 0:
        control.state = IDLE
        return True
    return False


@njit(**OPTIONS)
def _offer(run, control, groups):
    """Jobs to the queues that have room; ``groups``: all that have one for group jobs."""
    if control.pending & LOAD_JOB and control.load_in - control.load_out < JOB_DEPTH:
        control.push_load = 1
        control.pending &= ~LOAD_JOB
    if control.pending & COLLECT_JOB and control.collect_in - control.collect_out < JOB_DEPTH:
        control.push_collect = 1
        control.pending &= ~COLLECT_JOB
    if control.pending & GROUP_JOB:
        for n in range(len(groups)):
            if not control.group_served >> n & 1 and groups[n].jobs_in - groups[n].jobs_out < JOB_DEPTH:
                control.push_groups |= 1 << n
        control.group_served |= control.push_groups
        if control.group_served == (1 << len(groups)) - 1:
            control.group_served = 0
            control.pending &= ~GROUP_JOB


@njit(**OPTIONS)
def step_jobs(run, control, groups):
    """What was pushed in this cycle is in the queues from the next one on; a group that sleeps wakes up."""
    if control.push_load:
        control.load_in += 1
    if control.push_collect:
        control.collects[control.collect_in % JOBS] = control.job_ready
        control.collect_in += 1
    for n in range(len(groups)):
        if control.push_groups >> n & 1:
            groups[n].jobs_in += 1
            groups[n].wake = 0
    control.push_load = control.push_collect = control.push_groups = 0


@njit(**OPTIONS)
def _make_job(run, control, layer, job):
    """The tile and chunk of the loop variables (golden/README.md, "Tile geometry")."""
    y, x = control.y, control.x
    job.rows = min(layer.tile_rows + layer.tile_overlap, layer.out_height - y)
    job.columns = min(layer.tile_columns + layer.tile_overlap, layer.out_width - x)
    job.y, job.x = y, x
    job.kernel_rows, job.kernel_columns = min(layer.kernel_rows - control.row, layer.chunk_rows), layer.kernel_columns
    job.row_first = y * layer.stride - layer.pad_top + control.row
    job.column_first = x * layer.stride - layer.pad_left
    row_end = min(layer.in_height, job.row_first + (job.rows - 1) * layer.stride + job.kernel_rows)
    column_end = min(layer.in_width, job.column_first + (job.columns - 1) * layer.stride + job.kernel_columns)
    job.row = max(0, job.row_first)
    job.segment = max(0, job.column_first) // SEGMENT
    job.in_rows, job.segments = max(0, row_end - job.row), (column_end - 1) // SEGMENT - job.segment + 1
    if column_end <= max(0, job.column_first):
        job.in_rows = 0
    channels = min(layer.in_channels - control.channel, layer.chunk_channels)
    job.block, job.blocks = control.channel // run.block, (channels + run.block - 1) // run.block
    job.lanes = min(layer.out_channels - control.channels_done, run.lanes)
    job.words = (job.lanes + run.block - 1) // run.block * run.block_words
    job.out_block = control.channels_done // run.block
    job.phase, job.kernel_row = control.phase, control.row
    job.joined = layer.joined if control.phase + layer.joined + 1 == layer.phases else 0
    job.stop_part = max(0, layer.stop_phase - control.phase) if layer.stop_phase else ROUND_PHASES
    job.stop = job.stop_part == 0
    job.first_chunk = control.channel == 0 and control.row == 0 and control.phase == 0
    control.last_rows = layer.kernel_rows - control.row <= layer.chunk_rows
    control.last_channels = layer.in_channels - control.channel <= layer.chunk_channels
    job.predict = layer.predict and control.last_rows and control.last_channels and control.phase == 0
    job.last_chunk = control.last_rows and control.last_channels and control.phase + layer.joined + 1 == layer.phases
    single = (layer.chunk_channels >= layer.in_channels and layer.chunk_rows >= layer.kernel_rows
              and layer.phases == layer.joined + 1)
    control.map_end = (y + layer.tile_rows + layer.tile_overlap >= layer.out_height
                       and x + layer.tile_columns + layer.tile_overlap >= layer.out_width)
    control.pass_end = control.map_end or control.tile == layer.tiles_per_pass - 1
    job.pass_first = control.tile == 0
    job.scales_first, job.scales_last = y == 0 and x == 0, control.map_end
    job.weights_first = job.scales_first if single else job.pass_first
    job.weights_last = control.map_end if single else control.pass_end
    control.job_ready = control.jobs_in


@njit(**OPTIONS)
def _advance(run, control, layer, job):
    """Step the loops: tile, row chunk, channel chunk, phase, pass, kernel block. Returns whether the layer has no
    more."""
    y, x = control.y, control.x + layer.tile_columns
    if x + layer.tile_overlap >= layer.out_width:
        y, x = y + layer.tile_rows, 0
    control.tile += 1
    control.y, control.x = y, x
    if not control.pass_end:
        return False
    control.tile, control.y, control.x = 0, control.pass_y, control.pass_x
    control.row += job.kernel_rows
    if control.last_rows:
        control.row = 0
        control.channel += min(layer.in_channels - control.channel, layer.chunk_channels)
        if control.last_channels:
            control.channel = 0
            control.phase += 1
    if not job.last_chunk:
        return False
    control.phase = 0
    control.y, control.x, control.pass_y, control.pass_x = y, x, y, x
    if not control.map_end:
        return False
    control.y = control.x = control.pass_y = control.pass_x = 0
    control.channels_done += job.lanes
    return control.channels_done == layer.out_channels


@njit(**OPTIONS)
def log_ready(control):
    """Whether the log writer has a beat."""
    return control.log and not control.log_asking


@njit(**OPTIONS)
def step_log(run, control, bus, ports, taken, ends):
    """A cycle of the log writer; ``ends``: a layer does."""
    if taken:
        control.log_beat += 1
        if control.log_beat == LOG_BYTES // 8:
            control.log = 0
    if control.log_asking and ports[LOG].ready:
        ask(bus, ports[LOG], (run.log_address + control.layer * LOG_BYTES) // 8, LOG_BYTES // 8)
        control.log_asking = 0
    if ends and run.log_address:
        control.log, control.log_asking, control.log_beat = 1, 1, 0

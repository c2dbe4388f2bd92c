"""Double buffers and what fills them. RTL: hw/buffer/, hw/decode/."""
from numba import njit

from hw.config import SEGMENT

from .bus import MAP, VALUE, WEIGHT, ask
from .state import JOBS, OPTIONS
from .state import SLOTS as RING

#: hw/decode/slot_walker.py, ``SLOTS``; hw/decode/tile_loader.py, ``VALUE_SLOTS``, ``MAP_DEPTH``.
SLOTS, VALUE_SLOTS, MAP_DEPTH = 32, 32, 64

WALK_IDLE, ROW, COLUMN, BLOCK, START, WALK, ADVANCE, NONE = range(8)
LOAD_START, LOAD, FINISH, LOAD_FILLED = range(4)
PLAN_IDLE, PLAN, OFFER, PLAN_FINISH = range(4)
REQUEST, RECEIVE, WRITE, FILLED = range(4)


@njit(**OPTIONS)
def is_free(buffer):
    """The half to be filled next is free."""
    return (buffer.unreleased1 if buffer.fill_half else buffer.unreleased0) == 0


@njit(**OPTIONS)
def is_full(buffer, consumer):
    """There is a filled half that ``consumer`` has not taken."""
    return (buffer.untaken1 if buffer.half >> consumer & 1 else buffer.untaken0) >> consumer & 1


@njit(**OPTIONS)
def step_buffer(buffer, consumers):
    """The pulses of this cycle take effect."""
    take, release = buffer.take, buffer.release
    if not (buffer.filled or take or release):
        return
    taking1, releasing1 = take & buffer.half, release & buffer.release_half
    buffer.untaken0 &= ~(take & ~buffer.half)
    buffer.untaken1 &= ~taking1
    buffer.unreleased0 &= ~(release & ~buffer.release_half)
    buffer.unreleased1 &= ~releasing1
    buffer.half ^= take
    buffer.release_half ^= release
    if buffer.filled:
        if buffer.fill_half:
            buffer.untaken1 = buffer.unreleased1 = (1 << consumers) - 1
        else:
            buffer.untaken0 = buffer.unreleased0 = (1 << consumers) - 1
        buffer.fill_half ^= 1
    buffer.filled = buffer.take = buffer.release = 0


@njit(**OPTIONS)
def loader_idle(loader):
    """No job is in progress."""
    return loader.state == LOAD_START and loader.walk == WALK_IDLE and loader.slots_in == loader.slots_out


@njit(**OPTIONS)
def loader_ready(loader):
    """Clients of the loader that take a beat in this cycle, as bits."""
    ready = (loader.inner != MAP_DEPTH - 1) << MAP
    if loader.values_in != loader.values_out and loader.values[loader.values_out % RING, 0]:
        ready |= 1 << VALUE
    return ready


@njit(**OPTIONS)
def step_loader(run, loader, layer, jobs, control, counts, bus, ports, tiles, taken):
    """A cycle of the tile loader, from its end to its beginning. ``taken``: the client that took a beat."""
    waiting = loader.values_in - loader.values_out
    done = loader.done
    loader.done = 0
    if waiting:
        _read_values(loader, taken == VALUE)
    counted = loader.counted
    _request_values(run, loader, bus, ports, waiting)
    stalls = loader.word2 == 2 and counted
    if not stalls:
        if loader.word2 == 2:
            loader.counted, loader.counted_slot = 1, loader.word2_slot
        loader.word2, loader.word2_slot = loader.word1, loader.word1_slot
        loader.word1 = 0
    beat, place = loader.beat, loader.place
    fire = took = False
    if loader.state == LOAD and place and beat:
        fire, took = _read_word(run, loader, layer, not stalls)
    slot_ends = fire and loader.pixel == SEGMENT - 1
    if fire:
        loader.word1, loader.word1_slot = 1 + slot_ends, loader.slots_out
        loader.pixel = (loader.pixel + 1) % SEGMENT
        loader.map_words += 1
    stored = loader.slots_in - loader.slots_out - place
    _control(loader, tiles, slot_ends, done)
    if stored and place < 2:
        loader.place += 1
    # The queue of beats has its word at the output in a register of its own.
    moves = loader.queue and beat < 2
    inner = loader.inner > 0 and (not loader.queue or beat < 2)
    loader.beat = beat + moves - took
    loader.inner += (taken == MAP) - inner
    if inner:
        loader.queue = 1
    elif beat < 2:
        loader.queue = 0
    _walk(loader, layer, jobs, control, counts, bus, ports, stored, moves)


@njit(**OPTIONS)
def _read_values(loader, taken):
    """ValueReader."""
    head = loader.values_out % RING
    if loader.values[head, 0]:
        if not taken:
            return
        loader.value_writes += 1
        loader.value_beat += 1
        if loader.value_beat != loader.values[head, 0]:
            return
        loader.value_beat = 0
    loader.values_out += 1
    loader.done = loader.values[head, 1]


@njit(**OPTIONS)
def _request_values(run, loader, bus, ports, waiting):
    """The request for the values of a slot that has been counted."""
    requests = loader.value_request
    if requests and ports[VALUE].ready:
        ask(bus, ports[VALUE], loader.value_place, loader.value_beats)
        loader.value_request = 0
    if loader.counted and waiting < VALUE_SLOTS:
        slot = loader.counted_slot % RING
        number, last = loader.slots[slot, 0], loader.slots[slot, 1]
        if number and requests:
            return
        loader.counted = 0
        beats = (number + run.values_per_beat - 1) // run.values_per_beat
        if number or last:
            loader.values[loader.values_in % RING, 0], loader.values[loader.values_in % RING, 1] = beats, last
            loader.values_in += 1
        if number:
            loader.value_request, loader.value_place = 1, loader.slots[slot, 3] + run.map_beats
            loader.value_beats = beats


@njit(**OPTIONS)
def _read_word(run, loader, layer, ready):
    """MapReader, DenseReader. Returns whether a word is given out and whether its beat is done with."""
    if not layer.dense_in:
        if not ready:
            return False, False
        loader.part += 1
        if loader.part * run.block == 64:
            loader.part = 0
            return True, True
        return True, False
    channels = 1 << layer.dense_shift
    if channels <= run.values_per_beat:
        pixels = min(SEGMENT, run.values_per_beat // channels)
        ends = loader.pixel % pixels == pixels - 1
        loader.value_writes += ready and ends
        return ready, ready and ends
    complete = loader.gathered == channels // run.values_per_beat - 1
    if complete and not ready:
        return False, False
    loader.gathered = 0 if complete else loader.gathered + 1
    loader.value_writes += 1
    return complete, True


@njit(**OPTIONS)
def _control(loader, tiles, slot_ends, done):
    """Tile by tile."""
    head = loader.slots_out % RING
    if loader.state == LOAD_START:
        if loader.place and is_free(tiles):
            loader.state = LOAD
            if loader.slots[head, 2]:
                loader.state = LOAD_FILLED
                loader.slots_out += 1
                loader.place -= 1
    elif loader.state == LOAD:
        if slot_ends:
            if loader.slots[head, 1]:
                loader.state = FINISH
            loader.slots_out += 1
            loader.place -= 1
    elif loader.state == FINISH:
        if done:
            loader.state = LOAD_FILLED
    else:
        tiles.filled = 1
        loader.state = LOAD_START


@njit(**OPTIONS)
def _walk(loader, layer, jobs, control, counts, bus, ports, stored, moves):
    """SlotWalker."""
    requests, allowed = loader.request, loader.allowed
    loader.allowed = loader.room >= layer.dense_beats
    loader.room += moves
    if requests and ports[MAP].ready:
        ask(bus, ports[MAP], loader.request_place, layer.dense_beats)
        loader.request = 0
    job = jobs[loader.job % JOBS]
    if loader.walk == WALK_IDLE:
        if control.load_in != control.load_out:
            loader.job = control.load_out
            control.load_out += 1
            control.moved = 1
            loader.walk = ROW
    elif loader.walk == WALK:
        if allowed and stored < SLOTS and not requests:
            loader.room -= layer.dense_beats
            loader.request = 1
            loader.request_place = (layer.in_address + (job.row + loader.row) * layer.in_row_bytes
                                    + (job.segment + loader.segment) * layer.in_segment_bytes
                                    + (job.block + loader.block) * layer.in_block_bytes) % (1 << 32) // 8
            _store_slot(loader, layer, job, counts)
    elif loader.walk == ADVANCE:
        loader.walk = WALK
    elif loader.walk == NONE:
        if stored < SLOTS:
            _store(loader, 0, 1, 1)
            loader.walk = WALK_IDLE
    elif loader.walk == ROW and not (job.in_rows and job.segments and job.blocks):
        loader.walk = NONE
    else:
        loader.block = loader.row = loader.segment = 0
        loader.walk += 1


@njit(**OPTIONS)
def _store(loader, number, last, none):
    place, slots = loader.slots_in % RING, loader.slots
    slots[place, 0], slots[place, 1], slots[place, 2], slots[place, 3] = number, last, none, loader.request_place
    loader.slots_in += 1


@njit(**OPTIONS)
def _store_slot(loader, layer, job, counts):
    """The slot that is requested, and the step to the next: segment, row, block."""
    at = (((job.block + loader.block) * layer.in_height + job.row + loader.row) * layer.in_segments + job.segment
          + loader.segment)
    number = 0 if layer.dense_in else counts[layer.slots_at + at]
    loader.segment += 1
    if loader.segment == job.segments:
        loader.segment = 0
        loader.row += 1
        if loader.row == job.in_rows:
            loader.row = 0
            loader.block += 1
    last = loader.block == job.blocks
    _store(loader, number, last, 0)
    loader.walk = WALK_IDLE if last else ADVANCE


@njit(**OPTIONS)
def step_weights(run, weights, layers, bus, ports, buffer, scales, taken):
    """A cycle of the weight loader."""
    idle = weights.state == REQUEST
    offered = weights.planner == OFFER
    if weights.planner == PLAN:
        weights.wait -= 1
        if weights.wait == 0:
            weights.planner = OFFER
    elif weights.planner == PLAN_FINISH:
        if idle:
            weights.planner = PLAN_IDLE
    elif weights.planner == PLAN_IDLE and weights.new_layer >= 0:
        weights.layer, weights.new_layer = weights.new_layer, -1
        layer = layers[weights.layer]
        weights.place, weights.left_lanes = layer.weight_address // 8, layer.out_channels
        _plan_scales(run, weights, 2)
    if idle:
        if offered and ports[WEIGHT].ready and is_free(scales if weights.scales else buffer):
            ask(bus, ports[WEIGHT], weights.place, weights.beats)
            weights.state, weights.left_beats, weights.now_scales = RECEIVE, weights.beats, weights.scales
            _plan_next(run, weights, layers[weights.layer])
    elif weights.state == RECEIVE:
        if taken:
            weights.left_beats -= 1
            weights.weight_beats += not weights.now_scales
            if weights.left_beats == 0:
                weights.state = WRITE
    elif weights.state == WRITE:
        weights.state = FILLED
    else:
        if weights.now_scales:
            scales.filled = 1
        else:
            buffer.filled = 1
        weights.state = REQUEST


@njit(**OPTIONS)
def _plan_scales(run, weights, wait):
    lanes = min(weights.left_lanes, run.lanes)
    weights.scales, weights.beats = 1, (lanes + run.block - 1) // run.block * 2 * run.block
    weights.planner, weights.wait = PLAN, wait


@njit(**OPTIONS)
def _plan_chunk(run, weights, layer, wait):
    lanes = min(weights.left_lanes, run.lanes)
    words = (min(weights.left_rows, layer.chunk_rows) * layer.kernel_columns
             * min(weights.left_channels, layer.chunk_channels))
    weights.scales, weights.beats = 0, words * ((lanes + run.values_per_beat - 1) // run.values_per_beat)
    weights.planner, weights.wait = PLAN, wait


@njit(**OPTIONS)
def _plan_next(run, weights, layer):
    """WeightPlanner: the part after the one that is being requested, and the cycles until it is offered."""
    weights.place += weights.beats
    rows, channels = min(weights.left_rows, layer.chunk_rows), min(weights.left_channels, layer.chunk_channels)
    lanes = min(weights.left_lanes, run.lanes)
    if weights.scales:
        weights.first_chunk, weights.left_passes = weights.place, layer.passes
        weights.left_rows, weights.left_channels = layer.kernel_rows, layer.in_channels
        _plan_chunk(run, weights, layer, 6)
    elif weights.left_rows != rows:
        weights.left_rows -= rows
        _plan_chunk(run, weights, layer, 5)
    elif weights.left_channels != channels:
        weights.left_rows = layer.kernel_rows
        weights.left_channels -= channels
        _plan_chunk(run, weights, layer, 5)
    elif weights.left_passes != 1 and not (rows == layer.kernel_rows and channels == layer.in_channels):
        weights.left_rows, weights.left_channels = layer.kernel_rows, layer.in_channels
        weights.place = weights.first_chunk
        weights.left_passes -= 1
        _plan_chunk(run, weights, layer, 6)
    elif weights.left_lanes != lanes:
        weights.left_lanes -= lanes
        _plan_scales(run, weights, 3)
    else:
        weights.planner = PLAN_FINISH

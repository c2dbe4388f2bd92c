"""The weight loader of the intersect array. RTL: hw/array/intersect/weight_loader.py, round_loader.py, unpack.py."""
from numba import njit

from golden.tasks import count_ones
from hw.config import BEAT

from .bus import WEIGHT, ask
from .load import PLAN_IDLE, is_free
from .state import OPTIONS

#: hw/array/intersect/weight_loader.py, ``ImageReader``.
QUEUE_BEATS, REQUEST_BEATS = 64, 16
#: hw/array/intersect/weight_loader.py, ``LANE_BEATS``.
LANE_BEATS = 64
READ_IDLE, KERNELS, REQUEST, RECEIVE, WRITE, FILLED, PASS, ROUNDS, ADVANCE = range(9)
WALK_IDLE, WALK, OFFER, WALK_FINISH = range(4)
#: Cycles from a layer, and from a round that is taken, to the next round.
LAYER_WALK, ROUND_WALK, PHASE_WALK, PASS_WALK, KERNEL_WALK = 7, 5, 6, 7, 8
LOAD_IDLE, START, MAPS, READ, VALUES, DRAIN = range(6)
SPLIT_IDLE, SPLIT_START, SPLIT_MAPS, SPLIT_VALUES = range(4)
#: Values of a beat.
GROUP = 8


@njit(**OPTIONS)
def weights_ready(weights):
    """Whether the loader takes a beat."""
    return weights.state == RECEIVE or weights.inner != QUEUE_BEATS - 1


@njit(**OPTIONS)
def step_rounds(run, weights, loaders, layers, bus, ports, buffer, scales, maps, beats, taken):
    """A cycle of the weight loader. ``loaders``: of each cluster; ``maps``: phase maps of all layers; ``beats``: of the
    rounds of each kernel block."""
    arrived = weights.ahead == weights.inner + weights.out
    room = weights.ahead <= QUEUE_BEATS - REQUEST_BEATS
    loading, offered, out = weights.loading, weights.walker == OFFER, weights.out
    receives = weights.state == RECEIVE
    loads = offered and not loading and is_free(buffer)
    popped = False
    if loads:
        _take_round(run, weights, loaders, layers[weights.walk_layer])
        weights.loading = 1
    elif loading:
        done = weights.split == SPLIT_IDLE
        for n in range(run.clusters):
            done = done and loaders[n].state == LOAD_IDLE
        if done:
            buffer.filled = 1
            weights.loading = 0
        else:
            popped = _step_loaders(run, weights, loaders, maps, out)
    _walk(run, weights, layers, loads, not loading)
    if popped:
        weights.ahead -= 1
    # The queue has its word at the output in a register of its own.
    refills = weights.inner > 0 and (not out or popped)
    weights.out = 1 if refills else out and not popped
    weights.inner += (taken and not receives) - refills
    _read(run, weights, layers, bus, ports, scales, beats, taken and receives, arrived, room)
    weights.planner = PLAN_IDLE if weights.walker == WALK_IDLE and weights.state == READ_IDLE else PLAN_IDLE + 1
    weights.new_layer = -1


@njit(**OPTIONS)
def _take_round(run, weights, loaders, layer):
    """The round that the walker offers, to the splitter and all loaders."""
    weights.split, weights.split_lane, weights.now_lanes = SPLIT_START, 0, weights.lanes
    weights.words, weights.now_maps = weights.offer_words, weights.maps
    taps = layer.kernel_columns * layer.in_blocks
    weights.now_blocks, weights.all_blocks = weights.blocks, layer.in_blocks
    weights.lane_words = layer.kernel_rows * taps
    weights.map_pitch = layer.out_channels * weights.lane_words
    weights.map_at = (layer.maps_at
                      + (weights.phase * layer.out_channels + weights.first_lane) * weights.lane_words
                      + weights.row * taps + weights.block)
    for n in range(run.clusters):
        loaders[n].slot, loaders[n].slots = 0, (weights.lanes + run.clusters - 1 - n) // run.clusters
        loaders[n].state = START if loaders[n].slots else LOAD_IDLE


@njit(**OPTIONS)
def _step_loaders(run, weights, loaders, maps, beat):
    """LaneSplitter, and for each cluster its queue and RoundLoader. Returns whether ``beat`` is taken."""
    cluster = weights.split_lane % run.clusters
    popped = _split(run, weights, maps, beat and loaders[cluster].inner != LANE_BEATS - 1)
    for n in range(run.clusters):
        loader = loaders[n]
        out, took = loader.out, False
        if loader.state != LOAD_IDLE:
            took = _load(weights, loader, n, run, maps, out)
        refills = loader.inner > 0 and (not out or took)
        loader.out = 1 if refills else out and not took
        loader.inner += (popped and n == cluster) - refills
    return popped


@njit(**OPTIONS)
def _split(run, weights, maps, beat):
    """LaneSplitter. ``beat``: one is there, and its cluster has room for it. Returns whether it passes."""
    state, ends = weights.split, False
    passes = beat and state != SPLIT_IDLE
    if state == SPLIT_START:
        weights.split_maps = weights.words * weights.now_maps
        if passes:
            weights.split = SPLIT_MAPS
    elif state == SPLIT_MAPS:
        if passes:
            weights.split_maps -= BEAT // run.block
            if weights.split_maps <= 0:
                weights.split, weights.split_values = SPLIT_VALUES, 0
                for word in range(weights.words):
                    weights.split_values += count_ones(_bits(weights, maps, weights.split_lane, word))
    elif state == SPLIT_VALUES:
        passes = beat and weights.split_values > 0
        ends = weights.split_values == 0 or passes and weights.split_values <= GROUP
        if passes:
            weights.split_values -= GROUP
    if ends:
        weights.split_lane += 1
        weights.split = SPLIT_IDLE if weights.split_lane == weights.now_lanes else SPLIT_START
    return passes


@njit(**OPTIONS)
def _bits(weights, maps, lane, word):
    """The maps of all phases of the round together."""
    at = (weights.map_at + lane * weights.lane_words
          + word // weights.now_blocks * weights.all_blocks + word % weights.now_blocks)
    bits = maps[at]
    for phase in range(1, weights.now_maps):
        bits |= maps[at + phase * weights.map_pitch]
    return bits


@njit(**OPTIONS)
def _single(layer):
    return (layer.phases == layer.joined + 1 and layer.chunk_rows >= layer.kernel_rows
            and layer.chunk_channels >= layer.in_channels)


@njit(**OPTIONS)
def _read(run, weights, layers, bus, ports, scales, beats, taken, arrived, room):
    """ImageReader."""
    state = weights.state
    layer = layers[weights.layer]
    if state == READ_IDLE:
        if weights.new_layer >= 0:
            weights.layer = weights.new_layer
            weights.left, weights.kernel = layers[weights.layer].out_channels, 0
            weights.place = layers[weights.layer].weight_address // (BEAT // 8)
            weights.state = KERNELS
    elif state == KERNELS:
        weights.passes = 1 if _single(layer) else layer.passes
        weights.state = REQUEST
    elif state == REQUEST:
        if arrived and ports[WEIGHT].ready and is_free(scales):
            weights.beats = (min(weights.left, run.lanes) + run.block - 1) // run.block * 2 * run.block
            ask(bus, ports[WEIGHT], weights.place, weights.beats + 1)
            weights.place += weights.beats + 1
            weights.header, weights.state = 1, RECEIVE
    elif state == RECEIVE:
        if taken and weights.header:
            weights.header = 0
        elif taken:
            weights.beats -= 1
            if weights.beats == 0:
                weights.state = WRITE
    elif state == WRITE:
        weights.rounds_at = weights.place
        weights.state = FILLED
    elif state == FILLED:
        scales.filled = 1
        weights.state = PASS
    elif state == PASS:
        weights.place, weights.beats = weights.rounds_at, beats[layer.beats_at + weights.kernel]
        weights.state = ROUNDS
    elif state == ROUNDS:
        if weights.beats == 0:
            weights.state = ADVANCE
        elif room and ports[WEIGHT].ready:
            count = min(weights.beats, REQUEST_BEATS)
            ask(bus, ports[WEIGHT], weights.place, count)
            weights.place += count
            weights.beats -= count
            weights.ahead += count
    elif weights.passes != 1:
        weights.passes -= 1
        weights.state = PASS
    elif weights.left > run.lanes:
        weights.left -= run.lanes
        weights.kernel += 1
        weights.state = KERNELS
    else:
        weights.state = READ_IDLE


@njit(**OPTIONS)
def _walk(run, weights, layers, taken, idle):
    """RoundWalker."""
    if weights.walker == WALK:
        weights.wait -= 1
        if weights.wait == 0:
            weights.walker = OFFER
    elif weights.walker == WALK_FINISH:
        if idle:
            weights.walker = WALK_IDLE
    elif weights.walker == WALK_IDLE:
        if weights.new_layer >= 0:
            weights.walk_layer = weights.new_layer
            layer = layers[weights.walk_layer]
            weights.first_lane, weights.phase, weights.channel, weights.row = 0, 0, 0, 0
            weights.left_passes = 1 if _single(layer) else layer.passes
            _offer(run, weights, layer, LAYER_WALK)
    elif taken:
        _advance(run, weights, layers[weights.walk_layer])


@njit(**OPTIONS)
def _offer(run, weights, layer, cycles):
    """The round of the loop variables, in ``cycles`` cycles."""
    weights.walker, weights.wait = WALK, cycles - 1
    channels = min(layer.in_channels - weights.channel, layer.chunk_channels)
    weights.block, weights.blocks = weights.channel // run.block, (channels + run.block - 1) // run.block
    weights.rows = min(layer.kernel_rows - weights.row, layer.chunk_rows)
    weights.lanes = min(layer.out_channels - weights.first_lane, run.lanes)
    weights.offer_words = weights.rows * layer.kernel_columns * weights.blocks
    weights.maps = layer.joined + 1 if weights.phase + layer.joined + 1 == layer.phases else 1


@njit(**OPTIONS)
def _advance(run, weights, layer):
    """The next round of the innermost loop that has one."""
    cycles = ROUND_WALK
    weights.row += weights.rows
    if weights.row == layer.kernel_rows:
        weights.row = 0
        weights.channel += layer.chunk_channels
        if weights.channel >= layer.in_channels:
            weights.channel = 0
            weights.phase += 1
            cycles = PHASE_WALK
            if weights.phase + layer.joined == layer.phases:
                weights.phase = 0
                weights.left_passes -= 1
                cycles = PASS_WALK
                if weights.left_passes == 0:
                    weights.left_passes = 1 if _single(layer) else layer.passes
                    weights.first_lane += weights.lanes
                    cycles = KERNEL_WALK
                    if weights.first_lane == layer.out_channels:
                        weights.walker = WALK_FINISH
                        return
    _offer(run, weights, layer, cycles)


@njit(**OPTIONS)
def _load(weights, loader, cluster, run, maps, beat):
    """RoundLoader, not idle, with the unpacker of its values. ``beat``: one is there. Returns whether it is taken."""
    state, empty = loader.state, not loader.mask and not loader.unpack
    unpacks = loader.unpack and (not loader.needs or beat)
    popped = unpacks and loader.needs
    takes_mask = not loader.unpack or unpacks
    step, filled = not loader.mask or takes_mask, loader.unpacked
    loader.unpacked = unpacks
    if takes_mask:
        loader.unpack = loader.mask
        if loader.mask:
            count = loader.mask_count
            loader.needs = count > loader.left_values
            loader.left_values = 0 if loader.mask_last else (loader.left_values - count) % GROUP
    if step:
        loader.mask = 0
    if state == START:
        loader.word = loader.part = loader.map_number = 0
        if empty and beat:
            popped = True
            loader.state = MAPS
    elif state == MAPS:
        if beat:
            weights.weight_beats += 1
            loader.map_number += 1
            last = loader.map_number == weights.words * weights.now_maps
            popped = last or loader.part == BEAT // run.block - 1
            loader.part = (loader.part + 1) % (BEAT // run.block)
            if last:
                loader.state = READ
    elif state == READ:
        loader.state, loader.ahead_groups = VALUES, -1
    elif state == VALUES:
        if step:
            _step_values(run, weights, loader, _bits(weights, maps, loader.slot * run.clusters + cluster, loader.word))
    elif empty and not filled:
        loader.state = LOAD_IDLE
    return popped


@njit(**OPTIONS)
def _step_values(run, weights, loader, bits):
    """The next group of channels with values; the last group of a lane has its turn in any case."""
    last_word, pending = loader.word == weights.words - 1, 0
    for group in range(run.block // GROUP):
        if bits >> (GROUP * group) & 255 or last_word and group == run.block // GROUP - 1:
            pending |= 1 << group
    pending &= loader.ahead_groups
    chosen = pending & -pending
    if pending:
        for group in range(run.block // GROUP):
            if chosen == 1 << group:
                loader.mask, loader.mask_count = 1, count_ones(bits >> (GROUP * group) & 255)
                weights.weight_beats += loader.mask_count > 0
                loader.mask_last = last_word and group == run.block // GROUP - 1
    if pending != chosen:
        loader.ahead_groups = pending & ~chosen
        return
    loader.ahead_groups = -1
    loader.word += 1
    if last_word:
        loader.slot += 1
        loader.state = DRAIN if loader.slot == loader.slots else START

"""Counters: exact against a plain count, and the invariant over the activities."""
import random

import pytest

from hw import payloads
from hw.configs import CONFIGS
from hw.control.counters import COUNTER_BITS, Counters, counters_layout
from hw.registers import COUNTERS
from sim_tests.bench.stream import StreamBench, plain

STATES = {"busy": "busy", "output": "stall_output", "tile": "stall_tile", "weights": "stall_weights",
          "find": "stall_find", "idle": "idle"}


def stimulus(config, *, cycles, density, seed):
    """For each cycle: activity name and lanes at work for each group, a read beat, a write beat."""
    chance = random.Random(seed)
    def group():
        busy = chance.random() < density
        state = "busy" if busy else chance.choice([name for name in STATES if name != "busy"])
        return state, (chance.choice([0, 1, config.lanes, chance.randint(0, config.lanes)]) if busy else 0)
    return [([group() for _ in range(config.groups)], chance.random() < density, chance.random() < density / 2)
            for _ in range(cycles)]


def count(config, steps):
    """What the layer counts that runs during ``steps[1:]``: group inputs come one cycle (LATENCY) later."""
    result = dict.fromkeys((name for name, _ in COUNTERS), 0)
    for groups, _, _ in steps[:-1]:
        for state, lanes in groups:
            result[STATES[state]] += 1
            result["lane_cycles"] += lanes
    for _, read, write in steps[1:]:
        result["cycles"] += 1
        result["read_beats"] += read
        result["write_beats"] += write
    return result


def apply(ctx, dut, step):
    groups, read, write = step
    for n, (state, lanes) in enumerate(groups):
        ctx.set(dut.i_activity[n], {name: int(name == state) for name in STATES})
        ctx.set(dut.i_lane_work[n], lanes)
    ctx.set(dut.i_read_beat, read)
    ctx.set(dut.i_write_beat, write)


@pytest.mark.parametrize("density", [0, 1 / 64, .1, .5, 1])
@pytest.mark.parametrize("name", ["tiny", "default"])
def test_counts_are_exact_and_activities_add_up(name, density):
    config, seed = CONFIGS[name], 7
    dut = Counters(config)
    bench = StreamBench(dut, seed=seed)

    async def layers(ctx):
        for layer, cycles in enumerate((40, 1, 120)):
            steps = stimulus(config, cycles=cycles + 1, density=density, seed=f"{seed} {layer}")
            ctx.set(dut.i_clear, 1)
            ctx.set(dut.i_run, layer == 2)      # clear wins
            apply(ctx, dut, steps[0])
            await ctx.tick()
            assert not any(plain(ctx.get(dut.o)).values())
            ctx.set(dut.i_clear, 0)
            ctx.set(dut.i_run, 1)
            for step in steps[1:]:
                apply(ctx, dut, step)
                await ctx.tick()
            ctx.set(dut.i_run, 0)
            found = plain(ctx.get(dut.o))
            assert found == count(config, steps), f"{name}, density {density}, seed {seed}, layer {layer}"
            assert sum(found[counter] for counter in STATES.values()) == found["cycles"] * config.groups
            apply(ctx, dut, ([("busy", config.lanes)] * config.groups, 1, 1))
            await ctx.tick().repeat(5)
            assert plain(ctx.get(dut.o)) == found, "counters moved without i_run"
    bench.testbench(layers)
    bench.run()


def test_all_lanes_of_all_groups_fit_the_sum():
    config = CONFIGS["default"]
    dut = Counters(config)
    bench = StreamBench(dut)

    async def full(ctx):
        apply(ctx, dut, ([("busy", config.lanes)] * config.groups, 1, 1))
        await ctx.tick()
        ctx.set(dut.i_run, 1)
        await ctx.tick().repeat(50)
        found = plain(ctx.get(dut.o))
        assert found["lane_cycles"] == 50 * config.total_lanes and found["busy"] == 50 * config.groups
    bench.testbench(full)
    bench.run()


def test_layout_names_every_counter_in_order():
    assert [(name, field.width) for name, field in counters_layout()] == [(name, COUNTER_BITS) for name, _ in COUNTERS]
    assert list(STATES) == [name for name, _ in payloads.activity()]

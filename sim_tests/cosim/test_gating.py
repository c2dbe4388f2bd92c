"""In the simulation, parts that rest get no clock edge (``boards/sim/gating.py``): that must change nothing.

Each scenario runs with these edges and without. All that can be seen from outside must be the same: every byte of
memory (maps and, in the log, all counters), the cycle of the interrupt, registers, beats on the bus.
"""
import re

import numpy as np
import pytest

from boards.sim.build import flat_verilog
from boards.sim.run import RunError, load, mask, run_program, start
from boards.sim.simulator import Simulator
from compiler.emit import compile_network
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME
from hw.registers import REGISTERS
from hw.top import Top
from sim_tests.golden_model.random_layers import DENSITIES, random_map
from sim_tests.golden_model.random_networks import random_network
from sim_tests.test_accelerator import CONFIGURATIONS, MEMORY, STALLS

pytestmark = pytest.mark.cosim


def random_run(config, seed):
    """A program with its input, and settings of the memory."""
    rng = np.random.default_rng(seed)
    network = random_network(rng, config)
    first = network.layers[0]
    x = random_map(rng, first.in_shape, width=config.value_width, signed=first.signed_in, density=rng.choice(DENSITIES))
    stalls = STALLS[list(STALLS)[seed % len(STALLS)]]
    settings = dict(seed=seed, stalls=stalls, read_latency=int(rng.choice([1, 30, 200])))
    return compile_network(network, config), x, settings


def seen(config, program, settings, scenario):
    """What ``scenario(simulator)`` leaves behind, by name, without the edges of resting parts and with them."""
    for every_edge in (False, True):
        with Simulator(config, memory_bytes=MEMORY, base=program.base, assertions=True, **settings) as simulator:
            if every_edge:
                simulator.every_edge()
            scenario(simulator)
            registers = {register.name: simulator.read_word(register.offset) for register in REGISTERS}
            yield {"memory": simulator.dram.tobytes(), "cycles": simulator.cycles, "registers": registers,
                   "read_beats": simulator.read_beats, "write_beats": simulator.write_beats}


def differences(config, program, settings, scenario):
    resting, clocked = seen(config, program, settings, scenario)
    return [name for name in resting if resting[name] != clocked[name]]


@pytest.mark.parametrize("seed", range(20, 36))
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_runs_are_the_same_without_the_edges_of_resting_parts(name, seed):
    config = CONFIGURATIONS[name]
    program, x, settings = random_run(config, seed)
    assert not differences(config, program, settings, lambda simulator: run_program(simulator, program, x, maps=()))


@pytest.mark.parametrize("seed", range(4))
def test_stops_at_any_time_and_the_run_after_are_the_same(seed):
    config = CONFIGURATIONS["tiny"]
    program, x, settings = random_run(config, seed)
    times = np.random.default_rng(seed).integers(1, 1500, 8)

    def scenario(simulator):
        for after in times:
            for address, data in (*program.segments, program.encode_input(x)):
                load(simulator, address, data)
            start(simulator, program)
            assert simulator.run(int(after)) == "limit", "the run ended before it could be stopped"
            simulator.write_register("control", mask("control", "stop"))
            assert simulator.run(100_000) == "interrupt"
        run_program(simulator, program, x, maps=())

    assert not differences(config, program, settings, scenario)


@pytest.mark.parametrize("seed", range(4))
def test_a_refused_second_descriptor_is_the_same(seed):
    config = CONFIGURATIONS["tiny"]
    program, x, settings = random_run(config, seed)
    address, data = program.segments[0]
    at = DESCRIPTOR_BYTES + 4 * FIELD_BY_NAME["stride"].word
    program.segments[0] = address, data[:at] + bytes(4) + data[at + 4:]

    def scenario(simulator):
        with pytest.raises(RunError, match="descriptor_field"):
            run_program(simulator, program, x, maps=())

    assert not differences(config, program, settings, scenario)


def test_every_part_with_an_o_active_has_its_own_clock():
    config = CONFIGURATIONS["tiny"]
    verilog = flat_verilog(Top(config), "tiny")
    clocks = set(re.findall(r"posedge (\w+)", verilog))
    # Descriptor reader, sequencer, two loaders, collector, requantise, pool, two encoders; walker and drain of a group.
    assert clocks == {"clk", *(f"gate{n}_clk" for n in range(9 + 2 * config.groups))}

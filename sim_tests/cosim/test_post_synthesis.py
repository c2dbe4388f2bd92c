# amaranth: UnusedElaboratable=no
"""What synthesis makes of a design (``boards/zynq/post_synthesis.py``) does what the design does."""
import copy
import functools

import numpy as np
import pytest
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from boards.sim.build import build_library
from boards.sim.simulator import Simulator
from boards.zynq.post_synthesis import NetlistSimulator, netlist_verilog, synthesise
from compiler.emit import compile_network
from hw.bus.axi4 import Axi4Signature, AxiLiteSignature
from hw.configs import CONFIGS
from hw.generate import verilog_text
from hw.top import REGISTER_ADDRESS_BITS
from sim_tests.golden_model.random_layers import DENSITIES, random_map
from sim_tests.golden_model.random_networks import random_network
from sim_tests.test_accelerator import MEMORY, STALLS, check

pytestmark = pytest.mark.cosim

#: Memories by name: depth, width, bits that have a write enable of their own, and the cells that they have to become.
MEMORIES = {"wide": (512, 72, 72, "RAMB36E1"), "half": (512, 36, 9, "RAMB18E1"), "deep": (1024, 36, 9, "RAMB36E1"),
            "narrow": (1024, 18, 18, "RAMB18E1"), "bytes": (2048, 9, 9, "RAMB18E1"), "luts": (32, 12, 12, "RAM32M")}
#: Cycles that are compared, after those that fill what starts undefined.
CYCLES, SETTLING = 20_000, 200
SEED = 6


# ---- single cells ----------------------------------------------------------------------------------------------

class Parts(wiring.Component):
    """The memories, a sum of products in registers and a comparison, to become each kind of cell."""

    def __init__(self):
        members = {"a": In(signed(18)), "b": In(signed(17)), "step": In(1), "total": Out(signed(40)), "less": Out(1)}
        for name, (depth, width, granularity, _) in MEMORIES.items():
            members |= {f"{name}_address": In(range(depth)), f"{name}_write_address": In(range(depth)),
                        f"{name}_enable": In(1), f"{name}_write": In(width // granularity), f"{name}_i": In(width),
                        f"{name}_o": Out(width)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        rng = np.random.default_rng(SEED)
        for name, (depth, width, granularity, _) in MEMORIES.items():
            contents = [int.from_bytes(rng.bytes(9)) % (1 << width) for _ in range(depth)]
            memory = m.submodules[name] = Memory(shape=unsigned(width), depth=depth, init=contents)
            read, write = memory.read_port(), memory.write_port(granularity=granularity)
            m.d.comb += [
                read.addr.eq(getattr(self, f"{name}_address")), read.en.eq(getattr(self, f"{name}_enable")),
                write.addr.eq(getattr(self, f"{name}_write_address")), write.en.eq(getattr(self, f"{name}_write")),
                write.data.eq(getattr(self, f"{name}_i")), getattr(self, f"{name}_o").eq(read.data)]
        a, b, product = Signal.like(self.a), Signal.like(self.b), Signal(signed(35))
        with m.If(self.step):
            m.d.sync += [a.eq(self.a), b.eq(self.b), product.eq(a * b), self.total.eq(self.total + product)]
        m.d.sync += self.less.eq(self.a < self.b)
        return m


class Comparison(wiring.Component):
    """Two modules with the ports of ``component``, with the same random inputs in every cycle; ``irq`` stays 1 after
    outputs have differed. The bus is there for the simulator alone."""

    def __init__(self, component, first, second):
        self.component, self.modules = component, (first, second)
        super().__init__({"s_axil": In(AxiLiteSignature(address_width=REGISTER_ADDRESS_BITS)),
                          "m_axi": Out(Axi4Signature()), "irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        members = [(path[0], member) for path, member, _ in self.component.signature.flatten(self.component)]
        inputs = {name: Signal(member.shape, name=name) for name, member in members if member.flow is In}
        rng = np.random.default_rng(SEED)
        bits = Cat(inputs.values())
        for n in range(0, len(bits), 64):
            # Xorshift, as in G. Marsaglia, "Xorshift RNGs", 2003.
            state = Signal(64, init=int.from_bytes(rng.bytes(8)))
            x = state ^ (state << 13)[:64]
            x ^= x >> 7
            m.d.sync += state.eq(x ^ (x << 17)[:64])
            m.d.comb += bits[n:n + 64].eq(state)
        results = []
        for module in self.modules:
            outputs = {name: Signal(member.shape, name=f"{module}_{name}") for name, member in members
                       if member.flow is Out}
            m.submodules[module] = Instance(module, i_clk=ClockSignal(), i_rst=ResetSignal(),
                                            **{f"i_{name}": value for name, value in inputs.items()},
                                            **{f"o_{name}": value for name, value in outputs.items()})
            results.append(Cat(outputs.values()))
        settled = Signal(range(SETTLING + 1))
        with m.If(settled != SETTLING):
            m.d.sync += settled.eq(settled + 1)
        with m.Elif(results[0] != results[1]):
            m.d.sync += self.irq.eq(1)
        return m


class ComparisonSimulator(Simulator):
    """Runs :class:`Comparison` of ``Parts`` and the netlist ``design``: an interrupt if they differ."""

    def __init__(self, design):
        self.design = design
        super().__init__(None, memory_bytes=4096, seed=SEED)

    def _build(self, component, *, assertions, **options):
        verilog = [verilog_text(Comparison(Parts(), "sources", "cells"), "comparison"),
                   verilog_text(Parts(), "sources"), netlist_verilog(self.design, "cells", seed=SEED)]
        return build_library("\n".join(verilog), "comparison", **options)


@functools.cache
def parts():
    return synthesise(Parts())


def cells(design, kind):
    """Cells of ``kind`` in ``design``, in a fixed order."""
    found = design["modules"]["top"]["cells"]
    return [found[name] for name in sorted(found) if found[name]["type"] == kind]


def differs(design):
    with ComparisonSimulator(design) as simulator:
        return simulator.run(CYCLES) == "interrupt"


def damaged(damage):
    design = copy.deepcopy(parts())
    damage(design)
    return design


def invert_lut(design):
    # Of the comparison: one that compares low bits would hardly ever show.
    lut = cells(design, "LUT5")[-1]
    lut["parameters"]["INIT"] = lut["parameters"]["INIT"].translate(str.maketrans("01", "10"))


def swap_contents(design):
    parameters = cells(design, "RAMB36E1")[0]["parameters"]
    parameters["INIT_00"], parameters["INIT_01"] = parameters["INIT_01"], parameters["INIT_00"]


def narrow_address(design):
    cells(design, "RAMB18E1")[0]["connections"]["ADDRARDADDR"][13] = "0"


def stop_register(design):
    cells(design, "DSP48E1")[0]["connections"]["CEA2"] = ["0"]


def test_each_kind_of_cell_does_what_its_sources_do_and_a_damaged_one_shows():
    assert all(cells(parts(), kind) for kind in ("RAMB18E1", "RAMB36E1", "DSP48E1", "RAM32M", "CARRY4", "FDRE", "LUT5"))
    modes = {(cell["type"], cell["parameters"]["RAM_MODE"]) for kind in ("RAMB18E1", "RAMB36E1")
             for cell in cells(parts(), kind)}
    assert modes == {("RAMB18E1", "SDP"), ("RAMB18E1", "TDP"), ("RAMB36E1", "SDP"), ("RAMB36E1", "TDP")}
    assert not differs(parts()), f"outputs differ, seed {SEED}"
    assert differs(damaged(invert_lut))


@pytest.mark.slow
@pytest.mark.parametrize("damage", [swap_contents, narrow_address, stop_register])
def test_a_damaged_cell_shows(damage):
    assert differs(damaged(damage))


# ---- the accelerator -------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_netlist_of_the_accelerator_equals_golden_and_the_sources():
    """Random networks with and without stalls: every map, every byte of memory, and the cycle of the interrupt."""
    config = CONFIGS["tiny"]
    for seed in range(40, 56):
        rng = np.random.default_rng(seed)
        network = random_network(rng, config)
        layer = network.layers[0]
        x = random_map(rng, layer.in_shape, width=config.value_width, signed=layer.signed_in,
                       density=rng.choice(DENSITIES))
        stalls = STALLS[list(STALLS)[seed % len(STALLS)]]
        base = compile_network(network, config).base
        seen = []
        for kind in (NetlistSimulator, Simulator):
            with kind(config, memory_bytes=MEMORY, base=base, seed=seed, stalls=stalls) as board:
                run = check(config, network, x, seed=seed, stalls=stalls, simulator=board)
                seen.append((run.cycles, run.clock_cycles, board.dram.tobytes()))
        assert seen[0][:2] == seen[1][:2], f"cycles of the netlist and of the sources, seed {seed}, {stalls}"
        assert seen[0][2] == seen[1][2], f"memory after a run of the netlist and of the sources, seed {seed}, {stalls}"

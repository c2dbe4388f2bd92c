"""ONNX networks for tests: compiled as the commands do, run by golden and in the RTL."""
from dataclasses import dataclass

import numpy as np
import onnx

from boards.sim.run import run_program
from boards.sim.simulator import CHANNELS, Simulator
from compiler.emit import Program
from compiler.lower import Lowered, lower
from compiler.onnx import run_file, run_host
from compiler.pipeline import OnnxNetwork, check_onnx, compile_float, decibels, read_onnx
from golden.network import run_network


@dataclass(frozen=True)
class Imported:
    """A network that was compiled, and the inputs [C, H, W] that it was calibrated with."""
    network: OnnxNetwork
    lowered: Lowered
    program: Program
    inputs: list[np.ndarray]

    def golden(self, number=0):
        """Every map by golden for one of the inputs."""
        quantised = self.program.network
        return run_network(quantised, quantised.quantise_input(self.inputs[number]))[0]

    def outputs(self, maps):
        """Outputs of the ONNX file, the host's part done, from integer maps."""
        values = {name: self.program.network.dequantise(place, maps[place])
                  for name, place in self.lowered.outputs.items()}
        return run_host(self.network.host, self.network.model, values)

    def expected(self, number=0):
        """Outputs of ONNX Runtime for one of the inputs."""
        return run_file(self.network.proto, self.in_file_order(number))

    def in_file_order(self, number=0):
        """One of the inputs as users of the file give it."""
        x = self.inputs[number]
        return np.ascontiguousarray(x.transpose(1, 2, 0)) if self.network.model.channels_last else x

    def signal_to_noise(self):
        """The least decibels, over the outputs, between ONNX Runtime's values for all inputs and what differs in
        golden's."""
        found = [self.outputs(self.golden(number)) for number in range(len(self.inputs))]
        expected = [self.expected(number) for number in range(len(self.inputs))]
        return min(decibels(np.stack(theirs), np.reshape(ours, np.shape(theirs)))
                   for ours, theirs in zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True))


def import_proto(proto, config, folder, *, seed, count=3) -> Imported:
    """``proto`` through a file in ``folder`` to a program, calibrated with ``count`` random inputs."""
    path = folder / "net.onnx"
    onnx.save(proto, path)
    network = read_onnx(path)
    rng = np.random.default_rng(seed)
    inputs = [rng.normal(size=network.model.input_shape).astype(np.float32) for _ in range(count)]
    lowered = lower(network.model, config)
    result = Imported(network, lowered, compile_float(lowered.network, inputs, config), inputs)
    check_onnx(network, result.in_file_order())
    return result


def run_rtl(program: Program, x, *, seed, assertions=True):
    """The maps that the RTL writes for the integer input ``x``, and a sentence about its memory, whose latency and
    stalls ``seed`` decides."""
    rng = np.random.default_rng(seed)
    latency = int(rng.choice([1, 30, 200]))
    stalls = {name: float(rng.choice([0, 0.3, 0.8])) for name in CHANNELS}
    with Simulator(program.config, memory_bytes=program.memory_bytes, base=program.base, seed=seed, stalls=stalls,
                   read_latency=latency, assertions=assertions) as board:
        estimate = sum(choice.cost.cycles for choice in program.choices.values())
        run = run_program(board, program, x, max_cycles=int(100 * estimate) + 1_000_000)
    return run.maps, f"memory seed {seed}, latency {latency}, stalls {stalls}"


def first_difference(maps, golden) -> str:
    """A sentence about the first map that differs from golden's; empty if none does."""
    for name, values in golden.items():
        wrong = np.argwhere(maps[name] != values)
        if len(wrong):
            place = tuple(map(int, wrong[0]))
            return (f"{name} differs in {len(wrong)} of {values.size} values, first at (c, y, x) = {place}: "
                    f"{maps[name][place]}, golden {values[place]}")
    return ""

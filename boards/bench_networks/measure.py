"""What is measured of a network: size, accuracy of the integers, a run in the RTL, and what the cycle model says."""
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime

from boards.sim.main import simulate
from boards.sim.report import summarise
from compiler.emit import Program, compile_network
from compiler.graph import Network
from compiler.lower import lower
from compiler.networks import hed
from compiler.onnx import run_host
from compiler.phases import phase_weights
from compiler.pipeline import DENSITY_INPUTS, OnnxNetwork, map_densities, read_onnx
from compiler.progress import Stages
from compiler.quantise import quantise
from golden.cycle_model import model_network
from golden.network import QuantisedNetwork, run_network
from hw.config import AcceleratorConfig

from .batch import run_batch
from .data import Data
from .registry import HED_SIDE, Benchmark

#: Values of all maps of the inputs that are computed together.
BATCH_VALUES = 20_000_000
#: Inputs that set the scales.
CALIBRATION = 32
#: How descriptions of nodes with trained weights begin.
WEIGHTED = ("Conv ", "Gemm ", "MatMul ")


@dataclass
class OnnxCase:
    """An ONNX network: ``convolutions`` and ``macs`` are those of the float network."""
    onnx: OnnxNetwork
    #: The map that holds each output of the model, known once :meth:`network` has been called.
    places: dict[str, str] | None = None

    @property
    def _operators(self):
        """Operators with trained weights: a strided slice, which is read as a convolution too, has none."""
        return [operator for operator in self.onnx.model.operators if operator.node.startswith(WEIGHTED)]

    @property
    def convolutions(self) -> int:
        """Convolutions and fully connected layers."""
        return len(self._operators)

    @property
    def macs(self) -> int:
        """Multiplications for one input, padding included."""
        return sum(operator.macs_of_output * int(np.prod(self.onnx.model.shapes[operator.name]))
                   for operator in self._operators)

    def network(self, config: AcceleratorConfig) -> Network:
        """The layers for ``config``."""
        lowered = lower(self.onnx.model, config)
        self.places = lowered.outputs
        return lowered.network

    def input_map(self, x: np.ndarray) -> np.ndarray:
        """An input of the file as [C, H, W]."""
        return np.ascontiguousarray(self.onnx.model.input_map(x))

    @cached_property
    def _session(self):
        onnxruntime.set_default_logger_severity(4)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.onnx.proto.SerializeToString(), options,
                                            providers=["CPUExecutionProvider"])

    def expected(self, x: np.ndarray) -> list[np.ndarray]:
        """Outputs of the file by ONNX Runtime in float32."""
        source = self._session.get_inputs()[0]
        return self._session.run(None, {source.name: x.reshape(source.shape)})

    def outputs(self, maps: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Outputs of the file from real maps of the accelerator; the host's part is done."""
        values = {name: maps[place] for name, place in self.places.items()}
        return [np.asarray(output) for output in run_host(self.onnx.host, self.onnx.model, values)]


class HedCase:
    """HED for pictures of ``side``; the interface of :class:`OnnxCase`."""

    def __init__(self, side: int):
        self.side, self._network = side, hed.build(side, side)
        self.convolutions = len(self._network.layers)
        shapes = {name: shape for name, shape in self._network.maps.items()}
        # Every convolution but the side outputs keeps the size of what it reads.
        self.macs = sum(layer.weights.size * int(np.prod(shapes[layer.inputs[0].map][1:]))
                        for layer in self._network.layers)

    def network(self, config: AcceleratorConfig) -> Network:
        """The layers, which are those of any configuration."""
        return self._network

    def input_map(self, x: np.ndarray) -> np.ndarray:
        """``x`` itself."""
        return x

    def expected(self, x: np.ndarray) -> list[np.ndarray]:
        """The edge map of the float network."""
        return self.outputs(self._network.run_float(x))

    def outputs(self, maps: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The edge map of real side outputs."""
        return [hed.edge_map([maps[name] for name in hed.SIDES], self.side, self.side)]


def load_case(benchmark: Benchmark, path: Path):
    """The network of ``benchmark``, its ONNX file written to ``path``; ``MissingData`` if it cannot be had."""
    if benchmark.write is None:
        return HedCase(HED_SIDE)
    path.parent.mkdir(parents=True, exist_ok=True)
    benchmark.write(path)
    return OnnxCase(read_onnx(path))


def calibration_maps(case, data: Data) -> list[np.ndarray]:
    """The inputs that set the scales, [C, H, W]."""
    return [case.input_map(x) for x in data.calibration[:CALIBRATION]]


def measure_accuracy(case, data: Data, benchmark: Benchmark, config: AcceleratorConfig, count: int,
                     stages: Stages) -> dict:
    """Mean scores of the integers of ``config`` on the first ``count`` inputs; if there are labels, also of the float
    network, and ``flips``: on how many inputs the integers score less (``lost``) and more (``won``) than it, and how
    many have several largest outputs (``ties``)."""
    bits = f"{config.value_width} bits"
    with stages.stage(f"{benchmark.name}: {bits}, quantise"):
        quantised = quantise(case.network(config), calibration_maps(case, data), config)
    count = min(count, len(data.items))
    batch = max(1, BATCH_VALUES // sum(int(np.prod(shape)) for shape in quantised.maps.values()))
    found, reference, ties = [], [], 0
    with stages.stage(f"{benchmark.name}: {bits}, inputs", count) as update:
        for first in range(0, count, batch):
            numbers = range(first, min(first + batch, count))
            inputs = [data.input(number) for number in numbers]
            maps = run_batch(quantised, np.stack([quantised.quantise_input(case.input_map(x)) for x in inputs]))
            for place, (number, x) in enumerate(zip(numbers, inputs, strict=True)):
                label, expected = None if data.labels is None else data.labels[number], case.expected(x)
                ours = case.outputs(real_maps(quantised, {name: values[place] for name, values in maps.items()}))
                # A map has three dimensions; the file's output may have fewer.
                ours = [np.reshape(one, other.shape) for one, other in zip(ours, expected, strict=True)]
                ties += int(np.count_nonzero(ours[0] == ours[0].max()) > 1)
                found.append(benchmark.measure.score(ours, expected, label))
                reference.append(benchmark.measure.score(expected, expected, label))
            update(numbers[-1] + 1, f"{numbers[-1] + 1} of {count}")
    found, reference, labelled = np.array(found), np.array(reference), data.labels is not None
    flips = {"lost": int((found < reference).sum()), "won": int((found > reference).sum()),
             "ties": ties}
    return {"quantised": float(found.mean()), "float": float(reference.mean()) if labelled else None,
            "flips": flips if labelled else None, "inputs": count, "data": data.text}


def real_maps(quantised: QuantisedNetwork, maps: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Integer maps as real numbers."""
    return {name: quantised.dequantise(name, values) for name, values in maps.items()}


def compile_case(case, data: Data, config: AcceleratorConfig) -> Program:
    """The program of ``case``."""
    network, calibration = case.network(config), calibration_maps(case, data)
    quantised = quantise(network, calibration, config)
    return compile_network(quantised, config, densities=map_densities(network, calibration[:DENSITY_INPUTS]))


def measure_run(program: Program, x: np.ndarray, stages: Stages) -> dict:
    """One input [C, H, W] in the RTL, every map compared with golden: counters and mismatches."""
    measured = simulate(stages, program, [program.network.quantise_input(x)])
    total = summarise(measured.records, program.config.total_lanes)
    return {"cycles": measured.cycles, "layers": len(measured.records), "problems": measured.problems[:3],
            **{key: total[key] for key in ("macs", "nonzero_macs", "utilisation", "mismatches", "compared",
                                           "dram_read_bytes", "dram_write_bytes")}}


def measure_model(program: Program, x: np.ndarray) -> dict:
    """What the cycle model says of the same run."""
    maps, results = run_network(program.network, program.network.quantise_input(x))
    run = model_network(program.network, maps, results, program.segments[0][1], program.config, split=phase_weights,
                        descriptor_address=program.descriptor_address, log_address=program.log_address)
    return {"cycles": int(run.cycles)}

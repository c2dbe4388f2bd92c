"""A trained network with its inputs, compiled for one configuration after another: what `explore` and `compare` cost.

Nothing is simulated: cycles and traffic come from the cycle model, which equals the counters of the RTL
(docs/cycle-model.md).
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from compiler.calibration import load_calibration
from compiler.cli import parse_numbers, parse_shape
from compiler.emit import Program
from compiler.graph import Network
from compiler.lower import lower
from compiler.nodes import Node, network_nodes
from compiler.phases import phase_weights
from compiler.pipeline import (
    BALANCE_INPUTS,
    DENSITY_INPUTS,
    CompilerFault,
    check_onnx,
    compile_quantised,
    map_densities,
    read_onnx,
)
from compiler.quantise import quantise
from golden.cycle_model import ModelledRun, model_network
from golden.layer import LayerResult
from golden.network import QuantisedNetwork, run_network
from hw.config import AcceleratorConfig

from .sim.jobs import DigitsJob, HedJob

#: Exit status: the compiler is at fault; the input is not usable.
FAULT, UNUSABLE = 1, 2

# Options of the commands that take a network; they are the arguments of load_workload.
SizeOption = Annotated[str | None, typer.Option(
    help="hed: 96 for a square, 320x240 for width x height; 224 unless told.", metavar="SIZE")]
CalibOption = Annotated[Path | None, typer.Option(
    help="ONNX: typical inputs, as of `zeroskip compile`; the first one is what the cycle model runs.",
    metavar="FOLDER|FILE")]
ShapeOption = Annotated[str | None, typer.Option(
    help="ONNX: shape of the input, where the file leaves it open: 3x224x224.", metavar="SHAPE")]
CountOption = Annotated[int, typer.Option(help="ONNX: inputs to calibrate with.", min=1, metavar="N")]
MeanOption = Annotated[str, typer.Option(help="ONNX: taken off the values of pictures.", metavar="M,M,M")]
StdOption = Annotated[str, typer.Option(help="ONNX: what pictures are divided by after that.", metavar="S,S,S")]


@dataclass(frozen=True)
class Quantised:
    """A network in integers: what all configurations share that lower and quantise it alike. ``x``: its input;
    ``profiled``: inputs that the intersect array is compiled with; ``nodes``: those of the imported network,
    none if it was built of layers."""
    network: QuantisedNetwork
    nodes: tuple[Node, ...]
    densities: dict[str, float]
    x: np.ndarray
    profiled: list[np.ndarray]

    @cached_property
    def golden(self) -> tuple[dict[str, np.ndarray], dict[str, LayerResult]]:
        """All maps and results of the layers, by golden."""
        return run_network(self.network, self.x)

    def compile(self, config: AcceleratorConfig) -> Program:
        """The program for ``config``, that of ``make sim``; ``ValueError`` if a layer does not fit its memories."""
        return compile_quantised(self.network, self.profiled, config, densities=self.densities)

    def model(self, program: Program) -> ModelledRun:
        """Counters of each layer and cycles of the run, by the cycle model."""
        # The intersect array may have the kernels of a layer in another order.
        maps, results = self.golden if program.network is self.network else run_network(program.network, self.x)
        return model_network(program.network, maps, results, program.segments[0][1], program.config,
                             split=phase_weights, descriptor_address=program.descriptor_address,
                             log_address=program.log_address)


class Workload:
    """A network, the inputs that set its scales and the one that is run.

    Parameters
    ----------
    name : str
    build : callable
        ``build(config)`` gives the float network of the layers that ``config`` has, and the nodes of the imported
        network that they compute; no nodes if it was built of layers.
    key : callable
        ``key(config)`` is the same for configurations that ``build`` gives the same network.
    calibration : list of float arrays [C, H, W]
    x : float array [C, H, W]
    """

    def __init__(self, name: str, build: Callable[[AcceleratorConfig], tuple[Network, tuple[Node, ...]]],
                 key: Callable[[AcceleratorConfig], tuple], calibration: list[np.ndarray], x: np.ndarray):
        self.name, self.build, self.key, self.calibration, self.x = name, build, key, calibration, x
        self._quantised = {}

    def quantise(self, config: AcceleratorConfig) -> Quantised:
        """The network for ``config`` in integers; ``ValueError`` if a node or a sum does not fit."""
        key = (config.value_width, *self.key(config))
        if key not in self._quantised:
            network, nodes = self.build(config)
            quantised = quantise(network, self.calibration, config)
            densities = map_densities(network, self.calibration[:DENSITY_INPUTS])
            profiled = [quantised.quantise_input(x) for x in self.calibration[:BALANCE_INPUTS]]
            self._quantised[key] = Quantised(quantised, nodes, densities, quantised.quantise_input(self.x), profiled)
        return self._quantised[key]


def load_workload(model: str, *, size: str | None = None, calib: Path | None = None, shape: str | None = None,
                  count: int = 16, mean: str = "0", std: str = "1") -> Workload:
    """``hed`` on its default photograph, ``digits`` on a digit, or an ONNX file on its first calibration input.

    Parameters
    ----------
    model : str
        ``hed``, ``digits`` or the name of an ONNX file.
    size : str, optional
        Of hed's photograph, as ``make sim`` takes it; 224 unless told.
    calib, shape, count, mean, std
        As the options of ``zeroskip compile``.

    Raises
    ------
    ValueError, CompilerFault
        The input cannot be used, or the compiler is at fault: one sentence.
    """
    if model in ("hed", "digits"):
        if calib is not None or shape is not None:
            raise ValueError("--calib and --shape belong to an ONNX file; hed and digits have their own inputs")
        if size is not None and model == "digits":
            raise ValueError("--size belongs to hed")
        job = HedJob("astronaut", size or "224") if model == "hed" else DigitsJob(1)
        return Workload(model, lambda config: (job.network, ()), lambda config: (), job.calibration, job.inputs[0])
    if not model.lower().endswith(".onnx") and not Path(model).is_file():
        raise ValueError(f"there is no network {model!r}: choose hed or digits, or give an ONNX file")
    if size is not None:
        raise ValueError("--size belongs to hed; an ONNX file has its own shape, or takes --shape")
    if calib is None:
        raise ValueError("an ONNX file needs typical inputs for calibration: give --calib, an .npz or .npy file, or a "
                         "folder of such files or of pictures")
    network = read_onnx(Path(model), parse_shape(shape))
    inputs = load_calibration(calib, network.model, count, parse_numbers("--mean", mean), parse_numbers("--std", std))
    check_onnx(network, inputs[0])
    maps = [np.ascontiguousarray(network.model.input_map(x)) for x in inputs]

    def build(config):
        lowered = lower(network.model, config)
        return lowered.network, tuple(node for node in network_nodes(network.model, lowered) if node.layers)

    return Workload(network.model.name, build, lambda config: (config.block, config.lanes, config.intersect), maps,
                    maps[0])


@contextmanager
def exit_status() -> Iterator[None]:
    """What goes wrong inside becomes a sentence and the exit status of the command: input that cannot be used
    (``ValueError``, ``OSError``), or a :class:`~compiler.pipeline.CompilerFault`."""
    try:
        yield
    except (ValueError, OSError, CompilerFault) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAULT if isinstance(error, CompilerFault) else UNUSABLE) from None

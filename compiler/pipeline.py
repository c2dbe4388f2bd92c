"""The stages from a trained network to a program, for all commands that compile.

    network = read_onnx(path)                                   an ONNX file, checked and read
    inputs = load_calibration(folder, network.model, 16)        compiler.calibration
    check_onnx(network, inputs[0])                              against ONNX Runtime
    lowered = lower(network.model, config)                      compiler.lower
    program = compile_float(lowered.network, [network.model.input_map(x) for x in inputs], config)
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from golden.network import QuantisedNetwork, run_network
from hw.config import AcceleratorConfig

from .balance import balance
from .emit import Program, check_network, compile_network
from .graph import Network
from .model import Model
from .onnx import HostPart, largest_difference, load_proto, read_proto, simplify, tolerance
from .order import order_network
from .phases import NEGATIVE_CLASSES
from .predictions import load_predictions
from .profile import kernel_work, profile_network
from .quantise import quantise

#: Calibration inputs that densities are taken from.
DENSITY_INPUTS = 4
#: Calibration inputs that the intersect array's phases are chosen on, those that weights are ordered on, and those that
#: clusters are balanced on.
PROFILE_INPUTS, ORDER_INPUTS, BALANCE_INPUTS = 1, 4, 8
#: Bytes of a network's name that an image holds.
NAME_BYTES = 27


class CompilerFault(RuntimeError):
    """The compiler computes something else than the file that it has read; the message is a sentence for the user."""


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX file: as it was checked, as operators of the accelerator, and what is left for the host."""
    proto: onnx.ModelProto
    model: Model
    host: HostPart


def read_onnx(path: Path, shape: tuple[int, ...] | None = None) -> OnnxNetwork:
    """The network in ``path``; arguments and errors as of :func:`compiler.onnx.load_proto` and ``read_proto``."""
    name = Path(path).stem.encode(errors="ignore")[:NAME_BYTES].decode(errors="ignore") or "network"
    try:
        proto = load_proto(path, shape)
        model, host = read_proto(proto, name)
    except UnicodeDecodeError:
        # Texts are decoded when they are looked at.
        raise ValueError(f"{path} is not a sound ONNX file: it has texts that are not UTF-8") from None
    # Weights that overflow here are found, and named, by check_onnx.
    with np.errstate(over="ignore", invalid="ignore"):
        return OnnxNetwork(proto, simplify(model), host)


def check_onnx(network: OnnxNetwork, x: np.ndarray) -> None:
    """:class:`CompilerFault` if the operators give other outputs than ONNX Runtime for ``x``, in the file's order."""
    difference = largest_difference(network.proto, network.model, network.host, x)
    if not difference <= tolerance(network.proto, network.model):
        raise CompilerFault(f"the network as it was read differs from ONNX Runtime by {difference:.2g} of the largest "
                            f"output: a fault of this compiler, please report it")


def compile_float(network: Network, calibration: list[np.ndarray], config: AcceleratorConfig, *,
                  negative_classes: int = NEGATIVE_CLASSES, predictions: Path | None = None) -> Program:
    """The program of ``network``, quantised with the inputs [C, H, W] of ``calibration``; for the intersect array
    profiled on the first ``BALANCE_INPUTS`` of them. ``predictions``: a file of them (:mod:`compiler.predictions`).
    ``negative_classes`` and errors as of :func:`compiler.quantise.quantise` and :func:`compile_quantised`."""
    quantised = quantise(network, calibration, config)
    if predictions:
        quantised = load_predictions(quantised, predictions)
    return compile_quantised(quantised, [quantised.quantise_input(x) for x in calibration[:BALANCE_INPUTS]], config,
                             densities=map_densities(network, calibration[:DENSITY_INPUTS]),
                             negative_classes=negative_classes)


def compile_quantised(quantised: QuantisedNetwork, inputs: list[np.ndarray], config: AcceleratorConfig, *,
                      densities: dict[str, float] | None = None, negative_classes: int = NEGATIVE_CLASSES) -> Program:
    """The program of ``quantised``.

    For the intersect array, the first ``ORDER_INPUTS`` of the integer ``inputs`` [C, H, W] decide in which order the
    weights below 0 have their turns (:func:`compiler.order.order_network`), a profile on the first ``PROFILE_INPUTS``
    how many phases each layer has (:func:`compiler.profile.profile_network`), all of them which cluster gets which of
    its kernels (:func:`compiler.balance.balance`).

    Parameters
    ----------
    quantised : QuantisedNetwork
    inputs : list of int arrays [C, H, W]
    config : AcceleratorConfig
    densities : dict of str to float, optional
        As of :func:`compiler.emit.compile_network`.
    negative_classes : int
        Classes of negative weights, 0 to 6, that a layer has at most where a sum that is known to give 0 is stopped
        (:mod:`compiler.phases`). 0: nothing is stopped, zeros are skipped only.

    Raises
    ------
    ValueError
        ``negative_classes`` is out of range, or as of :func:`compiler.emit.compile_network`.
    """
    check_network(quantised, config)
    if not config.intersect:
        return compile_network(quantised, config, densities=densities)
    runs = [run_network(quantised, x)[0] for x in inputs[:ORDER_INPUTS]]
    if negative_classes:
        quantised = order_network(quantised, runs, config)
    profiles = profile_network(quantised, runs[:PROFILE_INPUTS], config, densities or {}, negative_classes)
    balanced = balance(quantised, kernel_work(quantised, inputs, profiles, config), config)
    return compile_network(balanced, config, densities=densities,
                           work={name: found.work for name, found in profiles.items()})


def map_densities(network: Network, inputs: list[np.ndarray]) -> dict[str, float]:
    """Share of non-zero values in each map of the float network: what tilings are weighed with."""
    densities = {name: [] for name in network.maps if name != network.input_name}
    for x in inputs:
        maps = network.run_float(x)
        for name, found in densities.items():
            found.append(np.count_nonzero(maps[name]) / maps[name].size)
    return {name: float(np.mean(found)) for name, found in densities.items()}


def decibels(expected: np.ndarray, found: np.ndarray) -> float:
    """``10 log10(mean(expected ** 2) / mean((found - expected) ** 2))``, -300 to 300; 300 for equal ones."""
    signal = np.mean(np.asarray(expected, float) ** 2)
    noise = np.mean((np.asarray(found, float) - expected) ** 2)
    return 300.0 if noise == 0 else float(10 * np.clip(np.log10(max(signal, 1e-300) / noise), -30, 30))

"""What `make sim` can run: a network, its inputs, and what its outputs mean to a person."""
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from compiler.images import fit, load_photo, parse_size
from compiler.lower import lower
from compiler.networks import digits, hed
from compiler.nodes import network_nodes
from compiler.onnx import run_file, run_host
from compiler.pipeline import OnnxNetwork, check_onnx, decibels
from compiler.progress import Stages
from golden.network import QuantisedNetwork, run_network
from hw.config import AcceleratorConfig

from .picture import draw_panels

#: Nodes on the host that are named on the terminal; report.json names all.
MOST_HOST_NODES = 3


@dataclass
class Outcome:
    """Keys for the report, sentences for the terminal, files written."""
    extra: dict
    lines: list[str] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)


class HedJob:
    """The edges of one photograph.

    Parameters
    ----------
    image : str
        A file, or a name in ``compiler.images.PHOTOS``.
    size : str
        As ``compiler.images.parse_size`` takes it.
    """

    name = "hed"
    #: Lines of the table between the layers and the total: label -> layers.
    subtotals = {"trunk": hed.TRUNK}
    #: Lines of the table in place of those of the layers, if there are any.
    nodes = ()

    def __init__(self, image: str, size: str):
        self.image = image
        self.width, self.height = parse_size(size)
        self.photo = fit(load_photo(image), self.width, self.height)
        self.calibrated_on = [name for name in hed.CALIBRATION if name != image]
        self.calibration = [hed.prepare(fit(load_photo(name), self.width, self.height)) for name in self.calibrated_on]
        self.network = hed.build(self.height, self.width)
        self.inputs = [hed.prepare(self.photo)]

    def _edges(self, maps: dict[str, np.ndarray]) -> np.ndarray:
        return hed.edge_map([maps[name] for name in hed.SIDES], self.height, self.width)

    def finish(self, quantised: QuantisedNetwork, runs: list[dict], folder: Path) -> Outcome:
        """The edge map of the accelerator's outputs beside that of the float network."""
        expected = self._edges(self.network.run_float(self.inputs[0]))
        edges = self._edges({name: quantised.dequantise(name, runs[0][name]) for name in hed.SIDES})
        difference = float(np.abs(edges - expected).mean())
        path = folder / "edges.png"
        draw_panels([(f"{self.image}, {self.width} x {self.height}", self.photo), ("float network", expected),
                     (f"accelerator, {quantised.value_width} bits", edges)], path, columns=3,
                    caption=f"mean absolute difference of the edge maps: {difference:.2g}")
        extra = {"image": self.image, "width": self.width, "height": self.height, "calibration": self.calibrated_on,
                 "edge_mean_absolute_difference": difference}
        return Outcome(extra, [f"edges: mean absolute difference to the float network {difference:.2g} (of 1)"], [path])


class DigitsJob:
    """Some handwritten digits, one run each.

    Parameters
    ----------
    count : int
        Digits to run, 1 to 100.
    """

    name = "digits"
    subtotals, nodes = {}, ()
    #: Digits that set the scales, and digits that golden and the float network are counted on.
    CALIBRATION, TEST = 64, 300

    def __init__(self, count: int):
        if not 1 <= count <= 100:
            raise ValueError(f"digits must be 1 to 100, not {count}")
        # Threads cost more than they save on maps this small.
        torch.set_num_threads(1)
        pictures, classes = digits.load_digits()
        self.calibration = [digits.prepare(picture) for picture in pictures[:self.CALIBRATION]]
        test = slice(self.CALIBRATION, self.CALIBRATION + self.TEST)
        self.pictures, self.classes = pictures[test], classes[test]
        self.network = digits.build()
        self.inputs = [digits.prepare(picture) for picture in self.pictures[:count]]

    def finish(self, quantised: QuantisedNetwork, runs: list[dict], folder: Path) -> Outcome:
        """Predicted classes beside the true ones; accuracy of float network and golden on more digits."""
        predicted = [int(run["fc2"].argmax()) for run in runs]
        expected = self.classes[:len(runs)].tolist()
        inputs = [digits.prepare(picture) for picture in self.pictures]
        by_float = np.array([self.network.run_float(x)["fc2"].argmax() for x in inputs])
        by_golden = np.array([run_network(quantised, quantised.quantise_input(x))[0]["fc2"].argmax() for x in inputs])
        accuracy = {"digits": len(inputs), "float": float((by_float == self.classes).mean()),
                    "quantised": float((by_golden == self.classes).mean())}
        path = folder / "digits.png"
        draw_panels([(f"{truth}, read as {guess}", picture / 255)
                     for truth, guess, picture in zip(expected, predicted, self.pictures, strict=False)],
                    path, columns=min(5, len(runs)))
        lines = ["true      " + " ".join(map(str, expected)), "predicted " + " ".join(map(str, predicted)),
                 f"right on {len(inputs)} digits: float network {100 * accuracy['float']:.1f} %, "
                 f"quantised (golden) {100 * accuracy['quantised']:.1f} %"]
        extra = {"expected": expected, "predicted": predicted, "predicted_float": by_float[:len(runs)].tolist(),
                 "accuracy": accuracy}
        return Outcome(extra, lines, [path])


class OnnxJob:
    """An ONNX network on some inputs, compared with ONNX Runtime at the end.

    Parameters
    ----------
    network : OnnxNetwork
    config : AcceleratorConfig
    calibration, inputs : list of float arrays
        In the order of the file.
    stages : Stages
        Shows the work of the constructor: the network is checked against ONNX Runtime and lowered.
    source : str, optional
        Where the inputs are from, for people: a file, a folder, or words.

    Raises
    ------
    ValueError
        An input does not fit, or a node cannot be lowered: one sentence.
    CompilerFault
        What was read is not what ONNX Runtime computes.
    """

    subtotals = {}

    def __init__(self, network: OnnxNetwork, config: AcceleratorConfig, calibration: list[np.ndarray],
                 inputs: list[np.ndarray], stages: Stages, source: str = ""):
        model = network.model
        self.name, self.onnx, self.source = model.name, network, source
        if not calibration or not inputs:
            raise ValueError(f"network {model.name} needs at least one calibration input and one input to run")
        self.calibration, self.inputs = ([np.ascontiguousarray(model.input_map(np.asarray(x, np.float32)))
                                          for x in arrays] for arrays in (calibration, inputs))
        self._expected = [np.asarray(x, np.float32) for x in inputs]
        with stages.stage("compare with ONNX Runtime"):
            check_onnx(network, self._expected[0])
        with stages.stage("lower"):
            self.lowered = lower(model, config)
        self.network = self.lowered.network
        self.nodes = [node for node in network_nodes(model, self.lowered) if node.layers]

    def finish(self, quantised: QuantisedNetwork, runs: list[dict], folder: Path | None) -> Outcome:
        """The outputs of the file, the host's part done, beside those of ONNX Runtime in float32."""
        model, host = self.onnx.model, self.onnx.host
        found, expected = [], []
        for x, maps in zip(self._expected, runs, strict=True):
            values = {name: quantised.dequantise(place, maps[place]) for name, place in self.lowered.outputs.items()}
            expected.append(run_file(self.onnx.proto, x))
            found.append([np.reshape(one, other.shape) for one, other in
                          zip(run_host(host, model, values), expected[-1], strict=True)])
        names = [entry.name for entry in self.onnx.proto.graph.output]
        outputs = [_difference(name, np.stack(ours), np.stack(theirs)) for name, ours, theirs in
                   zip(names, zip(*found, strict=True), zip(*expected, strict=True), strict=True)]
        lines = [f"input: {self.source}"] if self.source else []
        lines += [f"host: {host_sentence(host.nodes)}"] if host.nodes else []
        lines += [_sentence(output, len(runs)) for output in outputs]
        files = []
        if folder is not None:
            files = [folder / "outputs.npz"]
            np.savez(files[0], **{f"accelerator{n}": np.stack(arrays) for n, arrays in
                                  enumerate(zip(*found, strict=True))},
                     **{f"float{n}": np.stack(arrays) for n, arrays in enumerate(zip(*expected, strict=True))})
        extra = {"source": self.source, "inputs": len(runs), "calibration_inputs": len(self.calibration),
                 "host": list(host.nodes), "outputs": outputs}
        return Outcome(extra, lines, files)


def host_sentence(nodes: Sequence[str]) -> str:
    """The nodes ``Softmax node 'x'``; of many, how many there are of each operator."""
    if len(nodes) <= MOST_HOST_NODES:
        return ", ".join(nodes)
    operators = Counter(node.split()[0] for node in nodes)
    return f"{len(nodes)} nodes ({', '.join(f'{count} {name}' for name, count in operators.most_common())})"


def _difference(name: str, found: np.ndarray, expected: np.ndarray) -> dict:
    """What differs between an output of all runs, [runs, ...], and that of the float network: keys of the report."""
    error = np.abs(found.astype(float) - expected)
    row = {"name": name, "shape": list(expected.shape[1:]), "largest_difference": float(error.max()),
           "mean_difference": float(error.mean()), "largest_value": float(np.abs(expected).max()),
           "signal_to_noise_db": decibels(expected, found)}
    if expected[0].size == max(expected.shape[1:], default=1) > 1:
        # Scores of classes.
        flat = [np.reshape(values, (len(values), -1)).argmax(1) for values in (found, expected)]
        row |= {"same_class": int((flat[0] == flat[1]).sum()), "classes": flat[0].tolist(),
                "classes_float": flat[1].tolist()}
    return row


def _sentence(output, runs):
    text = (f"output {output['name']} ({'x'.join(map(str, output['shape']))}): differs from ONNX Runtime in float32 by "
            f"{output['mean_difference']:.2g} on average, {output['largest_difference']:.2g} at most, of values up to "
            f"{output['largest_value']:.3g} ({output['signal_to_noise_db']:.1f} dB)")
    if "same_class" in output:
        text += f"; the same largest value in {output['same_class']} of {runs}"
    return text

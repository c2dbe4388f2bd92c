"""What `make sim` can run: a network, its inputs, and what its outputs mean to a person."""
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from compiler.images import fit, load_photo, parse_size
from compiler.networks import digits, hed
from golden.network import QuantisedNetwork, run_network

from .picture import draw_panels


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
    subtotals = {}
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

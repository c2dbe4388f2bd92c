"""Inputs for calibration: from an .npz or .npy file, or a folder of such files or pictures."""
from pathlib import Path

import numpy as np

from .errors import first_line
from .images import fit, load_photo
from .model import Model

PICTURES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".webp"}
ARRAYS = {".npy", ".npz"}


def load_calibration(path: Path, model: Model, count: int | None, mean: tuple[float, ...] = (0,),
                     deviation: tuple[float, ...] = (1,)) -> list[np.ndarray]:
    """Up to ``count`` inputs in the order of the ONNX file, float32, spread evenly over what ``path`` holds; all if
    ``count`` is None.

    Parameters
    ----------
    path : Path
        An .npz or .npy file, or a folder of .npz, .npy and picture files. An array is one input, or several along its
        first axis.
    model : Model
        Decides the shape.
    count : int or None
        1 or more.
    mean, deviation : tuple of float
        One number, or one for each channel: a picture's value p (0 to 255, red first) becomes ``(p - mean) /
        deviation``.

    Raises
    ------
    ValueError
        One sentence: nothing there, a file that cannot be read, a shape that does not fit, values that are not finite.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES | ARRAYS)
    else:
        files = [path] if path.is_file() else []
        if not files:
            raise ValueError(f"there are no inputs at {path}: give an .npz or .npy file, a picture, or a folder of "
                             f"such files")
        if path.suffix.lower() not in PICTURES | ARRAYS:
            raise ValueError(f"{path} holds no inputs: give an .npz or .npy file, or a picture "
                             f"({', '.join(sorted(PICTURES))})")
    pictures = [file for file in files if file.suffix.lower() in PICTURES]
    if len(pictures) == len(files):
        # Only those that are used are read.
        inputs = [_picture(file, model, mean, deviation) for file in _spread(pictures, count)]
    else:
        inputs = []
        for file in files:
            inputs += [_picture(file, model, mean, deviation)] if file in pictures else _arrays(file, model)
        inputs = _spread(inputs, count)
    if not inputs:
        raise ValueError(f"{path} holds no inputs: put .npy, .npz or picture files there")
    for x in inputs:
        if not np.isfinite(x).all():
            raise ValueError(f"{path} holds an input with values that are not finite (NaN or infinite)")
    return inputs


def _spread(items, count):
    if count is None or len(items) <= count:
        return items
    return [items[place] for place in np.linspace(0, len(items) - 1, count).round().astype(int)]


def _arrays(file, model):
    try:
        with open(file, "rb") as stream:
            content = np.load(stream, allow_pickle=False)
            arrays = list(content.values()) if isinstance(content, np.lib.npyio.NpzFile) else [content]
    except Exception as error:
        # Damaged headers and archives raise whatever parsers and decompressors do.
        raise ValueError(f"{file} cannot be read as an array: {first_line(error)}") from None
    shape, inputs = model.file_shape, []
    vector = shape[:1] if shape[1:] == (1, 1) else None
    for array in arrays:
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
            kind = getattr(array, "dtype", "unknown")
            raise ValueError(f"{file} holds values of type {kind}; inputs are numbers")
        if array.shape in (shape, vector):
            array = array[None]
        if array.shape[1:] not in (shape, vector):
            raise ValueError(f"{file} holds an array of shape {array.shape}; the network takes inputs of {shape}, one "
                             f"or several along a first axis")
        # What does not fit becomes infinite.
        with np.errstate(over="ignore", invalid="ignore"):
            inputs += [x.reshape(shape) for x in array.astype(np.float32)]
    return inputs


def _picture(file, model, mean, deviation):
    channels, height, width = model.input_shape
    if channels not in (1, 3):
        raise ValueError(f"{file} is a picture, but the network takes {channels} channels: give arrays (.npy, .npz)")
    for what, values in (("mean", mean), ("deviation", deviation)):
        if len(values) not in (1, channels):
            raise ValueError(f"{what} has {len(values)} numbers; give one, or one for each of {channels} channels")
    if 0 in deviation:
        raise ValueError("the deviation (--std) must not be 0: pictures are divided by it")
    photo = load_photo(str(file))
    pixels = fit(photo if channels == 3 else photo.convert("L").convert("RGB"), width, height)[..., :channels]
    x = ((pixels - np.float32(mean)) / np.float32(deviation)).astype(np.float32)
    return x if model.channels_last else np.ascontiguousarray(x.transpose(2, 0, 1))

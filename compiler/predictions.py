"""Predictions of a network as a file, so that what a search has found can be compiled again.

An .npz file with arrays ``format`` (:data:`FORMAT`), ``layers`` (names), and for layer n of them ``weights<n>`` [O, C,
kh, kw] and ``thresholds<n>`` [O] (:class:`golden.layer.Prediction`). Channels are in the order of the quantised
network, before :mod:`compiler.balance` changes it.
"""
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from golden.layer import Prediction
from golden.network import QuantisedNetwork

FORMAT = "zeroskip predictions 1"


def save_predictions(network: QuantisedNetwork, path: Path | str) -> None:
    """Write the predictions of the layers of ``network`` to ``path``; folders are made."""
    layers = [layer for layer in network.layers if layer.prediction is not None]
    arrays = {"format": np.array(FORMAT), "layers": np.array([layer.name for layer in layers], str)}
    for number, layer in enumerate(layers):
        arrays[f"weights{number}"] = layer.prediction.weights.astype(np.int8)
        arrays[f"thresholds{number}"] = layer.prediction.thresholds.astype(np.int32)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.tmp")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    draft.replace(path)


def load_predictions(network: QuantisedNetwork, path: Path | str) -> QuantisedNetwork:
    """``network`` with the predictions in ``path`` in place of its own.

    Raises
    ------
    ValueError
        The file is not one of predictions, or they are not of this network: quantised with other calibration inputs,
        for one.
    """
    arrays = _read_arrays(Path(path))
    if str(arrays.get("format")) != FORMAT or "layers" not in arrays:
        raise ValueError(f"{path} is not a file of predictions in the format {FORMAT!r}")
    found = {layer.name: layer for layer in network.layers}
    changed = {name: replace(layer, prediction=None) for name, layer in found.items()}
    for number, name in enumerate(map(str, arrays["layers"])):
        if name not in found:
            raise ValueError(f"{path} has a prediction for layer {name}, which network {network.name} has not")
        try:
            parts = [arrays[f"{kind}{number}"].astype(np.int64) for kind in ("weights", "thresholds")]
            changed[name] = replace(found[name], prediction=Prediction(*parts))
        except KeyError as error:
            raise ValueError(f"{path} lacks {error} of layer {name}") from None
        except ValueError as error:
            raise ValueError(f"{path} is not of this network as it was quantised here, with these calibration inputs: "
                             f"{error}") from None
    return replace(network, layers=tuple(changed[layer.name] for layer in network.layers))


def _read_arrays(path):
    if not path.is_file():
        raise ValueError(f"there are no predictions at {path}")
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is no archive, or cut off")
            file.seek(0)
            archive = np.load(file, allow_pickle=False)
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not a file of predictions: {error}") from None

"""Predictions in a file come back as they were; files of something else are refused with a sentence."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.predictions import FORMAT, load_predictions, save_predictions
from golden.layer import Prediction
from golden.network import run_network
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import random_map
from sim_tests.golden_model.random_networks import random_network


def network(seed):
    """A random network with at least one prediction."""
    while True:
        found = random_network(np.random.default_rng(seed), CONFIGS["tiny_snapea"], depth=5)
        if any(layer.prediction and layer.prediction.weights.any() for layer in found.layers):
            return found
        seed += 100


def without(found):
    return replace(found, layers=tuple(replace(layer, prediction=None) for layer in found.layers))


@pytest.mark.parametrize("seed", range(3))
def test_predictions_come_back(seed, tmp_path):
    before, path = network(seed), tmp_path / "folder" / "predictions.npz"
    save_predictions(before, path)
    after = load_predictions(without(before), path)
    for old, new in zip(before.layers, after.layers, strict=True):
        assert (old.prediction is None) == (new.prediction is None)
        if old.prediction is not None:
            assert (old.prediction.weights == new.prediction.weights).all()
            assert (old.prediction.thresholds == new.prediction.thresholds).all()
    first = before.layers[0]
    x = random_map(np.random.default_rng(seed), first.in_shape, width=8, signed=first.signed_in, density=0.5)
    old, new = run_network(before, x)[0], run_network(after, x)[0]
    assert all((old[name] == new[name]).all() for name in old)
    assert [part.name for part in path.parent.iterdir()] == ["predictions.npz"]


def test_a_network_that_had_others_gets_those_of_the_file(tmp_path):
    before = network(1)
    save_predictions(without(before), tmp_path / "none.npz")
    assert not any(layer.prediction for layer in load_predictions(before, tmp_path / "none.npz").layers)


def damaged(path, change):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)


@pytest.mark.parametrize("change, message", [
    (lambda arrays: arrays.update(format=np.array("other")), f"in the format '{FORMAT}'"),
    (lambda arrays: arrays.pop("layers"), f"in the format '{FORMAT}'"),
    (lambda arrays: arrays.pop("weights0"), "lacks 'weights0' of layer"),
    (lambda arrays: arrays.update(layers=np.array(["nobody"])), "for layer nobody, which network random has not"),
    (lambda arrays: arrays.update(weights0=arrays["weights0"][:, :0]), "not of this network as it was quantised here"),
    (lambda arrays: arrays.update(weights0=arrays["weights0"] * 0 + 127), "do not lie between 0 and its own"),
    (lambda arrays: arrays.update(thresholds0=np.full_like(arrays["thresholds0"], 1 << 31, np.int64)),
     "does not fit 32 bits")])
def test_files_that_do_not_fit_are_refused(change, message, tmp_path):
    found, path = network(1), tmp_path / "predictions.npz"
    save_predictions(found, path)
    damaged(path, change)
    with pytest.raises(ValueError, match=message):
        load_predictions(without(found), path)


def test_other_files_are_refused(tmp_path):
    found = network(1)
    with pytest.raises(ValueError, match="there are no predictions at"):
        load_predictions(found, tmp_path / "nothing.npz")
    for content in (b"", b"PK\3\4 cut off", b"no archive"):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ValueError, match="is not a file of predictions"):
            load_predictions(found, tmp_path / "bad.npz")
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match="is not a file of predictions"):
        load_predictions(found, tmp_path / "array.npy")


def test_predictions_are_checked_against_the_layer():
    layer = next(layer for layer in network(1).layers if layer.prediction)
    for prediction in (Prediction(-layer.prediction.weights - layer.weights, layer.prediction.thresholds),
                       Prediction(layer.weights, layer.prediction.thresholds[:-1])):
        with pytest.raises(ValueError, match=f"layer {layer.name} has"):
            replace(layer, prediction=prediction)
    with pytest.raises(ValueError, match="none of them can be predicted to be 0"):
        replace(layer, low=-5)

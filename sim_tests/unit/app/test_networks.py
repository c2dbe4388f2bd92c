"""The networks of PyPI packages give the results that their files are known for. Skipped without the packages."""
import numpy as np
import pytest

from compiler.images import fit, load_photo, package_file
from compiler.networks import digits, hed
from compiler.quantise import quantise
from golden.network import run_network
from hw.configs import CONFIGS


def need(package, path, *_):
    try:
        package_file(package, path)
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def hed_maps():
    """Float maps of a small photograph."""
    need(*hed.WEIGHTS)
    need("scikit-image", "skimage/data/chelsea.png")
    x = hed.prepare(fit(load_photo("chelsea"), 100, 75))
    network = hed.build(75, 100)
    return network, x, network.run_float(x)


def test_hed_is_vgg16_with_side_outputs(hed_maps):
    network, _, maps = hed_maps
    assert [layer.name for layer in network.layers if layer.name in hed.TRUNK] == list(hed.TRUNK)
    assert len(network.layers) == 18 and network.outputs == hed.SIDES
    channels = [maps[name].shape[0] for name in hed.TRUNK]
    assert channels == [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    # Pooling in ceil mode: 75 x 100, 38 x 50, 19 x 25, 10 x 13, 5 x 7
    assert [maps[name].shape for name in hed.SIDES] == [(1, 75, 100), (1, 38, 50), (1, 19, 25), (1, 10, 13), (1, 5, 7)]
    assert sum(layer.weights.size for layer in network.layers if layer.name in hed.TRUNK) == 14_710_464


def test_hed_has_the_known_sparsity(hed_maps):
    """Published for these weights on six photographs at 224x224; one small photograph is near it."""
    _, _, maps = hed_maps
    known = (.490, .714, .773, .937, .641, .665, .879, .555, .680, .809, .887, .875, .736)
    full = [maps.get(f"{name}.full", maps[name]) for name in hed.TRUNK]
    zeros = np.array([(values == 0).mean() for values in full])
    assert np.abs(zeros - known).max() < .15 and np.abs(zeros - known).mean() < .05, zeros.round(3)


def test_hed_finds_the_edge_of_a_drawn_square():
    need(*hed.WEIGHTS)
    photo = np.full((64, 64, 3), 40, np.uint8)
    photo[20:44, 20:44] = 220
    maps = hed.build(64, 64).run_float(hed.prepare(photo))
    edges = hed.edge_map([maps[name] for name in hed.SIDES], 64, 64)
    assert edges.shape == (64, 64) and 0 <= edges.min() and edges.max() <= 1
    border = np.zeros((64, 64), bool)
    border[18:46, 18:46], border[23:41, 23:41] = True, False
    inside, outside = edges[28:36, 28:36].mean(), edges[4:12, 4:60].mean()
    assert edges[border].mean() > 4 * max(inside, outside), (edges[border].mean(), inside, outside)


def test_hed_input_is_blue_green_red_minus_mean():
    photo = np.zeros((2, 3, 3), np.uint8)
    photo[1, 2] = (10, 20, 30)
    x = hed.prepare(photo)
    assert x.shape == (3, 2, 3) and x.dtype == np.float32 and x.flags.c_contiguous
    assert x[:, 1, 2] == pytest.approx([30 - 104.00699, 20 - 116.66877, 10 - 122.67892])


def test_edge_map_weighs_and_upsamples():
    """Constant sides: the sigmoid of the weighted sum. A side of two pixels rises from one to the other."""
    need(*hed.WEIGHTS)
    flat = [np.full((1, 1, 1), value) for value in (1., 0, 0, 0, 0)]
    edges = hed.edge_map(flat, 5, 7)
    assert edges.shape == (5, 7)
    assert edges == pytest.approx(1 / (1 + np.exp(-(0.20157109 - 0.00116236))), abs=1e-6)
    slope = hed.edge_map([np.array([[[0., 4.]]]), *flat[1:]], 1, 8)[0]
    assert (np.diff(slope) >= 0).all() and slope[0] == slope[1] and slope[-1] == slope[-2] and slope[3] < slope[4]


@pytest.fixture(scope="module")
def digit_set():
    need(*digits.WEIGHTS)
    need(*digits.DIGITS)
    return digits.build(), *digits.load_digits()


def test_digits_are_balanced_and_shuffled(digit_set):
    _, pictures, classes = digit_set
    assert pictures.shape == (5000, 28, 28) and pictures.dtype == np.uint8
    assert np.bincount(classes).tolist() == [500] * 10 and len(set(classes[:20].tolist())) > 5
    assert abs((pictures / 255).mean() - .1307) < .005


@pytest.mark.parametrize("config", ["tiny", "nullhop"])
def test_digits_are_recognised_in_float_and_quantised(digit_set, config):
    network, pictures, classes = digit_set
    inputs = [digits.prepare(picture) for picture in pictures[:160]]
    quantised = quantise(network, inputs[:32], CONFIGS[config])
    by_float = np.array([network.run_float(x)["fc2"].argmax() for x in inputs])
    by_golden = np.array([run_network(quantised, quantised.quantise_input(x))[0]["fc2"].argmax() for x in inputs])
    assert (by_float == classes[:160]).mean() > .97
    assert (by_golden == by_float).mean() > .97


def test_digit_input_is_normalised():
    x = digits.prepare(np.array([[0, 255]], np.uint8))
    assert x.shape == (1, 1, 2) and x[0, 0] == pytest.approx([-.1307 / .3081, (1 - .1307) / .3081])

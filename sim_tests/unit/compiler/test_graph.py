"""Networks: shapes, the float run, and what is refused."""
import numpy as np
import pytest
import torch

from compiler.graph import Layer, Network


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_float_run_equals_torch():
    layers = [Layer("a", "input", weights(6, 3, 3, 3), weights(6), stride=2, pad=(1, 0, 2, 1), pool=2, pool_ceil=True,
                    keep_full=True),
              Layer("b", "a", weights(4, 6, 3, 3, seed=1), relu=False, pool=2),
              Layer("c", "a.full", weights(5, 6, 1, 1, seed=2))]
    network = Network("network", (3, 14, 19), layers, outputs=("b", "c"))
    x = weights(3, 14, 19, seed=3)
    maps = network.run_float(x)
    padded = torch.nn.functional.pad(torch.from_numpy(x)[None], (0, 1, 1, 2))
    full = torch.relu(torch.nn.functional.conv2d(padded, torch.from_numpy(layers[0].weights),
                                                 torch.from_numpy(layers[0].bias), stride=2))
    pooled = torch.nn.functional.max_pool2d(full, 2, ceil_mode=True)
    last = torch.nn.functional.max_pool2d(torch.nn.functional.conv2d(pooled, torch.from_numpy(layers[1].weights)), 2)
    for name, expected in (("a.full", full), ("a", pooled), ("b", last)):
        np.testing.assert_allclose(maps[name], expected[0], rtol=1e-5, atol=1e-5)
    assert maps["b"].min() < 0 <= maps["c"].min()
    assert {name: values.shape for name, values in maps.items()} == network.maps


def test_default_output_is_the_last_map():
    assert Network("n", (1, 2, 2), [Layer("a", "input", weights(1, 1, 1, 1))]).outputs == ("a",)


def test_fully_connected_layers():
    network = Network("n", (8, 7, 7), [Layer("a", "input", weights(4, 8, 7, 7)), Layer("b", "a", weights(3, 4, 1, 1))])
    assert network.maps["b"] == (3, 1, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_ceil_pool_of_a_small_map(size):
    layer = Layer("a", "input", np.ones((1, 1, 1, 1)), pool=3, pool_ceil=True)
    x = np.arange(1, 1 + size[0] * size[1], dtype=np.float32).reshape(1, *size)
    network = Network("n", x.shape, [layer])
    values = network.run_float(x)["a"]
    assert values.shape == network.maps["a"] and values.max() == x.max()


def layer(**changes):
    return Layer(**{"name": "a", "input": "input", "weights": weights(4, 3, 3, 3)} | changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"weights": weights(4, 3, 8, 3)}, "kernel of 8 x 3"), ({"weights": weights(4, 1, 3, 3)}, "groups are not"),
    ({"weights": weights(4, 5, 3, 3)}, "weights for 5 channels"), ({"weights": weights(4, 3)}, "weights .O, I"),
    ({"weights": weights(0, 3, 3, 3)}, "empty"), ({"weights": np.full((4, 3, 3, 3), np.nan)}, "not finite"),
    ({"weights": weights(8192, 3, 1, 1)}, "8192 output channels"),
    ({"stride": 5}, "stride 5"), ({"stride": 0}, "stride 0"),
    ({"pad": (0, 0, 0, 16)}, "padding"), ({"pad": (0, 0)}, "padding"), ({"pool": 1}, "pool of 1"),
    ({"bias": weights(3)}, "bias of shape"), ({"bias": np.full(4, np.inf)}, "not finite"),
    ({"input": "b"}, "reads 'b'"),
    ({"weights": weights(4, 3, 7, 7)}, "no output"), ({"name": "input"}, "exists already"),
    ({"pool": 2, "keep_full": True}, "ceil mode")])
def test_layers_that_cannot_run_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Network("n", (3, 5, 5), [layer(**changes)])


def test_networks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="no layers"):
        Network("n", (3, 5, 5), [])
    with pytest.raises(ValueError, match="no map 'z'"):
        Network("n", (3, 5, 5), [layer()], outputs=("z",))
    with pytest.raises(ValueError, match="positive sizes"):
        Network("n", (3, 0, 5), [layer()])
    with pytest.raises(ValueError, match="exceeds"):
        Network("n", (3, 5000, 5), [layer()])

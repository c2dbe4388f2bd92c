"""Networks: shapes, the float run, and what is refused."""
import numpy as np
import pytest
import torch

from compiler.graph import Layer, Network, Slice, Target


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_float_run_equals_torch():
    layers = [Layer("a", [Slice("input", 0, 3)], weights(6, 3, 3, 3), weights(6), stride=2, pad=(1, 0, 2, 1), pool=2,
                    pool_ceil=True, full=Target("a.full")),
              Layer("b", [Slice("a", 0, 6)], weights(4, 6, 3, 3, seed=1), relu=False, pool=2),
              Layer("c", [Slice("a.full", 0, 6)], weights(5, 6, 1, 1, seed=2))]
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


def test_channels_side_by_side_and_sums():
    """Two writers of one map with a gap between them, a reader of both, a layer that adds a later slice of it."""
    network = Network("n", (3, 5, 6), [
        Layer("a", [Slice("input", 0, 3)], weights(4, 3, 1, 1), output=Target("both"), high=0.5),
        Layer("b", [Slice("input", 1, 2)], weights(5, 2, 1, 1, seed=1), output=Target("both", 16), relu=False),
        Layer("c", [Slice("both", 0, 4), Slice("both", 16, 5)], weights(5, 9, 1, 1, seed=2), output=Target("both", 32)),
        Layer("d", [Slice("both", 16, 5), Slice("both", 32, 5)], np.tile(np.eye(5), 2)[..., None, None], relu=False)])
    assert network.maps == {"input": (3, 5, 6), "both": (37, 5, 6), "d": (5, 5, 6)}
    assert [(layer.name, target.first) for layer, target in network.writers("both")] == [("a", 0), ("b", 16), ("c", 32)]
    x = weights(3, 5, 6, seed=3)
    maps, kernels = network.run_float(x), [layer.weights[:, :, 0, 0] for layer in network.layers]
    a = np.clip(np.einsum("oc,chw->ohw", kernels[0], x), 0, 0.5)
    b = np.einsum("oc,chw->ohw", kernels[1], x[1:])
    c = np.maximum(np.einsum("oc,chw->ohw", kernels[2], np.concatenate([a, b])), 0)
    expected = np.zeros((37, 5, 6))
    expected[:4], expected[16:21], expected[32:] = a, b, c
    np.testing.assert_allclose(maps["both"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(maps["d"], b + c, rtol=1e-5, atol=1e-5)
    assert maps["both"][:4].max() == 0.5 and maps["both"].min() < 0


def test_default_output_is_the_last_map():
    assert Network("n", (1, 2, 2), [Layer("a", [Slice("input", 0, 1)], weights(1, 1, 1, 1))]).outputs == ("a",)


def test_fully_connected_layers():
    network = Network("n", (8, 7, 7), [Layer("a", [Slice("input", 0, 8)], weights(4, 8, 7, 7)),
                                       Layer("b", [Slice("a", 0, 4)], weights(3, 4, 1, 1))])
    assert network.maps["b"] == (3, 1, 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (2, 2)])
def test_ceil_pool_of_a_small_map(size):
    layer = Layer("a", [Slice("input", 0, 1)], np.ones((1, 1, 1, 1)), pool=3, pool_ceil=True)
    x = np.arange(1, 1 + size[0] * size[1], dtype=np.float32).reshape(1, *size)
    network = Network("n", x.shape, [layer])
    values = network.run_float(x)["a"]
    assert values.shape == network.maps["a"] and values.max() == x.max()


def layer(**changes):
    return Layer(**{"name": "a", "inputs": [Slice("input", 0, 3)], "weights": weights(4, 3, 3, 3)} | changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"weights": weights(4, 3, 8, 3)}, "kernel of 8 x 3"), ({"weights": weights(4, 1, 3, 3)}, "weights for 1 channels"),
    ({"weights": weights(4, 5, 3, 3)}, "weights for 5 channels"), ({"weights": weights(4, 3)}, "weights .O, I"),
    ({"weights": weights(0, 3, 3, 3)}, "empty"), ({"weights": np.full((4, 3, 3, 3), np.nan)}, "not finite"),
    ({"weights": weights(8192, 3, 1, 1)}, "8192 output channels"),
    ({"stride": 5}, "stride 5"), ({"stride": 0}, "stride 0"),
    ({"pad": (0, 0, 0, 16)}, "padding"), ({"pad": (0, 0)}, "padding"), ({"pool": 1}, "pool of 1"),
    ({"bias": weights(3)}, "bias of shape"), ({"bias": np.full(4, np.inf)}, "not finite"),
    ({"inputs": [Slice("b", 0, 3)]}, "reads 'b'"),
    ({"weights": weights(4, 3, 7, 7)}, "no output"), ({"output": Target("input")}, "only the user fills"),
    ({"pool": 2, "full": Target("b")}, "ceil mode"), ({"pool": 3, "full": Target("b")}, "only a 2x2 pool"),
    ({"full": Target("b")}, "only a 2x2 pool"), ({"high": 0.0}, "upper bound of 0.0"),
    ({"high": np.inf}, "upper bound of inf"),
    ({"out_scale": -1.0}, "scale of -1.0"), ({"inputs": []}, "reads no map"),
    ({"inputs": [Slice("input", 1, 3)]}, "reads channels 1 to 3 of input, which has 3 then"),
    ({"inputs": [Slice("input", -1, 3)]}, "reads channels -1 to 1"),
    ({"inputs": [Slice("input", 0, 0), Slice("input", 0, 3)]}, "reads channels 0 to -1"),
    ({"output": Target("a", -16)}, "from channel -16 on")])
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
    with pytest.raises(ValueError, match="two layers 'a'"):
        Network("n", (3, 5, 5), [layer(), layer(output=Target("b"))])


@pytest.mark.parametrize(("changes", "message"), [
    ({"output": Target("a", 3)}, "layer b writes channels 3 to 6 of a, but layer a writes channels 0 to 3 before"),
    ({"output": Target("a", 4), "stride": 2}, "layer b writes 2 x 2 values to a, which has 3 x 3"),
    ({"inputs": [Slice("input", 0, 1), Slice("a", 0, 2)]}, "reads maps of different sizes"),
    ({"inputs": [Slice("a", 2, 3)]}, "reads channels 2 to 4 of a, which has 4 then"),
    ({"inputs": [Slice("a", 0, 3)], "weights": weights(4, 3, 1, 1), "output": Target("a", 2)}, "layer a writes"),
    ({"output": Target("a", 8190)}, "exceeds 8191 channels")])
def test_layers_that_do_not_fit_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Network("n", (3, 5, 5), [layer(), layer(**{"name": "b"} | changes)])


def test_what_has_been_read_is_not_written_later():
    layers = [layer(output=Target("m")), layer(name="b", output=Target("m", 16)),
              layer(name="c", inputs=[Slice("m", 0, 18)], weights=weights(2, 18, 1, 1)),
              layer(name="d", output=Target("m", 5))]
    with pytest.raises(ValueError, match="layer d writes channels 5 to 8 of m, but layer c reads channels 0 to 17"):
        Network("n", (3, 5, 5), layers)

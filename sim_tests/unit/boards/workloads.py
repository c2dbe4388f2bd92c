"""A small float network as a workload, for tests of what costs networks."""
import numpy as np

from boards.workload import Workload
from compiler.graph import Layer, Network, Slice


def two_layers(seed: int) -> Workload:
    """A 3x3 convolution with a 2x2 pool, then a 1x1 convolution of half-empty maps; random weights and inputs."""
    rng = np.random.default_rng(seed)
    first = Layer(name="first", inputs=(Slice("input", 0, 3),), weights=rng.normal(size=(40, 3, 3, 3)),
                  bias=rng.normal(size=40), pad=(1, 1, 1, 1), relu=True, pool=2)
    second = Layer(name="second", inputs=(Slice("first", 0, 40),), weights=rng.normal(size=(20, 40, 1, 1)), bias=None,
                   relu=False)
    network = Network("two", (3, 12, 10), (first, second))
    inputs = [rng.random((3, 12, 10), np.float32) for _ in range(2)]
    return Workload("two", lambda config: (network, ()), lambda config: (), inputs, inputs[0])

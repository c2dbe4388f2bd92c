"""Predicted zeros on the networks of the benchmark: the search, and what it costs on inputs that it has not seen.

    evaluation = Evaluation(quantised, case, benchmark.measure, split.search)
    outcomes, networks = search_predictions(name, evaluation, config, high_bits, stages)
    means, zeros = score_networks(benchmark, case, data, networks, split.test, stages)

A network's *loss* against itself without predictions is in points, and smooth, so that few inputs are enough: for
classes 100 times the probability (softmax) that the class of the undisturbed network loses, on average; for others 100
times the mean difference of the outputs, which are 0 to 1.
"""
from collections import Counter, defaultdict
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import numba
import numpy as np
import torch

from compiler.images import PHOTOS
from compiler.progress import Stages
from golden.network import QuantisedNetwork
from hw.config import AcceleratorConfig
from methods.controls import count_products, prune_to
from methods.early_activation import Outcome, predict

from .bench_networks.batch import Batch, run_layer
from .bench_networks.batch import predict as predict_zeros
from .bench_networks.data import Data
from .bench_networks.measure import BATCH_VALUES, real_maps
from .bench_networks.registry import TOP1, Benchmark, Measure

#: Points that may be lost on the inputs of the search.
BUDGETS = (0.3, 1., 3.)
#: Seed of the choice of inputs, of windows and of the random control.
SEED = 1
#: Neighbouring frames of a film are on one side.
FRAMES = 30
#: Inputs that products are counted on; least inputs of the local pass, if there are as many.
COUNTED, LOCAL_INPUTS = 2, 24
#: The budget that a prediction by high bits alone is searched for, and its name.
HIGH_BITS_BUDGET = 1.
HIGH_BITS = f"{HIGH_BITS_BUDGET:g} high bits"


def use_one_thread() -> None:
    """Whatever this process computes takes one thread. Torch has the threads of the last parallel loop of Numba, whose
    OpenMP it shares, or those that Numba begins with, and with more than one its small operations take many times as
    long."""
    numba.set_num_threads(1)
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Split:
    """Inputs of the search, in the order of the network's file, and numbers of the items of the data that it has not
    seen."""
    search: list[np.ndarray]
    test: list[int]


def training(data: Data) -> Split:
    """The calibration inputs, none of which is an item."""
    return Split(data.calibration, list(range(len(data.items))))


def halves(data: Data) -> Split:
    """Half of the items each, drawn by :data:`SEED`."""
    order = np.random.default_rng(SEED).permutation(len(data.items))
    half = len(order) // 2
    return Split([data.input(number) for number in order[:half]], sorted(map(int, order[half:])))


def blocks(data: Data) -> Split:
    """Every second block of :data:`FRAMES` items."""
    numbers = range(len(data.items))
    return Split([data.input(number) for number in numbers if number // FRAMES % 2 == 0],
                 [number for number in numbers if number // FRAMES % 2])


def photographs(data: Data) -> Split:
    """The two corners of the first photographs, and the middles of the last three."""
    search = len(PHOTOS) - 3
    return Split(data.calibration[:2 * search], list(range(search, len(PHOTOS))))


class Evaluation:
    """Networks on the same ``inputs`` (in the file's order) as ``network``, from which they differ in some layers;
    ``integers`` are its inputs [C, H, W]."""

    def __init__(self, network: QuantisedNetwork, case, measure: Measure, inputs: list[np.ndarray]):
        self.network, self.case, self.measure = network, case, measure
        self.integers = [network.quantise_input(case.input_map(x)) for x in inputs]
        step = batch_size(network)
        self.batches = [Batch(network, np.stack(self.integers[first:first + step]))
                        for first in range(0, len(inputs), step)]
        self.undisturbed = [output for batch in self.batches for output in self._outputs(batch.maps)]

    def sample(self) -> "Evaluation":
        """The same on every n-th batch: :data:`LOCAL_INPUTS` inputs or more, unless there are fewer."""
        part, step, size = copy(self), max(1, len(self.integers) // LOCAL_INPUTS), batch_size(self.network)
        part.batches = self.batches[::step]
        part.integers, part.undisturbed = ([one for number, one in enumerate(items) if number // size % step == 0]
                                           for items in (self.integers, self.undisturbed))
        return part

    def outputs(self, network: QuantisedNetwork) -> list[list[np.ndarray]]:
        """The outputs of the file for each input."""
        return [output for batch in self.batches for output in self._outputs(batch.rerun(network))]

    def loss(self, network: QuantisedNetwork) -> float:
        """The loss of ``network``."""
        return float(np.mean(self.losses(self.outputs(network))))

    def losses(self, outputs: list[list[np.ndarray]]) -> list[float]:
        """The loss on each input, of what :meth:`outputs` returned."""
        difference = _lost_probability if self.measure is TOP1 else _mean_difference
        return [100 * float(difference(found[0], expected[0]))
                for found, expected in zip(outputs, self.undisturbed, strict=True)]

    def run(self, network: QuantisedNetwork) -> tuple[list[list[np.ndarray]], dict[str, Counter]]:
        """The outputs, and of each layer with a prediction: its ``outputs``, those that are ``zero`` without it, those
        that are ``predicted`` to be, and ``missed``: predicted, but not zero."""
        outputs, found = [], {layer.name: Counter() for layer in network.layers if layer.prediction}
        for batch in self.batches:
            maps = batch.rerun(network)
            outputs += self._outputs(maps)
            for layer in network.layers:
                if layer.prediction:
                    x = batch.gather(layer, maps)
                    zero, predicted = run_layer(replace(layer, prediction=None), x)[0] == 0, predict_zeros(layer, x)
                    found[layer.name] += Counter(outputs=zero.numel(), zero=int(zero.sum()),
                                                 predicted=int(predicted.sum()), missed=int((predicted & ~zero).sum()))
        return outputs, found

    def random_zeros(self, zeros: dict[str, Counter]) -> list[list[np.ndarray]]:
        """The outputs if as many outputs of each layer are 0 as ``zeros`` has predicted, wherever they are."""
        generator, outputs = torch.Generator().manual_seed(SEED), []
        for batch in self.batches:
            masks = {}
            for layer in self.network.layers:
                if counts := zeros.get(layer.name):
                    shape = (len(batch.maps[self.network.input_name]), *layer.full_shape)
                    masks[layer.name] = _random_mask(shape, counts["predicted"] / counts["outputs"], generator)
            outputs += self._outputs(batch.rerun(self.network, masks))
        return outputs

    def _outputs(self, maps):
        integers = {name: maps[name].numpy().astype(np.int64) for name in self.network.outputs}
        count = len(maps[self.network.input_name])
        return [self.case.outputs(real_maps(self.network, {name: values[number] for name, values in integers.items()}))
                for number in range(count)]


def batch_size(network: QuantisedNetwork) -> int:
    """How many inputs are computed together."""
    return max(1, BATCH_VALUES // sum(int(np.prod(shape)) for shape in network.maps.values()))


def _random_mask(shape, share, generator):
    number = int(np.prod(shape))
    mask = torch.zeros(number, dtype=torch.bool)
    mask[torch.randperm(number, generator=generator)[:round(share * number)]] = True
    return mask.reshape(shape)


def _lost_probability(found, expected):
    found, expected = (np.exp(values.ravel() - values.max()) for values in (found, expected))
    found, expected = found / found.sum(), expected / expected.sum()
    return max(0., expected.max() - found[expected.argmax()])


def _mean_difference(found, expected):
    return np.abs(found - expected).mean()


def search_predictions(name: str, evaluation: Evaluation, config: AcceleratorConfig,
                       high_bits: bool, stages: Stages) -> tuple[dict[str, Outcome], dict[str, QuantisedNetwork]]:
    """The outcome for each of :data:`BUDGETS` (``"1"``) and, if asked, for :data:`HIGH_BITS`, and the networks to
    compare: ``none``; those with predictions; those pruned to as many products as for a budget (``"1 pruned"``)."""
    quantised, inputs = evaluation.network, evaluation.integers
    search = partial(predict, quantised, inputs, evaluation.loss, config, local_loss=evaluation.sample().loss,
                     seed=SEED)
    with stages.stage(f"{name}: predictions", 100) as update:
        outcomes = {f"{budget:g}": outcome for budget, outcome in search(BUDGETS, progress=update).items()}
    with stages.stage(f"{name}: pruning"):
        def count(network):
            return count_products(network, inputs[:COUNTED], config).products
        pruned = prune_to(quantised, [count(outcome.network) for outcome in outcomes.values()], count)
    networks = {"none": quantised}
    for (budget, outcome), control in zip(outcomes.items(), pruned, strict=True):
        networks |= {budget: outcome.network, f"{budget} pruned": control}
    if high_bits:
        with stages.stage(f"{name}: high bits", 100) as update:
            outcomes[HIGH_BITS] = search((HIGH_BITS_BUDGET,), high_bits=True, progress=update)[HIGH_BITS_BUDGET]
        networks[HIGH_BITS] = outcomes[HIGH_BITS].network
    return outcomes, networks


def score_networks(benchmark: Benchmark, case, data: Data, networks: dict[str, QuantisedNetwork], items: list[int],
                   stages: Stages) -> tuple[dict[str, dict], dict[str, dict]]:
    """How ``networks`` (one of them ``none``) and ``"NAME random"`` for those with predictions do on the ``items``.

    The first dict has, by name, means of ``score`` (the benchmark's measure), ``same`` (that measure against ``none``)
    and ``loss``; ``float`` has a score alone. The second one has what :meth:`Evaluation.run` counts.
    """
    records, zeros = defaultdict(list), defaultdict(lambda: defaultdict(Counter))
    step, score = batch_size(networks["none"]), benchmark.measure.score
    with stages.stage(f"{benchmark.name}: accuracy of predictions", len(items)) as update:
        for first in range(0, len(items), step):
            numbers = items[first:first + step]
            inputs = [data.input(number) for number in numbers]
            labels = [None if data.labels is None else data.labels[number] for number in numbers]
            evaluation = Evaluation(networks["none"], case, benchmark.measure, inputs)
            floats = [case.expected(x) for x in inputs]
            records["float"] += [{"score": score(one, one, label)} for one, label in zip(floats, labels, strict=True)]
            for name, outputs in _runs(evaluation, networks, zeros):
                records[name] += [
                    {"score": score(_as(found, one), one, label), "same": score(found, before, None), "loss": loss}
                    for found, one, label, before, loss in zip(outputs, floats, labels, evaluation.undisturbed,
                                                               evaluation.losses(outputs), strict=True)]
            update(first + len(numbers), f"{first + len(numbers)} of {len(items)}")
    means = {name: {key: float(np.mean([record[key] for record in found])) for key in found[0]}
             for name, found in records.items()}
    return means, {name: dict(layers) for name, layers in zeros.items()}


def _runs(evaluation, networks, zeros):
    """Name and outputs of each of ``networks``, and of its random control; what it predicts is added to ``zeros``."""
    for name, network in networks.items():
        outputs, counts = evaluation.run(network)
        yield name, outputs
        if counts:
            yield f"{name} random", evaluation.random_zeros(counts)
            for layer, count in counts.items():
                zeros[name][layer] += count


def _as(outputs, like):
    """``outputs`` in the shapes of ``like``: a map has three dimensions, the file's output may have fewer."""
    return [np.reshape(one, other.shape) for one, other in zip(outputs, like, strict=True)]

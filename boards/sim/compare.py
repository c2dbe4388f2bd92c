"""The accelerator's maps against golden's: one record for each layer of a run."""
import numpy as np

from golden.layer import LayerResult
from golden.network import QuantisedNetwork

from .report import LayerRecord


def compare_run(network: QuantisedNetwork, golden_maps: dict[str, np.ndarray], results: dict[str, LayerResult],
                maps: dict[str, np.ndarray], counters: list[dict]) -> tuple[list[LayerRecord], list[str]]:
    """Compares every map that the layers wrote.

    Parameters
    ----------
    network : QuantisedNetwork
        What was run.
    golden_maps, results : dict
        What ``golden.network.run_network`` gave for the same input.
    maps : dict
        The maps read back from DRAM, by name.
    counters : list of dict
        The counters that the hardware wrote, a dictionary for each layer.

    Returns
    -------
    The records of the layers, and a sentence for each map that differs.
    """
    records, problems = [], []
    for layer, count in zip(network.layers, counters, strict=True):
        compared = mismatches = 0
        for name in layer.maps:
            differs = maps[name] != golden_maps[name]
            compared += differs.size
            mismatches += int(differs.sum())
            if differs.any():
                first = tuple(int(index) for index in np.argwhere(differs)[0])
                problems.append(f"{name}: {differs.sum()} of {differs.size} values differ; the first at channel, row, "
                                f"column {first} is {maps[name][first]}, golden has {golden_maps[name][first]}")
        x, result = golden_maps[layer.input], results[layer.name]
        records.append(LayerRecord(
            name=layer.name, shape=tuple(layer.full_shape), macs=result.macs, nonzero_macs=result.nonzero_macs,
            input_values=x.size, input_nonzeros=int(np.count_nonzero(x)),
            output_values=result.full.size, output_nonzeros=int(np.count_nonzero(result.full)),
            compared=compared, mismatches=mismatches, counters=dict(count)))
    return records, problems

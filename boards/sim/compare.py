"""The accelerator's maps against golden's: one record for each layer of a run."""
import numpy as np

from compiler.emit import Program
from golden.layer import LayerResult
from golden.network import gather

from .early import count_early
from .report import LayerRecord


def compare_run(program: Program, golden_maps: dict[str, np.ndarray], results: dict[str, LayerResult],
                maps: dict[str, np.ndarray], counters: list[dict]) -> tuple[list[LayerRecord], list[str]]:
    """Compares every map that the layers wrote.

    Parameters
    ----------
    program : Program
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
    for layer, count in zip(program.network.layers, counters, strict=True):
        compared = mismatches = 0
        for target in layer.targets:
            name, channels = target.map, slice(target.first, target.first + len(layer.weights))
            differs = np.zeros(golden_maps[name].shape, bool)
            differs[channels] = maps[name][channels] != golden_maps[name][channels]
            compared += differs[channels].size
            mismatches += int(differs.sum())
            if differs.any():
                first = tuple(int(index) for index in np.argwhere(differs)[0])
                found, wanted = maps[name][first], golden_maps[name][first]
                problems.append(f"{name}: {differs.sum()} of {differs[channels].size} values differ; the first at "
                                f"channel, row, column {first} is {found}, golden has {wanted}")
        x, result = gather(golden_maps, layer.inputs), results[layer.name]
        records.append(LayerRecord(
            name=layer.name, shape=tuple(layer.full_shape), macs=result.macs, nonzero_macs=result.nonzero_macs,
            input_values=x.size, input_nonzeros=int(np.count_nonzero(x)),
            output_values=result.full.size, output_nonzeros=int(np.count_nonzero(result.full)),
            compared=compared, mismatches=mismatches, counters=dict(count),
            early=count_early(program, layer, x, result)))
    return records, problems

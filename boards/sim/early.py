"""What the intersect array did not multiply in a layer, and why: counts of golden, for the report."""
import numpy as np

from compiler.emit import Program
from compiler.phases import phase_weights, stop_phase
from golden.layer import LayerResult, QuantisedLayer
from golden.tasks import TaskCounts, count_tasks
from golden.tiling import MAX_PHASES


def count_early(program: Program, layer: QuantisedLayer, x: np.ndarray, result: LayerResult) -> dict | None:
    """Counts of ``layer`` of ``program`` for its input ``x[C, H, W]``; None with the broadcast array.

    ``skipping``: products where neither activation nor weight is 0. ``products``: those that are left of them when sums
    are stopped, by phase; windows that tiles share count once. ``outputs``; of them ``stopped``: not computed to the
    end, those that are predicted included; ``predicted`` to be 0; ``missed``: predicted, but above 0 without the
    prediction.
    """
    if not program.config.intersect:
        return None
    work = layer_tasks(program, layer, x)
    products = work.products.sum(1).tolist()
    return {"skipping": int(work.skipping.sum()), "products": products + [0] * (MAX_PHASES - len(products)),
            "outputs": result.full.size, "stopped": int(work.stopped.sum()), "predicted": result.predicted,
            "missed": result.missed}


def layer_tasks(program: Program, layer: QuantisedLayer, x: np.ndarray) -> TaskCounts:
    """The tasks of ``layer``, as ``program`` runs it on the intersect array, for its input ``x[C, H, W]``."""
    tiling = program.choices[layer.name].tiling
    return count_tasks(layer, x, tiling, phase_weights(layer, tiling.phases, tiling.joined),
                       stop_phase(layer, tiling.phases), block=program.config.block)


def early_sentence(early: dict) -> str:
    """The counts in a sentence, for people."""
    def share(part, whole):
        return f"{100 * part / whole if whole else 0:.1f} %"

    text = (f"early activation: {share(sum(early['products']), early['skipping'])} of the products that zero skip "
            f"leaves, {share(early['stopped'], early['outputs'])} of the outputs stopped")
    if early["predicted"]:
        text += (f"; {share(early['predicted'], early['outputs'])} predicted to be 0, "
                 f"{share(early['missed'], early['predicted'])} of them wrongly")
    return text

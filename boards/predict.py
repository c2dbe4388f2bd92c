"""``zeroskip predict``: which outputs of a network may be predicted to be 0, as a file that ``make sim`` takes."""
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from compiler.networks import hed
from compiler.predictions import save_predictions
from compiler.progress import Stages
from hw.config import AcceleratorConfig
from hw.configs import get_config
from methods.early_activation import Outcome, predict

from .bench_networks.registry import TOP1, Measure
from .predictions import SEED, Evaluation, use_one_thread
from .workload import (
    CalibOption,
    CountOption,
    MeanOption,
    ShapeOption,
    SizeOption,
    StdOption,
    Workload,
    exit_status,
    load_workload,
)

#: What is not scores of classes: the mean difference of outputs, in units of the largest one.
VALUES = Measure("mean difference of the outputs", None)


class _Case:
    """The outputs of a workload's network from real maps: edges, scores, or values over the largest one."""

    def __init__(self, workload: Workload, outputs: tuple[str, ...]):
        self.workload, self.names, self.unit = workload, outputs, 1.0

    def input_map(self, x: np.ndarray) -> np.ndarray:
        """``x`` itself."""
        return x

    def outputs(self, maps: dict[str, np.ndarray]) -> list[np.ndarray]:
        """One array: the values of all outputs."""
        if self.workload.name == "hed":
            return [hed.edge_map([maps[name] for name in hed.SIDES], *self.workload.x.shape[1:])]
        return [np.concatenate([maps[name].ravel() for name in self.names]) / self.unit]


def search(workload: Workload, config: AcceleratorConfig, allowed: float, classes: bool | None,
           stages: Stages) -> tuple[Outcome, str]:
    """Predictions for ``workload`` on ``config`` that lose at most ``allowed`` points on its calibration inputs, and
    what a point is. ``classes``: the only output are scores of classes; unless told, if it is a vector of two or more.
    """
    with stages.stage("quantise"):
        quantised = workload.quantise(config).network
    shapes = [quantised.maps[name] for name in quantised.outputs]
    if classes is None:
        classes = len(shapes) == 1 and shapes[0][0] > 1 and shapes[0][1:] == (1, 1)
    if classes and (len(shapes) > 1 or int(np.prod(shapes[0])) < 2):
        raise ValueError(f"--classes needs one output with two scores or more, not {shapes}")
    case, measure = _Case(workload, quantised.outputs), TOP1 if classes else VALUES
    evaluation = Evaluation(quantised, case, measure, workload.calibration)
    if measure is VALUES and workload.name != "hed":
        case.unit = max(float(np.abs(found[0]).max()) for found in evaluation.undisturbed) or 1.0
        evaluation.undisturbed = [[found[0] / case.unit] for found in evaluation.undisturbed]
    with stages.stage("search", 100) as update:
        outcome = predict(quantised, evaluation.integers, evaluation.loss, config, (allowed,),
                          local_loss=evaluation.sample().loss, seed=SEED, progress=update)[allowed]
    return outcome, ("100 times the probability that its class loses" if classes else
                     "a hundredth of the largest output" if workload.name != "hed" else "a hundredth of an edge")


def build_table(outcome: Outcome) -> Table:
    """A line for each layer that was looked at."""
    table = Table(box=None, header_style="bold")
    for name in ("layer", "cycles,\n% of exact", "loss\nalone", "phase 0: kernels"):
        table.add_column(name, justify="left" if name in ("layer", "phase 0: kernels") else "right")
    for name, level in outcome.levels.items():
        kinds = Counter(level.option.kinds).most_common(3) if level.option else []
        table.add_row(name, f"{100 * level.cost / outcome.exact[name]:.0f}", f"{level.loss:.3f}",
                      ", ".join(f"{kind} {count}" for kind, count in kinds) or "no prediction")
    return table


def command(
    model: Annotated[str, typer.Argument(help="hed (edges of a photograph by VGG-16), digits, or an ONNX file.",
                                         metavar="hed|digits|FILE.onnx")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file that EARLY= of make sim takes.",
                                         metavar="FILE.npz")],
    config: Annotated[str, typer.Option(help="A configuration with the intersect array.",
                                        metavar="NAME|FILE")] = "snapea",
    loss: Annotated[float, typer.Option(help="Points that may be lost on the calibration inputs: per cent of "
                                             "probability for scores of classes, else of the largest output.",
                                        min=0)] = 1.0,
    classes: Annotated[bool | None, typer.Option(help="The output are scores of classes, or not; unless told, a vector "
                                                      "is taken for scores.")] = None,
    size: SizeOption = None,
    calib: CalibOption = None,
    shape: ShapeOption = None,
    count: CountOption = 16,
    mean: MeanOption = "0",
    std: StdOption = "1",
) -> None:
    """Find outputs that can be predicted to be 0 from a part of their weights, for a loss that you allow.

    The intersect array computes a part of each sum first, and gives up those that are below a threshold (SnaPEA). Which
    part and which threshold each kernel has is searched on the calibration inputs; give many, and measure what is lost
    on others. Nothing is retrained.

    Exit status: 0 written, 1 the compiler is at fault, 2 input not usable.

    Examples:

    \b
      zeroskip predict digits --config tiny_snapea --loss 1 -o early.npz
      make sim NET=digits CONFIG=tiny_snapea EARLY=early.npz
      zeroskip predict net.onnx --calib photos/ --count 64 --loss 0.5 -o early.npz
    """
    console = Console()
    use_one_thread()
    with exit_status():
        chosen = get_config(config)
        if not chosen.intersect:
            raise ValueError(f"predictions are for configurations with the intersect array, such as snapea, not for "
                             f"{chosen.name}")
        workload = load_workload(model, size=size, calib=calib, shape=shape, count=count, mean=mean, std=std)
        stages = Stages(console)
        with stages.progress:
            outcome, point = search(workload, chosen, loss, classes, stages)
        console.print(build_table(outcome))
        share = 100 * outcome.cost / (sum(outcome.exact.values()) or 1)
        console.print(f"estimate: {share:.0f} % of the cycles of exact mode in these layers; {outcome.loss:.3f} points "
                      f"lost on {len(workload.calibration)} calibration inputs, where a point is {point}; seed {SEED}",
                      highlight=False, soft_wrap=True)
        save_predictions(outcome.network, output)
        given = {"SIZE": size, "CALIB": calib, "SHAPE": shape, **({"COUNT": count, "MEAN": mean, "STD": std}
                                                                 if calib else {})}
        same = "".join(f" {name}={value}" for name, value in given.items() if value is not None)
        console.print(f"wrote {output}; next: make sim NET={model}{same} CONFIG={config} EARLY={output}",
                      highlight=False, markup=False, soft_wrap=True)

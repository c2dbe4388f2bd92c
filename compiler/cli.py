"""``zeroskip``: from a trained network to what a driver loads."""
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from golden.network import run_network
from hw.configs import CONFIGS, get_config

from .calibration import load_calibration
from .emit import Program, compile_network
from .image import write_image
from .lower import Lowered, lower
from .model import Model
from .onnx import HostPart, largest_difference, load_proto, read_proto, simplify, tolerance
from .quantise import quantise

#: Exit status: the input or a tool is not usable.
UNUSABLE = 2

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def main() -> None:
    """Compile trained networks for the zeroskip accelerator."""


@app.command("compile")
def compile_onnx(
    model: Annotated[Path, typer.Argument(help="The trained network: an ONNX file in float32, opset 8 to 21.",
                                          metavar="MODEL.onnx")],
    calib: Annotated[Path, typer.Option(help="Typical inputs; they decide how values are rounded to 8 or 16 bits. An "
                                             ".npz or .npy file, or a folder of such files or of pictures.",
                                        metavar="FOLDER|FILE")],
    config: Annotated[str, typer.Option(help=f"The accelerator that will run it: {', '.join(CONFIGS)}.",
                                        metavar="NAME")] = "default",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Network image to write; MODEL.zsn in the "
                                                "working folder unless told.", metavar="FILE")] = None,
    shape: Annotated[str | None, typer.Option(help="Shape of the input without the batch, where the file leaves it "
                                                   "open: 3x224x224.", metavar="SHAPE")] = None,
    count: Annotated[int, typer.Option(help="Inputs to calibrate with, spread evenly over those given.", min=1,
                                       metavar="N")] = 16,
    mean: Annotated[str, typer.Option(help="Taken off the values of pictures (0 to 255, red first): one number, or one "
                                           "for each channel.", metavar="M,M,M")] = "0",
    std: Annotated[str, typer.Option(help="What pictures are divided by after that.", metavar="S,S,S")] = "1",
) -> None:
    """Compile an ONNX network into a network image, which the drivers run on a board.

    The network is read and checked against ONNX Runtime, batch norms are folded, every operator is lowered to
    convolutions that the accelerator has, the numbers are quantised with the calibration inputs, and descriptors and
    weights are laid out in memory. The table says what became of every node.

    What the network ends with and the accelerator does not compute (Softmax, Sigmoid, the order of values) is left to
    the host, listed below the table, and written beside the image as NAME.host.onnx; its inputs are the outputs of the
    accelerator. Any other node that the accelerator cannot compute is an error.

    Exit status: 0 written, 1 the compiler is at fault, 2 input not usable.

    Examples:

    \b
      zeroskip compile mobilenet.onnx --calib photos/ --mean 123.7,116.3,103.5 --std 58.4,57.1,57.4
      zeroskip compile digits.onnx --calib inputs.npz --config tiny -o digits.zsn

    From PyTorch: torch.onnx.export(module.eval(), (example,), "net.onnx", dynamo=False).
    """
    console = Console()
    try:
        target = output or Path(f"{model.stem}.zsn")
        program = _compile(console, model, calib, get_config(config), _shape(shape), count,
                           _numbers("--mean", mean), _numbers("--std", std), target)
        typer.echo(f"wrote {target}: {target.stat().st_size:,} bytes; {program.layer_count} layers, "
                   f"{program.memory_bytes:,} bytes of DRAM")
    except (ValueError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(UNUSABLE) from None


def _compile(console, path, calib, config, shape, count, mean, std, target) -> Program:
    """All stages, then the files and the table."""
    progress = Progress(TextColumn("{task.description:<34}"), BarColumn(), TimeElapsedColumn(), console=console)
    with progress:
        with _stage(progress, "read"):
            proto = load_proto(path, shape)
            read, host = read_proto(proto, _network_name(path))
            model = simplify(read)
        with _stage(progress, "calibration inputs"):
            inputs = load_calibration(calib, model, count, mean, std)
        with _stage(progress, "compare with ONNX Runtime"):
            difference = largest_difference(proto, model, host, inputs[0])
        if not difference <= tolerance(model):
            typer.echo(f"error: the network as it was read differs from ONNX Runtime by {difference:.2g} of the "
                       f"largest output: a fault of this compiler, please report it", err=True)
            raise typer.Exit(1)
        with _stage(progress, "lower"):
            lowered = lower(model, config)
        maps = [np.ascontiguousarray(model.input_map(x)) for x in inputs]
        with _stage(progress, "quantise"):
            quantised = quantise(lowered.network, maps, config)
        with _stage(progress, "descriptors and weights"):
            program = compile_network(quantised, config)
        with _stage(progress, "quantised against float"):
            ratios = signal_to_noise(model, lowered, quantised, maps[0])
    write_image(program, target)
    console.print(build_table(model, lowered))
    console.print(f"{network_macs(lowered.network) / 1e6:.1f} MMACs with zeros in {program.layer_count} layers; about "
                  f"{sum(choice.cost.cycles for choice in program.choices.values()):,.0f} cycles if "
                  f"40 % of the values are not zero", highlight=False)
    for name, ratio in ratios.items():
        console.print(f"output {name}: map {lowered.outputs[name]}, signal to quantisation noise {ratio:.1f} dB",
                      highlight=False)
    _write_host(console, host, target)
    return program


@contextmanager
def _stage(progress, text):
    task = progress.add_task(text, total=None)
    yield
    progress.update(task, total=1, completed=1)
    progress.stop_task(task)


def build_table(model: Model, lowered: Lowered) -> Table:
    """What every node became: kind, output shape, multiplications of the float network and layers; "fused" nodes are
    done by the layers of others."""
    table = Table("node", "kind", "output", "MMACs", "layers", box=None, header_style="bold")
    macs, shapes = operator_macs(model), {operator.node: model.shapes[operator.name] for operator in model.operators}
    for step in lowered.steps:
        shape = "x".join(map(str, shapes[step.node])) if step.node in shapes else ""
        count = f"{macs[step.node] / 1e6:.2f}" if macs.get(step.node) else ""
        table.add_row(step.node, step.kind, shape, count, str(len(step.layers)) if step.layers else "fused")
    return table


def operator_macs(model: Model) -> dict[str, int]:
    """Multiplications of each node of the float network."""
    return {operator.node: operator.macs_of_output * int(np.prod(model.shapes[operator.name]))
            for operator in model.operators}


def network_macs(network) -> int:
    """Multiplications of all layers, those with the zeros that lowering added included."""
    total = 0
    for layer in network.layers:
        shapes = layer.written(network.maps[layer.inputs[0].map][1:])
        total += layer.weights.size * int(np.prod(shapes[layer.targets[0]][1:]))
    return total


def signal_to_noise(model: Model, lowered: Lowered, quantised, x: np.ndarray) -> dict[str, float]:
    """For each output the decibels between the float values and what quantisation changes, for an input [C, H, W]."""
    values, maps = model.run(x), run_network(quantised, quantised.quantise_input(x))[0]
    ratios = {}
    for name, place in lowered.outputs.items():
        noise = quantised.dequantise(place, maps[place]) - values[name]
        ratios[name] = float(10 * np.log10((np.mean(values[name] ** 2.) + 1e-30) / (np.mean(noise ** 2.) + 1e-30)))
    return ratios


def _write_host(console, host: HostPart, target: Path):
    if host.proto is None:
        return
    path = target.with_suffix(".host.onnx")
    path.write_bytes(host.proto.SerializeToString())
    console.print(f"left to the host, in {path}:", highlight=False)
    for node in host.nodes:
        console.print(f"  {node}", highlight=False)


def _network_name(path):
    """A name that an image can hold."""
    return path.stem.encode()[:27].decode(errors="ignore") or "network"


def _shape(text):
    if text is None:
        return None
    parts = text.lower().split("x")
    if not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"--shape must be numbers with x between them, such as 3x224x224, not {text!r}")
    return tuple(map(int, parts))


def _numbers(option, text):
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{option} must be a number, or numbers with commas between them, not {text!r}") from None


if __name__ == "__main__":
    app()

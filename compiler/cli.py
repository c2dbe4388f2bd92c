"""``zeroskip``: from a trained network to what a driver loads."""
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS, get_config

from .calibration import load_calibration
from .emit import Program
from .image import write_image
from .lower import Lowered, lower
from .model import Model
from .nodes import Node, network_nodes
from .onnx import HostPart
from .pipeline import CompilerFault, check_onnx, compile_float, decibels, read_onnx
from .progress import Stages

#: Exit status: the compiler is at fault; the input or a tool is not usable.
FAULT, UNUSABLE = 1, 2

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback()
def main() -> None:
    """Compile trained networks for the zeroskip accelerator."""


@app.command("compile")
def compile_onnx(
    model: Annotated[Path, typer.Argument(help="The trained network: an ONNX file in float32 or float16, opset 8 "
                                               "to 21.",
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
        program = _compile(console, model, calib, get_config(config), parse_shape(shape), count,
                           parse_numbers("--mean", mean), parse_numbers("--std", std), target)
        typer.echo(f"wrote {target}: {target.stat().st_size:,} bytes; {program.layer_count} layers, "
                   f"{program.memory_bytes:,} bytes of DRAM")
    except (ValueError, OSError) as error:
        named = isinstance(error, OSError) and error.filename
        typer.echo(f"error: {f'{error.filename}: {error.strerror}' if named else error}", err=True)
        raise typer.Exit(UNUSABLE) from None
    except MemoryError:
        typer.echo("error: there is not enough memory for this network or its inputs", err=True)
        raise typer.Exit(UNUSABLE) from None
    except CompilerFault as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(FAULT) from None


def _compile(console, path, calib, config, shape, count, mean, std, target) -> Program:
    """All stages, then the files and the table."""
    stages = Stages(console)
    with stages.progress:
        with stages.stage("read"):
            network = read_onnx(path, shape)
        with stages.stage("calibration inputs"):
            inputs = load_calibration(calib, network.model, count, mean, std)
        with stages.stage("compare with ONNX Runtime"):
            check_onnx(network, inputs[0])
        with stages.stage("lower"):
            lowered = lower(network.model, config)
        maps = [np.ascontiguousarray(network.model.input_map(x)) for x in inputs]
        with stages.stage("quantise and compile"):
            program = compile_float(lowered.network, maps, config)
        with stages.stage("quantised against float"):
            ratios = signal_to_noise(network.model, lowered, program.network, maps[0])
    write_image(program, target)
    console.print(build_table(network_nodes(network.model, lowered)))
    console.print(f"{network_macs(program.network) / 1e6:.1f} MMACs with zeros in {program.layer_count} layers; about "
                  f"{sum(choice.cost.cycles for choice in program.choices.values()):,.0f} cycles", highlight=False)
    for name, ratio in ratios.items():
        console.print(f"output {name}: map {lowered.outputs[name]}, signal to quantisation noise {ratio:.1f} dB",
                      highlight=False, markup=False, soft_wrap=True)
    _write_host(console, network.host, target)
    return program


def build_table(nodes: Sequence[Node]) -> Table:
    """What every node became: kind, output shape, multiplications of the float network and layers; "fused" nodes are
    done by the layers of others."""
    table = Table("node", "kind", "output", "MMACs", "layers", box=None, header_style="bold")
    for node in nodes:
        table.add_row(Text(node.name), node.kind, "x".join(map(str, node.shape)),
                      f"{node.macs / 1e6:.2f}" if node.macs else "", str(len(node.layers) or "fused"))
    return table


def network_macs(network: QuantisedNetwork) -> int:
    """Multiplications of all layers, before pooling, those with the zeros that lowering added included."""
    return sum(layer.weights.size * layer.geometry().out_height * layer.geometry().out_width
               for layer in network.layers)


def signal_to_noise(model: Model, lowered: Lowered, quantised, x: np.ndarray) -> dict[str, float]:
    """For each output the decibels between the float values and what quantisation changes, for an input [C, H, W]."""
    values, maps = model.run(x), run_network(quantised, quantised.quantise_input(x))[0]
    ratios = {}
    for name, place in lowered.outputs.items():
        ratios[name] = decibels(values[name], quantised.dequantise(place, maps[place]))
    return ratios


def _write_host(console, host: HostPart, target: Path):
    if host.proto is None:
        return
    path = target.with_suffix(".host.onnx")
    path.write_bytes(host.proto.SerializeToString())
    console.print(f"left to the host, in {path}:", highlight=False, markup=False, soft_wrap=True)
    for node in host.nodes:
        console.print(f"  {node}", highlight=False, markup=False, soft_wrap=True)


def parse_shape(text: str | None) -> tuple[int, ...] | None:
    """``(3, 224, 224)`` of ``"3x224x224"``; ``ValueError`` for anything else."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,5}(x[1-9][0-9]{0,5})*", text.lower()):
        raise ValueError(f"--shape must be numbers with x between them, such as 3x224x224, not {text!r}")
    return tuple(map(int, text.lower().split("x")))


def parse_numbers(option: str, text: str) -> tuple[float, ...]:
    """``(1.0, 2.5)`` of ``"1,2.5"``; ``ValueError`` names ``option`` for anything else."""
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or not np.isfinite(numbers).all():
        raise ValueError(f"{option} must be a number, or numbers with commas between them, not {text!r}")
    return numbers


if __name__ == "__main__":
    app()

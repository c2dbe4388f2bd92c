"""What the fuzzer does for a number: a case of each kind, and what may come of it.

``files``: a small ONNX file, calibration data or options, damaged, through ``zeroskip compile``. It must end with exit
status 0 or 2, the latter with one sentence that a check of ours has made (not an error that NumPy happened to raise),
the former with an image that the driver's reader takes.

``graphs``: a random network through compiler and golden, against ONNX Runtime: at least ``LEAST`` decibels between the
values of each output and their error, equal to it for networks that were quantised before with powers of two.

``rtl``: the same in the RTL of ``tiny`` with random stalls, every map against golden.
"""
import dis
import os
import re
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from typer.testing import CliRunner
from zeroskip.image import read_image

from compiler import cli
from compiler.onnx.qonnx import DOMAINS
from hw.configs import CONFIGS
from sim_tests.bench.imported import first_difference, import_proto, run_rtl
from sim_tests.unit.compiler.onnx_graphs import (
    QUANTISED,
    QUANTISED_STEPS,
    SINCE,
    SPELLINGS,
    STEPS,
    Graph,
    QonnxGraph,
    QuantisedGraph,
    random_graph,
    random_quantised,
)

from .damage import damage_bytes, damage_proto, odd_options, write_calibration

ROOT = Path(__file__).parents[2]
#: Decibels by the bits of a value. Networks of up to seven steps whose sums cancel lose many of the 43 dB that 8 bits
#: hold; a fault of the compiler leaves none.
LEAST = {8: 6, 16: 40}
#: Folders whose ``raise`` makes a sentence.
OURS = ("compiler", "golden", "hw", "boards")


class Failure(AssertionError):
    """What must not happen has happened; the message says what."""


@dataclass(frozen=True)
class Passed:
    """A case that is as it should be: ``result`` is a word to count by, ``text`` is for people."""
    result: str
    text: str = ""


def run_case(kind: str, seed: int, number: int, folder: Path) -> Passed:
    """Case ``number`` of ``seed``, with its files in ``folder``, an empty one; :class:`Failure`, or whatever the code
    under test raises, if it is not as it should be."""
    rng = np.random.default_rng([seed, number, list(KINDS).index(kind)])
    return KINDS[kind](rng, folder)


# Files.

def _random_proto(rng):
    """A small network that compiles, and the shape of its input."""
    seed = int(rng.integers(0, 2**32))
    match rng.integers(0, 5):
        case 0:
            graph, output = random_graph([str(step) for step in rng.choice(sorted(STEPS), int(rng.integers(1, 5)))],
                                         seed, 13, bool(rng.integers(0, 2)))
        case 1:
            graph = QuantisedGraph(opset=13, seed=seed)
            output = QUANTISED[str(rng.choice(list(QUANTISED)))](graph, graph.quantised("x", 2**-5))
        case 2:
            graph = QonnxGraph(str(rng.choice(DOMAINS)), opset=int(rng.integers(8, 22)), seed=seed)
            output = QUANTISED[str(rng.choice(list(QUANTISED)))](graph, graph.quantised("x", 2**-5))
        case _:
            name = str(rng.choice(list(SPELLINGS)))
            graph = Graph(opset=int(rng.integers(SINCE[name], 22)), seed=seed)
            output = SPELLINGS[name](graph)
    return graph.proto([output]), graph.shapes["x"][1:]


def _files(rng, folder):
    proto, shape = _random_proto(rng)
    what = rng.choice(["proto", "bytes", "calibration", "options"], p=[0.5, 0.2, 0.2, 0.1])
    data = (damage_proto(proto, rng) if what == "proto" else proto).SerializeToString()
    (folder / "net.onnx").write_bytes(damage_bytes(data, rng) if what == "bytes" else data)
    calibration = str(folder / "inputs.npy")
    if what == "calibration":
        calibration = write_calibration(folder, shape, rng)
    else:
        np.save(calibration, rng.normal(size=(2, *shape)).astype(np.float32))
    options = odd_options(rng) if what == "options" else []
    working = os.getcwd()
    os.chdir(folder)
    try:
        return check_compile([str(folder / "net.onnx"), "--calib", calibration, "--config", "tiny", *options])
    finally:
        os.chdir(working)


def check_compile(arguments: list[str]) -> Passed:
    """Run ``zeroskip compile`` in the working folder; :class:`Failure` if it ends in a way that it must not."""
    raised = []
    stages = cli._compile

    def remember(*values):
        try:
            return stages(*values)
        except Exception as error:
            raised.append(error)
            raise

    cli._compile = remember
    try:
        result = CliRunner().invoke(cli.app, ["compile", *arguments])
    finally:
        cli._compile = stages
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise Failure("".join(traceback.format_exception(result.exception)))
    if result.exit_code == 0:
        written = re.search(r"^wrote (.+): [\d,]+ bytes; ", result.output, re.MULTILINE)
        if not written:
            raise Failure(f"nothing was written: {result.output}")
        read_image(written[1])
        return Passed("compiled")
    if result.exit_code != 2:
        raise Failure(f"exit status {result.exit_code}: {result.output}")
    sentence = result.stderr.strip()
    if raised:
        _check_sentence(sentence, raised[0])
    elif not sentence.startswith(("error: ", "Usage: ")):
        raise Failure(f"no sentence: {result.output}")
    return Passed("refused", sentence)


def _check_sentence(sentence, error):
    last = error.__traceback__
    while last.tb_next:
        last = last.tb_next
    code = last.tb_frame.f_code
    path = Path(code.co_filename)
    ours = path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in OURS
    # The instruction, not the line: sources may have changed since they were loaded.
    raised = code.co_code[last.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    # What the system says of a file names the file.
    if not (ours and raised) and not (isinstance(error, OSError) and error.filename):
        raise Failure(f"a sentence that no check of ours has made: {sentence}\n"
                      + "".join(traceback.format_exception(error)))
    if not sentence.startswith("error: ") or "\n" in sentence or len(sentence) > 1000:
        raise Failure(f"not one sentence: {sentence}")


# Graphs.

def _imported(rng, folder, config):
    """A random network that was compiled, and what it is; None in its place if it was refused."""
    seed = int(rng.integers(0, 2**32))
    if rng.random() < 0.3:
        kind = [QuantisedGraph, QonnxGraph][int(rng.integers(0, 2))]
        graph = kind(opset=int(rng.integers(13, 20)), seed=seed)
        steps = [(str(step), tuple(map(int, rng.integers([2, 0, 0, -2], [9, 2, 2, 2]))))
                 for step in rng.choice(sorted(QUANTISED_STEPS), int(rng.integers(2, 6)))]
        proto = graph.proto([random_quantised(graph, steps)])
        text, exact = f"{kind.__name__} {steps}, seed {seed}", True
    else:
        steps = [str(step) for step in rng.choice(sorted(STEPS), int(rng.integers(1, 8)))]
        opset, head = int(rng.integers(8, 22)), bool(rng.integers(0, 2))
        graph, output = random_graph(steps, seed, opset, head)
        proto = graph.proto([output])
        text, exact = f"{'-'.join(steps)}, seed {seed}, opset {opset}, head {head}", False
    try:
        return import_proto(proto, config, folder, seed=seed), text, exact
    except ValueError as error:
        onnx.checker.check_model(proto)
        _check_sentence(f"error: {error}", error)
        return None, f"{text}: {error}", exact


def _check_golden(imported, text, exact):
    """``Passed`` if golden is near enough to ONNX Runtime."""
    width = imported.program.config.value_width
    found = imported.signal_to_noise()
    if found < LEAST[width]:
        raise Failure(f"{text}: {found:.1f} dB with {width} bits")
    if exact:
        for ours, theirs in zip(imported.outputs(imported.golden()), imported.expected(), strict=True):
            if not np.array_equal(np.reshape(ours, theirs.shape), theirs):
                raise Failure(f"{text}: a network quantised with powers of two differs from ONNX Runtime")
    return Passed(f"{width} bits", f"{text}: {found:.1f} dB")


def _graphs(rng, folder):
    imported, text, exact = _imported(rng, folder, CONFIGS[str(rng.choice(["tiny", "nullhop"]))])
    return _check_golden(imported, text, exact) if imported else Passed("refused", text)


def _rtl(rng, folder):
    imported, text, exact = _imported(rng, folder, CONFIGS["tiny"])
    if imported is None:
        return Passed("refused", text)
    _check_golden(imported, text, exact)
    golden = imported.golden()
    x = golden[imported.program.network.input_name]
    maps, memory = run_rtl(imported.program, x, seed=int(rng.integers(0, 2**32)))
    if difference := first_difference(maps, golden):
        raise Failure(f"{text}, {memory}: {difference}")
    return Passed("equal", text)


KINDS = {"files": _files, "graphs": _graphs, "rtl": _rtl}

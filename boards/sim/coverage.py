"""`make coverage`: lines and branches of the RTL that whole-network runs reach, block by block.

The unflattened Verilog is simulated with Verilator's counters: digits, then a network of odd layers, with random stalls
on every bus channel. build/coverage/report.txt has a line for each block and each point that was never reached.
"""
import argparse
import re
from collections import defaultdict
from pathlib import Path

import numpy as np

from compiler.emit import compile_network
from compiler.graph import Layer, Network, Slice, Target
from compiler.networks import digits
from compiler.quantise import quantise
from hw.configs import get_config
from hw.generate import verilog_text
from hw.top import Top

from .build import build_library
from .run import run_program
from .simulator import Simulator

STALLS = {"ar": 0.3, "r": 0.3, "aw": 0.3, "w": 0.3, "b": 0.3, "interleave": 0.3}
#: One point of Verilator's coverage file: its keys, then its count.
POINT = re.compile(r"^C '(.*)' ([0-9]+)$")


class CoverageSimulator(Simulator):
    """A simulator whose design keeps its modules and counts what it reaches."""

    def _build(self, component, **options):
        name = f"zeroskip_{self.config.name}"
        return build_library(verilog_text(Top(self.config), name), f"coverage-{self.config.name}", coverage=True)


def odd_network(rng: np.random.Generator) -> Network:
    """Small layers of every kind: kernels 7x7 to 1x1, strides, uneven padding, both pools, signed and unsigned maps."""
    def weights(*shape):
        return rng.normal(size=shape)

    return Network("odd", (3, 23, 19), (
        Layer("wide", [Slice("input", 0, 3)], weights(20, 3, 7, 7), stride=2, pad=(3, 2, 3, 4), pool=3, pool_ceil=True),
        Layer("deep", [Slice("wide", 0, 20)], weights(37, 20, 3, 3), rng.normal(size=37), pad=(1, 1, 1, 1), pool=2,
              pool_ceil=True, full=Target("deep.full")),
        Layer("steps", [Slice("deep.full", 0, 37)], weights(17, 37, 5, 3), stride=3, pad=(2, 0, 2, 2), high=2.0),
        Layer("signed", [Slice("deep", 0, 37)], weights(5, 37, 1, 1), relu=False),
        Layer("again", [Slice("signed", 0, 5)], weights(33, 5, 2, 2), stride=4, relu=False)))


def programs(config, rng: np.random.Generator):
    """The programs that are run, each with an integer input."""
    pictures, _ = digits.load_digits()
    inputs = [digits.prepare(picture) for picture in pictures[:8]]
    odd = odd_network(rng)
    for network, calibration in ((digits.build(), inputs), (odd, [rng.normal(size=odd.input_shape) for _ in range(4)])):
        quantised = quantise(network, calibration, config)
        yield compile_network(quantised, config), quantised.quantise_input(calibration[0])


def read_points(text: str) -> dict[tuple[str, int, str], int]:
    """Counts of Verilator's coverage file by block, line of the Verilog and kind of point; equal points are added."""
    points = defaultdict(int)
    for line in text.splitlines():
        if match := POINT.match(line):
            keys = dict(part.split("\x02", 1) for part in match[1].split("\x01") if "\x02" in part)
            kind, _, block = keys["page"].partition("/")
            points[block, int(keys["l"]), f"{kind.removeprefix('v_')} {keys.get('o', '')}".strip()] += int(match[2])
    return dict(points)


def summarise(points: dict[tuple[str, int, str], int]) -> str:
    """A line for each block, the total, then the points never reached."""
    counts = defaultdict(lambda: [0, 0])
    for (block, _, _), count in points.items():
        counts[block][0] += count > 0
        counts[block][1] += 1
    hit, number = (sum(pair[at] for pair in counts.values()) for at in range(2))
    rows = [f"{pair[0]:6} of {pair[1]:6}  {100 * pair[0] / pair[1]:5.1f} %  {block}"
            for block, pair in sorted(counts.items())]
    missed = [f"  {block}: line {line}, {kind}" for (block, line, kind), count in sorted(points.items()) if not count]
    total = f"{hit:6} of {number:6}  {100 * hit / max(number, 1):5.1f} %  total"
    return "\n".join([*rows, total, "", "never reached (lines of the generated Verilog):", *missed]) + "\n"


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m boards.sim.coverage", description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="tiny", metavar="NAME")
    parser.add_argument("-o", "--output", default=Path("build/coverage"), metavar="FOLDER", type=Path)
    options = parser.parse_args(arguments)
    config, folder = get_config(options.config), options.output
    folder.mkdir(parents=True, exist_ok=True)
    points = defaultdict(int)
    for number, (program, x) in enumerate(programs(config, np.random.default_rng(1))):
        memory = {"memory_bytes": program.memory_bytes, "base": program.base}
        with CoverageSimulator(config, stalls=STALLS, **memory) as simulator:
            run_program(simulator, program, x, maps=())
            simulator.write_coverage(folder / f"{number}.dat")
        for point, count in read_points((folder / f"{number}.dat").read_text()).items():
            points[point] += count
    text = summarise(points)
    (folder / "report.txt").write_text(text)
    print(text.split("\n\n")[0])
    print(f"wrote {folder / 'report.txt'}")


if __name__ == "__main__":
    main()

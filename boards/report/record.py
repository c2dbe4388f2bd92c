"""Run records: reads the ``report.json`` of one or several runs, checks them and adds them up.

Source: docs/report-schema.md describes every key.
"""
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from boards.sim.report import BEAT_BYTES, OF_RUNS, STALLS, add_early
from boards.sim.table import longest
from golden.tiling import MAX_PHASES
from hw.config import AcceleratorConfig

Ratio = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(min_length=1)]
#: Keys that are added when runs are put together.
COUNTS = ("macs", "nonzero_macs", "cycles", "dram_read_bytes", "dram_write_bytes", "mismatches", "compared",
          "lane_cycles", "busy", *STALLS)
FILE_NAME = "report.json"
#: Lines of a figure, besides one for all other rows: more are neither read nor drawn in reasonable time.
MOST_LINES = 60


class Early(BaseModel, strict=True):
    """What the intersect array did not multiply in a row; ``products`` by phase."""
    skipping: NonNegativeInt
    products: Annotated[list[NonNegativeInt], Field(min_length=MAX_PHASES, max_length=MAX_PHASES)]
    outputs: PositiveInt
    stopped: NonNegativeInt
    predicted: NonNegativeInt
    missed: NonNegativeInt

    @model_validator(mode="after")
    def _check(self):
        if not self.missed <= self.predicted <= self.stopped <= self.outputs:
            raise ValueError(f"of {self.outputs} outputs {self.stopped} are stopped, {self.predicted} of them "
                             f"predicted, {self.missed} of these missed: each must be a part of the one before")
        return self


class Row(BaseModel, strict=True):
    """A row of a report: a layer, a node or a total, summed over the runs."""
    name: Name = "all layers"
    shape: list[PositiveInt] | None = None
    macs: NonNegativeInt
    nonzero_macs: NonNegativeInt
    cycles: PositiveInt
    density_in: Ratio
    density_out: Ratio
    dram_read_bytes: NonNegativeInt
    dram_write_bytes: NonNegativeInt
    mismatches: NonNegativeInt
    compared: NonNegativeInt
    lane_cycles: NonNegativeInt
    busy: NonNegativeInt
    stall_output: NonNegativeInt
    stall_tile: NonNegativeInt
    stall_weights: NonNegativeInt
    stall_find: NonNegativeInt
    idle: NonNegativeInt
    cycles_of_runs: Annotated[list[PositiveInt], Field(min_length=1)]
    nonzero_macs_of_runs: Annotated[list[NonNegativeInt], Field(min_length=1)]
    network_macs: NonNegativeInt | None = None
    macs_of_output: NonNegativeInt | None = None
    groups: PositiveInt | None = None
    layers: list[Name] = []
    early: Early | None = None

    @property
    def dense_macs(self) -> int:
        """Multiplications of the network: without those that the layers of a node have beyond it."""
        return self.macs if self.network_macs is None else self.network_macs

    @property
    def runs(self) -> int:
        return len(self.cycles_of_runs)

    @property
    def port_bytes(self) -> int:
        """Bytes on the busier of the two ports of the bus."""
        return max(self.dram_read_bytes, self.dram_write_bytes)

    def split(self, config: AcceleratorConfig) -> dict[str, Fraction]:
        """The cycles by what they went to, names as in ``PARTS``; they add up to ``cycles``.

        A group-cycle is 1 / groups of a cycle. ``work`` is the time that all lanes together need for what they
        multiplied; ``empty`` is the rest of the busy group-cycles: lanes that have no kernel.
        """
        work = Fraction(self.lane_cycles, config.total_lanes)
        waits = {name: Fraction(getattr(self, name), config.groups) for name in STALLS}
        return {"work": work, "empty": Fraction(self.busy, config.groups) - work} | waits

    def plus(self, other: "Row") -> "Row":
        """The row of both sets of runs; densities are of the same numbers of values in every run."""
        runs = self.runs + other.runs
        densities = {key: (getattr(self, key) * self.runs + getattr(other, key) * other.runs) / runs
                     for key in ("density_in", "density_out")}
        counts = {key: getattr(self, key) + getattr(other, key) for key in COUNTS}
        if self.network_macs is not None:
            counts["network_macs"] = self.network_macs + other.dense_macs
        lists = {f"{key}_of_runs": getattr(self, f"{key}_of_runs") + getattr(other, f"{key}_of_runs")
                 for key in OF_RUNS}
        return self.model_copy(update=densities | counts | lists | {"early": sum_early([self, other])})


class Record(BaseModel, strict=True):
    """A report, as far as the page needs it."""
    network: Name
    config: Name
    parameters: dict[str, int | str]
    command: Name
    layers: Annotated[list[Row], Field(min_length=1)]
    nodes: list[Row] | None = None
    total: Row
    run_cycles: PositiveInt
    image: str | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _check(self):
        try:
            config = AcceleratorConfig(**self.parameters)
        except TypeError as error:
            raise ValueError(f"parameters are not those of a configuration ({error})") from None
        for row in (*self.layers, self.total):
            group_cycles = row.busy + sum(getattr(row, name) for name in STALLS)
            if group_cycles != row.cycles * config.groups:
                raise ValueError(f"{row.name}: busy, stalls and idle are {group_cycles} group-cycles, "
                                 f"but {row.cycles} cycles of {config.groups} groups are {row.cycles * config.groups}")
            if row.lane_cycles > row.busy * config.group_multipliers:
                raise ValueError(f"{row.name}: {row.lane_cycles} lane_cycles do not fit {row.busy} busy group-cycles "
                                 f"of {config.group_multipliers} lanes")
            for key in OF_RUNS:
                each = getattr(row, f"{key}_of_runs")
                if sum(each) != getattr(row, key) or len(each) != self.total.runs:
                    raise ValueError(f"{row.name}: {key}_of_runs do not add up to {key} of {self.total.runs} runs")
        for key in COUNTS:
            if sum(getattr(row, key) for row in self.layers) != getattr(self.total, key):
                raise ValueError(f"{key} of the layers do not add up to {key} of total")
        if sum_early(self.layers) != self.total.early:
            raise ValueError("early of the layers does not add up to early of total")
        if self.nodes is not None:
            self._check_nodes()
        return self

    def _check_nodes(self):
        layers = {layer.name: layer for layer in self.layers}
        if sorted(name for node in self.nodes for name in node.layers) != sorted(layers):
            raise ValueError("the layers of the nodes are not the layers of the report, each once")
        for node in self.nodes:
            for key in ("shape", "network_macs", "macs_of_output", "groups"):
                if getattr(node, key) is None:
                    raise ValueError(f"{node.name}: {key} is missing")
            if sum_early([layers[name] for name in node.layers]) != node.early:
                raise ValueError(f"{node.name}: early of its layers does not add up to early of the node")
            for key in COUNTS:
                if sum(getattr(layers[name], key) for name in node.layers) != getattr(node, key):
                    raise ValueError(f"{node.name}: {key} of its layers do not add up to {key} of the node")
        if sum(node.dense_macs for node in self.nodes) != self.total.dense_macs:
            raise ValueError("network_macs of the nodes do not add up to network_macs of total")


@dataclass(frozen=True)
class Run:
    """All runs of a network that a page is about.

    Parameters
    ----------
    network : str
        Name of the network.
    config : AcceleratorConfig
        What was simulated.
    commands : list of str
        What made the reports, in the order of ``images``, each once.
    images : list of str
        A name for each run.
    rows : list of Row
        The nodes of the network, if the report has nodes, else its layers, summed over the runs.
    layers : dict of Row
        The layers that the accelerator ran, by name, summed over the runs.
    total : Row
        The sum of all layers.
    run_cycles : int
        Cycles from start to interrupt, summed over the runs.
    """
    network: str
    config: AcceleratorConfig
    commands: list[str]
    images: list[str]
    rows: list[Row]
    layers: dict[str, Row]
    total: Row
    run_cycles: int

    @property
    def unit(self) -> str:
        """What a row is: ``node`` or ``layer``."""
        return "node" if self.rows[0].layers else "layer"

    @cached_property
    def _places(self):
        return longest([(row.mismatches, row.cycles) for row in self.rows], MOST_LINES)

    @property
    def lines(self) -> list[Row]:
        """The rows that have a line in the figures, in their order: of many, the ``MOST_LINES`` that take most
        cycles."""
        return [self.rows[place] for place in self._places]

    @cached_property
    def others(self) -> Row | None:
        """The sum of the rows that have no line of their own, if there are any. Its densities are not known."""
        left = [row for place, row in enumerate(self.rows) if place not in set(self._places)]
        if not left:
            return None
        counts = {key: sum(getattr(row, key) for row in left) for key in COUNTS}
        lists = {f"{key}_of_runs": [sum(each) for each in zip(*(getattr(row, f"{key}_of_runs") for row in left),
                                                              strict=True)] for key in OF_RUNS}
        return Row(name=f"{len(left)} other {self.unit}s", density_in=0, density_out=0,
                   network_macs=sum(row.dense_macs for row in left), early=sum_early(left), **counts, **lists)

    def dense_cycles(self, row: Row) -> float:
        """Cycles of an array with as many lanes that multiplies zeros as well and never waits: the network's MACs /
        lanes."""
        return row.dense_macs / self.config.total_lanes

    def bound_cycles(self, row: Row) -> float:
        """Cycles of the multiplications that zero skip leaves if every lane had one in every cycle: of non-zero
        activations, and in the intersect array of non-zero weights."""
        return (row.early.skipping if row.early else row.nonzero_macs) / self.config.total_lanes

    def ceiling(self, macs_a_byte: float) -> float:
        """The roof over ``macs_a_byte``, in MACs a cycle: the lanes, or what a port of the bus brings."""
        return min(self.config.total_lanes, macs_a_byte * BEAT_BYTES)


def sum_early(rows: list[Row]) -> Early | None:
    """The sum of the rows' ``early``; None if one has none."""
    counts = add_early([row.early and row.early.model_dump() for row in rows])
    return counts and Early(**counts)


def read_record(path: Path) -> Record:
    """The report in the file ``path``; ``ValueError`` with one sentence if it is not one that adds up."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"{part}: " for part in (".".join(map(str, first["loc"])),) if part)
        raise ValueError(f"{path} is not a report of `make sim` as docs/report-schema.md has it: {place}"
                         f"{first['msg'].removeprefix('Value error, ')}; run `make sim` again") from None


def find_records(path: Path) -> list[Path]:
    """``path`` itself, or every report.json in the folder ``path``; ``ValueError`` if there is none."""
    if path.is_file():
        return [path]
    found = sorted(path.rglob(FILE_NAME)) if path.is_dir() else []
    if not found:
        raise ValueError(f"there is no {FILE_NAME} at {path}: give a report, or a folder with reports; `make sim` "
                         f"writes build/sim/<network>/{FILE_NAME}")
    return found


def load_run(path: Path) -> Run:
    """The reports at ``path`` (a file or a folder), taken together.

    Raises
    ------
    ValueError
        One sentence: nothing there, a report that is damaged, or two reports that are not of the same layers on the
        same configuration.
    OSError
        A file cannot be read.
    """
    files = find_records(path)
    records = [read_record(file) for file in files]
    first = records[0]
    rows, layers, total = first.nodes or first.layers, first.layers, first.total
    for file, record in zip(files[1:], records[1:], strict=True):
        for what in ("network", "parameters"):
            if getattr(record, what) != getattr(first, what):
                raise ValueError(f"{file} and {files[0]} differ in {what}: a page is about runs of one network on one "
                                 f"configuration; give a folder with only those")
        others = record.nodes or record.layers
        if [(row.name, row.shape, row.layers) for row in others] != [(row.name, row.shape, row.layers) for row in rows]:
            raise ValueError(f"{file} and {files[0]} differ in their layers or in the size of the input: a page is "
                             f"about images of one size; give a folder with only those")
        rows = [row.plus(other) for row, other in zip(rows, others, strict=True)]
        layers = [row.plus(other) for row, other in zip(layers, record.layers, strict=True)]
        total = total.plus(record.total)
    return Run(network=first.network, config=AcceleratorConfig(**first.parameters),
               commands=list(dict.fromkeys(record.command for record in records)),
               images=[name for file, record in zip(files, records, strict=True)
                       for name in _image_names(file, record, len(files))],
               rows=rows, layers={layer.name: layer for layer in layers}, total=total,
               run_cycles=sum(record.run_cycles for record in records))


def _image_names(file, record, files):
    """What the runs of a record are called: by its image, its folder if there are several files, or its source."""
    name = record.image or (file.parent.name if files > 1 else record.source or "input")
    return [name] if record.total.runs == 1 else [f"{name} {number}" for number in range(1, record.total.runs + 1)]

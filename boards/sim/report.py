"""What a run is measured by: one record for each layer, their totals, and the report file.

Source: docs/report-schema.md describes every key.
"""
import json
import shlex
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

#: Counters of a layer that say why groups waited, in group-cycles (hw/registers.py, ``COUNTERS``).
STALLS = ("stall_output", "stall_tile", "stall_weights", "stall_find", "idle")
BEAT_BYTES = 8
#: What a row tells of each run on its own; everything else is summed over the runs.
OF_RUNS = ("cycles", "nonzero_macs")


@dataclass
class LayerRecord:
    """What one layer did, summed over the runs of a program.

    Parameters
    ----------
    name : str
        Name of the layer.
    shape : tuple of int
        Output channels, rows and columns, before pooling.
    macs, nonzero_macs : int
        Multiplications of the layer, padding included, and those of them with a non-zero activation (golden).
    input_values, input_nonzeros, output_values, output_nonzeros : int
        Values of the maps: the input, and the output before pooling.
    compared, mismatches : int
        Output values of the accelerator that were compared with golden, and those that differ.
    counters : dict
        The counters that the hardware wrote for the layer.
    early : dict or None
        Intersect array: what was not multiplied (:func:`boards.sim.early.count_early`).

    Members
    -------
    runs : list of dict
        ``OF_RUNS`` of each run, in the order of the runs.
    """

    name: str
    shape: tuple[int, int, int]
    macs: int
    nonzero_macs: int
    input_values: int
    input_nonzeros: int
    output_values: int
    output_nonzeros: int
    compared: int
    mismatches: int
    counters: dict
    early: dict | None = None
    runs: list[dict] = field(init=False)

    def __post_init__(self):
        self.runs = [{"cycles": self.counters["cycles"], "nonzero_macs": self.nonzero_macs}]

    def __iadd__(self, other: "LayerRecord") -> "LayerRecord":
        """Adds another run of the same layer."""
        if (other.name, other.shape) != (self.name, self.shape):
            raise ValueError(f"records of {self.name} and {other.name} do not belong together")
        for key in ("macs", "nonzero_macs", "input_values", "input_nonzeros", "output_values", "output_nonzeros",
                    "compared", "mismatches"):
            setattr(self, key, getattr(self, key) + getattr(other, key))
        self.counters, self.early = _sum_counters([self, other]), add_early([self.early, other.early])
        self.runs += other.runs
        return self


def add_early(counts: list[dict | None]) -> dict | None:
    """The sums of ``early`` of some layers or runs; None if one of them has none."""
    if None in counts:
        return None
    return {key: np.sum([count[key] for count in counts], axis=0).tolist() for key in counts[0]}


def _sum_counters(records: list[LayerRecord]) -> dict:
    names = list(dict.fromkeys(name for record in records for name in record.counters))
    return {name: sum(record.counters.get(name, 0) for record in records) for name in names}


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def summarise(records: list[LayerRecord], total_lanes: int) -> dict:
    """The figures of some layers taken together, as a row of the report; one layer's row is the case of one record.

    ``utilisation = lane_cycles / (cycles * total_lanes)``; densities are non-zero values over all values. The records
    have the same number of runs.
    """
    counters, early = _sum_counters(records), add_early([record.early for record in records])

    def total(key):
        return sum(getattr(record, key) for record in records)

    return {
        "macs": total("macs"),
        "nonzero_macs": total("nonzero_macs"),
        "cycles": counters["cycles"],
        "utilisation": _ratio(counters["lane_cycles"], counters["cycles"] * total_lanes),
        "density_in": _ratio(total("input_nonzeros"), total("input_values")),
        "density_out": _ratio(total("output_nonzeros"), total("output_values")),
        "dram_read_bytes": counters["read_beats"] * BEAT_BYTES,
        "dram_write_bytes": counters["write_beats"] * BEAT_BYTES,
        "mismatches": total("mismatches"),
        "compared": total("compared"),
        "lane_cycles": counters["lane_cycles"],
        "busy": counters["busy"],
        **{name: counters[name] for name in STALLS},
        **{f"{name}_of_runs": [sum(run[name] for run in layers)
                               for layers in zip(*(record.runs for record in records), strict=True)]
           for name in OF_RUNS},
        **({"early": early} if early else {}),
    }


def build_report(*, network: str, config, records: list[LayerRecord], run_cycles: int, wall_seconds: float,
                 **extra) -> dict:
    """The report of a run, ready for JSON; ``command`` in it is the command line of this process.

    Parameters
    ----------
    network : str
        Name of the network.
    config : AcceleratorConfig
        What was simulated.
    records : list of LayerRecord
        All layers in the order in which they ran.
    run_cycles : int
        Clock cycles from start to interrupt, summed over the runs.
    wall_seconds : float
        Time that the simulation of these cycles took.
    extra
        Further keys of the network.
    """
    lanes = config.total_lanes
    return {
        "network": network,
        "config": config.name,
        "parameters": asdict(config),
        "command": shlex.join(sys.orig_argv),
        "layers": [{"name": record.name, "shape": list(record.shape)} | summarise([record], lanes)
                   for record in records],
        "total": summarise(records, lanes),
        "run_cycles": run_cycles,
        "wall_seconds": wall_seconds,
        "cycles_per_second": _ratio(run_cycles, wall_seconds),
        **extra,
    }


def write_report(report: dict, path: Path) -> None:
    """Writes the report; a run that is cut off leaves the file of the run before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(report, indent=2) + "\n")
    draft.replace(path)

"""Report, table and picture from made-up results."""
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from boards.sim.picture import draw_panels
from boards.sim.report import LayerRecord, build_report, summarise, write_report
from boards.sim.table import build_table, short
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from hw.registers import COUNTERS

ISSUE_KEYS = {"name", "macs", "nonzero_macs", "cycles", "utilisation", "density_in", "density_out", "dram_read_bytes",
              "dram_write_bytes", "mismatches"}


def record(name="conv1_1", cycles=1000, lane_cycles=32000, mismatches=0, **changes) -> LayerRecord:
    counters = {counter: 7 for counter, _ in COUNTERS} | {"cycles": cycles, "lane_cycles": lane_cycles,
                                                          "read_beats": 10, "write_beats": 3}
    base = LayerRecord(name, (64, 224, 224), 86_704_128, 85_000_000, 1000, 990, 500, 100, 500, mismatches, counters)
    return replace(base, **changes)


def report_of(records, **extra):
    return build_report(network="hed", config=CONFIGS["tiny"], records=records, run_cycles=5000, wall_seconds=2.5,
                        **extra)


def test_report_has_the_documented_schema_and_sums():
    first, second = record(), record("dsn1", 3000, 9000, 4, input_values=9000, input_nonzeros=10)
    report = report_of([first, second], edge_mean_absolute_difference=0.25)
    assert {"network", "config", "layers", "total", "wall_seconds", "cycles_per_second"} <= set(report)
    assert all(ISSUE_KEYS <= set(row) for row in report["layers"]) and ISSUE_KEYS - {"name"} <= set(report["total"])
    assert report["config"] == "tiny" and report["cycles_per_second"] == 2000
    assert report["edge_mean_absolute_difference"] == 0.25
    for key in ("macs", "nonzero_macs", "cycles", "dram_read_bytes", "dram_write_bytes", "mismatches", "stall_tile",
                "idle"):
        assert report["total"][key] == sum(row[key] for row in report["layers"]), key
    assert report["layers"][0]["dram_read_bytes"] == 80 and report["layers"][0]["dram_write_bytes"] == 24
    # tiny has 32 lanes
    assert report["layers"][0]["utilisation"] == 1.0
    assert report["total"]["utilisation"] == pytest.approx(41000 / (4000 * 32))
    assert report["total"]["density_in"] == pytest.approx(1000 / 10000)


def test_every_key_is_documented():
    text = Path("docs/report-schema.md").read_text()
    report = report_of([record()])
    keys = set(report) | set(report["layers"][0]) | set(report["total"])
    assert not {key for key in keys if f"`{key}`" not in text}


def test_total_lanes_come_from_the_configuration():
    config = AcceleratorConfig("wide", value_width=8, groups=5, lanes=48, block=16, drain=4, weight_depth=64,
                               tile_slots=32, sum_windows=16)
    assert summarise([record(cycles=10, lane_cycles=1200)], config.total_lanes)["utilisation"] == 0.5


def test_runs_of_a_layer_add_up():
    total = record(mismatches=1)
    total += record(mismatches=2, cycles=500)
    assert total.macs == 2 * 86_704_128 and total.mismatches == 3 and total.counters["cycles"] == 1500
    assert total.counters["read_beats"] == 20 and total.compared == 1000
    with pytest.raises(ValueError, match="do not belong together"):
        total += record("conv2_1")


def test_empty_layers_divide_by_nothing():
    row = summarise([record(cycles=0, input_values=0, output_values=0)], 32)
    assert row["utilisation"] == row["density_in"] == row["density_out"] == 0


def test_report_file_is_json(tmp_path):
    report = report_of([record()])
    write_report(report, tmp_path / "deep" / "report.json")
    assert json.loads((tmp_path / "deep" / "report.json").read_text()) == report
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.json"]


def render(report, **arguments):
    console = Console(file=io.StringIO(), width=80)
    console.print(build_table(report, **arguments))
    return console.file.getvalue()


def test_table_shows_each_layer_and_fits_80_columns():
    base = record().counters
    records = [record(f"conv{n}_1", macs=m, nonzero_macs=m // 3, mismatches=n % 2,
                      counters=base | {"cycles": m // 64, "read_beats": m // 8, "write_beats": 123_456_789})
               for n, m in enumerate((86_704_128, 1_849_688_064, 999_999_999_999))]
    report = report_of(records)
    text = render(report, subtotals={"trunk": report["total"]})
    assert all(len(line) <= 80 for line in text.splitlines()) and "…" not in text
    assert "86.7M" in text and "1.85G" in text and "64x224x224" in text and "99.0" in text
    lines = [line.split() for line in text.splitlines()]
    last = {line[0]: line[-1] for line in lines if line and re.match(r"(conv|trunk|total)", line[0])}
    assert last == {"conv0_1": "0", "conv1_1": "1", "conv2_1": "0", "trunk": "1", "total": "1"}


@pytest.mark.parametrize("number, text", [
    (0, "0"), (1, "1"), (999, "999"), (999.4, "999"), (999.6, "1.00k"), (1000, "1.00k"), (99_949, "99.9k"),
    (99_951, "100k"), (999_499, "999k"), (999_500, "1.00M"), (1_849_688_064, "1.85G"), (9_996_000, "10.0M")])
def test_numbers_have_three_digits(number, text):
    assert short(number) == text


@pytest.mark.parametrize("panels, columns", [(3, 3), (10, 5), (1, 1), (3, 2)])
def test_picture_shows_panels(tmp_path, panels, columns):
    rng = np.random.default_rng(3)
    arrays = [("photo", rng.integers(0, 256, (40, 60, 3)).astype(np.uint8))]
    arrays += [(f"edges {n}", rng.random((40, 60))) for n in range(1, panels)]
    draw_panels(arrays, tmp_path / "sub" / "edges.png", columns=columns, caption="made up")
    with Image.open(tmp_path / "sub" / "edges.png") as picture:
        assert picture.width > 1000
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50

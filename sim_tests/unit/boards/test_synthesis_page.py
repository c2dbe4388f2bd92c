"""The figures of a build: occupied LUTs from FASM, and the lines of docs/results/synthesis.md."""
from boards import bench
from boards.build import occupied_luts

FASM = """\
CLBLL_L_X2Y10.SLICEL_X0.ALUT.INIT[0]
CLBLL_L_X2Y10.SLICEL_X0.ALUT.INIT[7]
CLBLL_L_X2Y10.SLICEL_X0.BLUT.INIT[0]
CLBLL_L_X2Y10.SLICEL_X1.ALUT.INIT[0]
CLBLL_L_X2Y10.SLICEL_X1.AFF.ZINI
CLBLM_R_X3Y10.SLICEM_X0.DLUT.RAM
INT_L_X2Y10.NE2BEG0.LOGIC_OUTS_L0
"""

RESULT = {
    "commit": "abc", "date": "2026-01-01", "board": "some_board", "chip": "xc7z010", "config": "tiny", "lanes": 32,
    "luts": 6400, "seed": 1, "megahertz_asked": 100, "megahertz_reached": 98.76, "met": False,
    "resources": {"LUT places": [8800, 35200], "FF": [100, 1000], "DSP": [2, 80], "block RAM 36": [1, 10]},
    "seconds": {"synthesis": 60.0, "placement and routing": 120.0}, "memory_mib": 1234, "tools": {"yosys": "0.70"},
}


def test_each_lut_with_a_feature_is_counted_once(tmp_path):
    path = tmp_path / "top.fasm"
    path.write_text(FASM)
    assert occupied_luts(path) == 4


def test_a_missed_clock_is_said_and_luts_are_divided_by_lanes(tmp_path, monkeypatch):
    page = tmp_path / "synthesis.md"
    monkeypatch.setattr(bench, "PAGE", page)
    bench.write_page([RESULT])
    head, line = (row for row in page.read_text().splitlines() if "MHz" in row and "|" in row or "some_board" in row
                  and "xc7z010" in row)
    cells = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert cells["asked"] == "100 (missed)" and cells["MHz"] == "98.8"
    assert cells["LUTs"] == "6,400" and cells["a lane"] == "200" and cells["LUT places"] == "8,800 (25 %)"
    assert cells["minutes"] == "3"

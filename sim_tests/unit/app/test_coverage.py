"""The summary of Verilator's coverage file."""
from boards.sim.coverage import read_points, summarise


def point(block, line, kind, count, hierarchy="TOP"):
    keys = {"f": "design.v", "l": line, "n": 3, "page": f"v_line/{block}", "o": kind, "h": hierarchy}
    return "C '" + "".join(f"\x01{key}\x02{value}" for key, value in keys.items()) + f"' {count}"


def test_counts_of_a_point_add_up_over_instances():
    text = "\n".join(["# SystemC::Coverage-3", point("top.group", 7, "if", 0), point("top.group", 7, "if", 5, "TOP.b"),
                      point("top.group", 9, "else", 0), point("top", 1, "block", 2), "rubbish"])
    points = read_points(text)
    assert points == {("top.group", 7, "line if"): 5, ("top.group", 9, "line else"): 0, ("top", 1, "line block"): 2}
    report = summarise(points).splitlines()
    assert report[0].split() == ["1", "of", "1", "100.0", "%", "top"]
    assert report[1].split() == ["1", "of", "2", "50.0", "%", "top.group"]
    assert report[2].split() == ["2", "of", "3", "66.7", "%", "total"]
    assert report[-1] == "  top.group: line 9, line else" and len(report) == 6


def test_no_points_are_no_division_by_zero():
    assert "total" in summarise({})

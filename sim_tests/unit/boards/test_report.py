"""``zeroskip report``: numbers and bars equal the run records, bad records are refused, the page works in a browser."""
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.path import Path
from PIL import Image
from typer.testing import CliRunner

from boards.cli import app
from boards.report import figures
from boards.report.page import write_page
from boards.report.record import MOST_LINES, load_run
from boards.sim.report import STALLS, LayerRecord, build_report, summarise, write_report
from hw.configs import CONFIGS

CONFIG = CONFIGS["default"]
SECTIONS = ["cycles", "traffic", "comparison", "density", "roofline", "spread"]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def layer(seed, number, image, name="layer{}") -> LayerRecord:
    """A layer whose counters add up; sizes depend on seed and number, densities and waits also on the image."""
    sizes, rng = np.random.default_rng([seed, number]), np.random.default_rng([seed, number, image])
    macs, density = int(10 ** sizes.uniform(4, 7)), rng.uniform(0.05, 1)
    nonzero = int(macs * density)
    busy = -(-nonzero // CONFIG.lanes) + int(rng.integers(0, 400))
    cycles = busy // CONFIG.groups + int(rng.integers(50, 5000))
    waits = rng.multinomial(cycles * CONFIG.groups - busy, rng.dirichlet(np.ones(len(STALLS))))
    counters = {"cycles": cycles, "lane_cycles": nonzero, "busy": busy,
                "read_beats": int(cycles * rng.uniform(0.1, 0.9)), "write_beats": int(cycles * rng.uniform(0, 0.3)),
                **dict(zip(STALLS, map(int, waits), strict=True))}
    return LayerRecord(name.format(number), (int(sizes.integers(1, 512)), 14, 14), macs, nonzero, 1000,
                       int(1000 * density), 2000, int(rng.integers(0, 2000)), 500, 0, counters)


def record(seed, layers, images=(0,), mismatches=0, **changes) -> dict:
    """A report of a run of some images."""
    records = [layer(seed, number, images[0], **changes) for number in range(layers)]
    for image in images[1:]:
        for total, one in zip(records, (layer(seed, number, image, **changes) for number in range(layers)),
                              strict=True):
            total += one
    records[0].mismatches = mismatches
    cycles = sum(record.counters["cycles"] for record in records)
    return build_report(network="made_up", config=CONFIG, records=records, run_cycles=cycles + 77, wall_seconds=1.0)


def with_nodes(report, seed, groups, image=0) -> dict:
    """The report of one image with nodes of the layers at the places in ``groups``; the network has half of their
    multiplications."""
    nodes = []
    for at, places in enumerate(groups):
        row = summarise([layer(seed, place, image) for place in places], CONFIG.total_lanes)
        nodes.append({"name": f"Conv node '{at}'", "shape": [1, 2, 3], "network_macs": row["macs"] // 2,
                      "macs_of_output": row["macs"] // 12, "groups": 1,
                      "layers": [report["layers"][place]["name"] for place in places]} | row)
    report["total"]["network_macs"] = sum(node["network_macs"] for node in nodes)
    return report | {"nodes": nodes}


def with_early(records) -> dict:
    """The report of layers on the intersect array, with made-up counts."""
    rng = np.random.default_rng(3)
    for one in records:
        outputs, stopped, predicted, missed = sorted(map(int, rng.integers(10, 1000, 4)), reverse=True)
        products = [*map(int, rng.integers(0, 1000, 3)), 0, 0, 0, 0]
        one.early = {"skipping": sum(products) + 500, "products": products, "outputs": outputs, "stopped": stopped,
                     "predicted": predicted, "missed": missed}
    cycles = sum(one.counters["cycles"] for one in records)
    return build_report(network="made_up", config=CONFIG, records=records, run_cycles=cycles, wall_seconds=1.0)


def save(folder, report):
    write_report(report, folder / "report.json")
    return folder


class Page(HTMLParser):
    """``tables``: by section, a list of {first cell: texts of the others}; ``columns``: their headings; ``links``:
    everything that points somewhere; ``alts``: descriptions of figures by section; ``texts``: all text; ``folded``:
    the lines of lists in cells."""

    def __init__(self, path):
        super().__init__()
        self.tables, self.columns, self.links, self.alts, self.tags, self.texts = {}, {}, [], {}, [], []
        self.section = self.row = None
        self.folded, self.in_list = [], False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.in_list |= tag == "ul"
        self.links += [value for name, value in attrs.items() if name in ("href", "src", "xlink:href", "srcset")]
        if tag == "section":
            self.section = attrs["id"]
            self.tables[self.section], self.columns[self.section] = [], []
        if attrs.get("role") == "img":
            self.alts[self.section] = attrs["aria-label"]
        if tag == "table":
            self.tables[self.section].append({})
        if tag == "tr":
            self.row = []
        if tag in ("td", "th"):
            self.row.append("")

    def handle_data(self, text):
        self.texts.append(text)
        if self.in_list and self.row:
            self.folded += [text] if text.strip() else []
        elif self.row:
            self.row[-1] += text

    def handle_endtag(self, tag):
        self.in_list &= tag != "ul"
        if tag == "thead":
            self.columns[self.section].append(self.row)
            self.tables[self.section][-1].clear()
        if tag == "tr" and self.row:
            self.tables[self.section][-1][self.row[0]] = self.row[1:]
        if tag == "table":
            self.row = None


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """A page of three reports with two images each: (folder, reports, files, page)."""
    folder = tmp_path_factory.mktemp("several")
    reports = [record(11, 9, images=(2 * n, 2 * n + 1)) for n in range(3)]
    for number, report in enumerate(reports):
        save(folder / f"photo{number}", report)
    files = write_page(load_run(folder), folder / "page.html")
    return folder, reports, files, Page(files[0])


def number(text):
    return float(text.replace(",", ""))


def test_every_figure_is_there_as_picture_and_in_the_page(several):
    folder, _, files, page = several
    assert [file.name for file in files] == ["page.html", *(f"page-{name}.png" for name in SECTIONS)]
    for file in files[1:]:
        with Image.open(file) as picture:
            assert picture.width > 500 and picture.height > 300
            assert len(np.unique(np.asarray(picture.convert("L")))) > 20
    assert list(page.tables) == SECTIONS and page.tags.count("svg") == len(SECTIONS)
    assert list(page.alts) == SECTIONS and all(len(alt) > 60 for alt in page.alts.values())


def test_early_activation_has_a_section(tmp_path):
    records = [layer(5, number, 0) for number in range(4)]
    report = with_early(records)
    files = write_page(load_run(save(tmp_path, report)), tmp_path / "page.html")
    page = Page(files[0])
    assert list(page.tables) == [*SECTIONS[:-1], "early"]
    [columns], [table] = page.columns["early"], page.tables["early"]
    assert [text.strip() for text in columns[1:]] == [
        "products of zero skip", "multiplied %", "phase 0 %", "phase 1 %", "phase 2 %", "outputs stopped %",
        "predicted %", "wrongly %"]
    for name, row in [*((one["name"], one) for one in report["layers"]), ("all layers", report["total"])]:
        early = row["early"]
        shares = [sum(early["products"]) / early["skipping"], *(n / early["skipping"] for n in early["products"][:3]),
                  *(early[key] / early["outputs"] for key in ("stopped", "predicted", "missed"))]
        found = [text.strip() for text in table[name]]
        assert found == [f"{early['skipping']:,}", *(f"{100 * share:.1f}" for share in shares)], name
    total = report["total"]["early"]
    assert f"{100 * total['stopped'] / total['outputs']:.1f} % of the outputs" in page.alts["early"]


@pytest.mark.parametrize("change, message", [
    ({"stopped": 10**6}, "each must be a part of the one before"),
    ({"skipping": 1}, "early of the layers does not add up to early of total"),
    ({"products": [1]}, "List should have at least 7 items")])
def test_wrong_counts_of_early_activation_are_refused(tmp_path, change, message):
    report = with_early([layer(5, number, 0) for number in range(2)])
    report["layers"][0]["early"] |= change
    with pytest.raises(ValueError, match=message):
        load_run(save(tmp_path, report))


def test_page_refers_to_nothing_outside(several):
    _, _, files, page = several
    assert page.links and all(link.startswith(("#", "data:")) for link in page.links)
    text = files[0].read_text()
    assert not re.search(r"url\((?!#)", text) and "@import" not in text and "<script" not in text
    assert set(re.findall(r"https?://[^\"]*", text)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_tables_equal_the_records(several):
    _, reports, _, page = several
    images, lanes = 6, CONFIG.total_lanes
    names = [row["name"] for row in reports[0]["layers"]]
    rows = {name: [report["layers"][place] for report in reports] for place, name in enumerate(names)}
    rows["all layers"] = [report["total"] for report in reports]
    tables = {name: tables[-1] for name, tables in page.tables.items()}
    for name, parts in rows.items():
        def total(key, parts=parts):
            return sum(part[key] for part in parts)

        def close(text, value, what, name=name):
            # One decimal or more are shown.
            assert number(text) == pytest.approx(value, abs=0.0501), (name, what)

        work = total("lane_cycles") / lanes
        cells = tables["cycles"][name]
        expected = [total("cycles"), work, total("busy") / CONFIG.groups - work,
                    *(total(key) / CONFIG.groups for key in ("stall_find", "stall_weights", "stall_tile",
                                                              "stall_output", "idle"))]
        for text, value in zip(cells[1:-1], expected, strict=True):
            close(text, value / images, "cycles")
        assert sum(expected[1:]) == pytest.approx(expected[0])
        close(cells[-1], 100 * work / total("cycles"), "utilisation")
        for text, value in zip(tables["comparison"][name], (
                total("macs") / images, total("macs") / lanes / images, total("cycles") / images,
                total("nonzero_macs") / lanes / images, total("macs") / lanes / total("cycles"),
                total("cycles") * lanes / total("nonzero_macs")), strict=True):
            close(text, value, "comparison")
        for text, value in zip(tables["traffic"][name], (
                total("dram_read_bytes") / images, total("dram_write_bytes") / images,
                100 * total("dram_read_bytes") / 8 / total("cycles"),
                100 * total("dram_write_bytes") / 8 / total("cycles")), strict=True):
            close(text, value, "traffic")
        for text, value in zip(tables["density"][name], (
                100 * total("density_in") / 3, 100 * total("density_out") / 3, total("macs") / images,
                total("nonzero_macs") / images, 100 * (1 - total("nonzero_macs") / total("macs"))), strict=True):
            close(text, value, "density")
        intensity, reached, roof, share, bound = tables["roofline"][name]
        work_per_byte = total("nonzero_macs") / max(total("dram_read_bytes"), total("dram_write_bytes"))
        assert number(intensity) == pytest.approx(work_per_byte, rel=0.01)
        assert number(reached) == pytest.approx(total("nonzero_macs") / total("cycles"), rel=0.001)
        assert number(roof) == pytest.approx(min(lanes, 8 * work_per_byte), rel=0.001)
        assert bound == ("lanes" if 8 * work_per_byte >= lanes else "bus")
        close(share, 100 * total("nonzero_macs") / total("cycles") / min(lanes, 8 * work_per_byte), "roof")
        each = sum((part["cycles_of_runs"] for part in parts), [])
        for text, value in zip(tables["spread"][name], (
                min(each), np.mean(each), max(each), 100 * (max(each) - min(each)) / np.mean(each)), strict=True):
            close(text, value, "spread")
    assert all(list(tables[name]) == list(rows) for name in SECTIONS)
    shapes = {row["name"]: "x".join(map(str, row["shape"])) for row in reports[0]["layers"]}
    assert {name: cells[0] for name, cells in tables["cycles"].items()} == shapes | {"all layers": ""}


def test_every_image_has_a_line(several):
    _, reports, _, page = several
    images = page.tables["spread"][0]
    assert list(images) == [f"photo{n} {run}" for n in range(3) for run in (1, 2)]
    assert [number(cells[0]) for cells in images.values()] == \
        sum((report["total"]["cycles_of_runs"] for report in reports), [])
    assert [number(cells[1]) for cells in images.values()] == \
        sum((report["total"]["nonzero_macs_of_runs"] for report in reports), [])


def ends(patch):
    """Where the bars of a patch begin and end."""
    corners = patch.get_path().vertices.reshape(-1, 5, 2)[:, :4, 0]
    return corners.min(1), corners.max(1)


def test_bars_are_as_long_as_the_numbers(several):
    folder, reports, _, _ = several
    run = load_run(folder)
    rows = [[report["layers"][place] for report in reports] for place in range(9)]
    mean = {key: np.array([sum(part[key] for part in parts) / 6 for parts in rows]) for key in
            ("cycles", "macs", "nonzero_macs", "dram_read_bytes", "dram_write_bytes")}
    absolute, share = (axes.patches for axes in figures.cycles(run).axes)
    assert len(absolute) == len(share) == 7
    np.testing.assert_allclose(ends(absolute[-1])[1], mean["cycles"])
    np.testing.assert_allclose(ends(share[-1])[1], 100)
    for before, after in zip(absolute, absolute[1:], strict=False):
        np.testing.assert_allclose(ends(before)[1], ends(after)[0])
    bars = [ends(patch)[1] for patch in figures.comparison(run).axes[0].patches]
    np.testing.assert_allclose(bars, [mean["macs"] / CONFIG.total_lanes, mean["cycles"],
                                      mean["nonzero_macs"] / CONFIG.total_lanes])
    read, written = figures.traffic(run).axes[0].patches
    np.testing.assert_allclose(ends(read)[1], mean["dram_read_bytes"])
    np.testing.assert_allclose(ends(written)[1] - ends(written)[0], mean["dram_write_bytes"])
    points = figures.roofline(run).axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(sorted(points[:, 1]), sorted(mean["nonzero_macs"] / mean["cycles"]))


def invoke(*arguments, status=0):
    result = CliRunner().invoke(app, ["report", *map(str, arguments)])
    assert result.exit_code == status, result.output
    return result.output


def test_command_writes_beside_the_report(tmp_path):
    report = record(5, 3, mismatches=4) | {"command": "make sim <NET>=made_up"}
    save(tmp_path, report)
    output = invoke(tmp_path / "report.json")
    written = [line.removeprefix("wrote ") for line in output.splitlines()]
    assert sorted(written) == sorted(str(path) for path in tmp_path.glob("report[.-]*") if path.suffix != ".json")
    page = Page(tmp_path / "report.html")
    assert list(page.tables) == SECTIONS[:-1]
    text = " ".join(page.texts)
    assert "make sim <NET>=made_up" in text and "4 values differ from the golden model" in text
    # One image: the numbers are the counters themselves.
    assert page.tables["cycles"][0]["layer1"][1] == f"{report['layers'][1]['cycles']:,}"


def test_the_same_record_gives_the_same_page(tmp_path):
    run = load_run(save(tmp_path, record(6, 4, name="$x_{}^$ <b>&amp;")))
    first, second = (write_page(run, tmp_path / name / "page.html") for name in ("a", "b"))
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert "$x_1^$ <b>&amp;" in Page(first[0]).tables["cycles"][0]


def test_nodes_take_the_place_of_layers(tmp_path):
    report = with_nodes(record(7, 4), 7, [[0], [1, 2, 3]])
    page = Page(write_page(load_run(save(tmp_path, report)), tmp_path / "page.html")[0])
    assert list(page.tables["cycles"][0]) == ["Conv node '0'", "Conv node '1', 3 layers", "all layers"]
    assert all(list(page.tables[name][0]) == ["Conv node '0'", "Conv node '1'", "all layers"]
               for name in SECTIONS[1:-1])
    assert page.columns["cycles"][0][0] == "node" and page.columns["cycles"][0][1] == "output"
    assert "2 nodes, which the accelerator runs as 4 layers" in " ".join(page.texts)
    # The layers of the second are folded behind its name, and are its cycles.
    assert page.folded == [f"{row['name']}: {row['cycles']:,} cycles" for row in report["layers"][1:]]
    assert number(page.tables["cycles"][0]["Conv node '1', 3 layers"][1]) == \
        sum(row["cycles"] for row in report["layers"][1:])


def test_dense_has_the_multiplications_of_the_network(tmp_path):
    reports = [with_nodes(record(7, 4, images=(image,)), 7, [[0, 1], [2], [3]], image) for image in (0, 1)]
    for place, report in enumerate(reports):
        save(tmp_path / f"photo{place}", report)
    page = Page(write_page(load_run(tmp_path), tmp_path / "page.html")[0])
    for place, (name, cells) in enumerate(page.tables["comparison"][0].items()):
        rows = [report["total"] if name == "all layers" else report["nodes"][place] for report in reports]
        macs, cycles = (sum(row[key] for row in rows) for key in ("network_macs", "cycles"))
        assert number(cells[0]) == pytest.approx(macs / 2, abs=0.051)
        assert number(cells[4]) == pytest.approx(macs / CONFIG.total_lanes / cycles, abs=0.0051)
        assert macs < sum(row["macs"] for row in rows)


def test_figures_of_many_nodes_show_the_longest_and_the_sum_of_the_others(tmp_path):
    count = MOST_LINES + 7
    run = load_run(save(tmp_path, with_nodes(record(13, 2 * count), 13, [[2 * n, 2 * n + 1] for n in range(count)])))
    assert len(run.rows) == count and len(run.lines) == MOST_LINES and run.others.name == "7 other nodes"
    assert min(row.cycles for row in run.lines) >= max(row.cycles for row in run.rows if row not in run.lines)
    assert [row.name for row in run.lines] == [row.name for row in run.rows if row in run.lines]
    config, total = run.config, run.total
    for figure, expected in ((figures.cycles, total.cycles), (figures.traffic,
                                                              total.dram_read_bytes + total.dram_write_bytes)):
        assert ends(figure(run).axes[0].patches[-1])[1].sum() == pytest.approx(expected)
    dense, measured, bound = (ends(patch)[1].sum() for patch in figures.comparison(run).axes[0].patches)
    assert (dense, measured, bound) == pytest.approx((total.network_macs / config.total_lanes, total.cycles,
                                                      total.nonzero_macs / config.total_lanes))
    names = [text.get_text() for text in figures.cycles(run).axes[0].texts]
    assert len(names) == MOST_LINES + 1 and names[-1] == "7 other nodes"
    # Densities do not add up: no line for the others.
    assert len(figures.density(run).axes[0].texts) == MOST_LINES
    page = Page(write_page(run, tmp_path / "page.html")[0])
    assert all(len(page.tables[name][0]) == count + 1 for name in SECTIONS[:-1])
    assert " ".join(page.texts).count(f"Shown are the {MOST_LINES} nodes that take most cycles") == 4


@pytest.mark.parametrize("seed", [13, 14, 15])
def test_labels_of_points_cover_nothing(tmp_path, seed):
    figure = figures.roofline(load_run(save(tmp_path, record(seed, 80))))
    figure.draw_without_rendering()
    axes, = figure.axes
    labels = [text for text in axes.texts if text.get_text().startswith("layer")]
    pixels = figure.dpi / 72
    leaders = [Path(axes.transData.transform([text.xy] * 2) + [[0, 0], np.array(text.get_position()) * pixels])
               for text in axes.texts if not text.get_text()]
    boxes = [text.get_window_extent() for text in labels]
    points = axes.transData.transform(axes.collections[0].get_offsets())
    assert len(labels) > 3 and leaders, f"seed {seed}"
    for at, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:at]), f"seed {seed}: {labels[at].get_text()}"
        assert not any(box.contains(*point) for point in points), f"seed {seed}: {labels[at].get_text()}"
        # A leader ends at its own label.
        assert sum(leader.intersects_bbox(box.padded(-0.5), filled=False) for leader in leaders) == 0
    for at, leader in enumerate(leaders):
        assert not any(leader.intersects_path(other, filled=False) for other in leaders[:at]), f"seed {seed}"


def test_a_run_with_as_many_layers_as_lines_shows_all(tmp_path):
    run = load_run(save(tmp_path, record(13, MOST_LINES)))
    assert run.others is None and run.lines == run.rows


def test_ratios_have_no_unit(tmp_path):
    figure = figures.comparison(load_run(save(tmp_path, with_nodes(record(13, 2), 13, [[0], [1]]))))
    figure.draw_without_rendering()
    for label in figure.axes[1].get_xticklabels():
        assert float(label.get_text()) == pytest.approx(label.get_position()[0])


def refused(path, tmp_path, *parts):
    output = invoke(path, status=2)
    assert output.count("\n") == 1 and output.startswith("error: "), output
    for part in parts:
        assert part in output, output
    assert not list(tmp_path.rglob("*.html")) and not list(tmp_path.rglob("*.png"))


DAMAGES = {
    "missing": (lambda report: report.pop("parameters"), "parameters: Field required"),
    "text": (lambda report: report["layers"][1].update(cycles="many"), "layers.1.cycles"),
    "negative": (lambda report: report["layers"][1].update(idle=-1), "layers.1.idle"),
    "no cycles": (lambda report: report["total"].update(cycles=0), "total.cycles"),
    "not a number": (lambda report: report["total"].update(density_in=float("nan")), "total.density_in"),
    "no layers": (lambda report: report.update(layers=[]), "layers"),
    "list": (lambda report: report.update(total=[]), "total"),
    "unknown parameter": (lambda report: report["parameters"].update(colour=3), "not those of a configuration"),
    "illegal parameter": (lambda report: report["parameters"].update(groups=99), "groups must be at most 16"),
    "waits": (lambda report: report["layers"][2].update(busy=report["layers"][2]["busy"] - 1), "busy, stalls and idle"),
    "lanes": (lambda report: report["layers"][0].update(lane_cycles=10**12), "lane_cycles do not fit"),
    "sum": (lambda report: report["total"].update(macs=report["total"]["macs"] + 1), "macs of the layers"),
    "runs": (lambda report: report["layers"][0]["cycles_of_runs"].append(1), "cycles_of_runs do not add up"),
    "node without its layer": (lambda report: report["nodes"][1]["layers"].pop(), "not the layers of the report"),
    "layer twice": (lambda report: report["nodes"][0]["layers"].append("layer0"), "not the layers of the report"),
    "sum of a node": (lambda report: report["nodes"][1].update(compared=7), "compared of its layers do not add up"),
    "no macs of the network": (lambda report: report["nodes"][1].pop("network_macs"), "network_macs is missing"),
    "no groups of a convolution": (lambda report: report["nodes"][0].pop("groups"), "groups is missing"),
    "macs of the network": (lambda report: report["nodes"][1].update(network_macs=7), "network_macs of the nodes"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_records_are_refused(tmp_path, damage):
    report = with_nodes(record(8, 3), 8, [[0], [1, 2]])
    change, sentence = DAMAGES[damage]
    change(report)
    refused(save(tmp_path, report), tmp_path, "report.json", sentence, "run `make sim` again")


def test_truncated_records_are_refused(tmp_path):
    text = json.dumps(record(9, 2))
    for end in np.random.default_rng(9).integers(0, len(text), 25):
        (tmp_path / "report.json").write_text(text[:end])
        refused(tmp_path / "report.json", tmp_path, "is not a report of `make sim`")
    (tmp_path / "report.json").write_bytes(b"\xff\x00\x80" * 100)
    refused(tmp_path, tmp_path, "is not a report of `make sim`")


def test_places_without_a_report_are_refused(tmp_path):
    refused(tmp_path, tmp_path, "there is no report.json", "make sim")
    refused(tmp_path / "nothing", tmp_path, "there is no report.json")


@pytest.mark.parametrize("other, word", [
    (record(1, 3) | {"network": "another"}, "network"), (record(2, 3), "layers"), (record(1, 4), "layers"),
    (record(1, 3) | {"parameters": record(1, 3)["parameters"] | {"tile_slots": 64}}, "parameters")])
def test_reports_that_do_not_belong_together_are_refused(tmp_path, other, word):
    save(tmp_path / "a", record(1, 3))
    save(tmp_path / "b", other)
    refused(tmp_path, tmp_path, "a/report.json", "b/report.json", f"differ in {'their ' * (word == 'layers')}{word}")


HARNESS = """<!DOCTYPE html><title></title><body>
<iframe id="page" style="border:0;width:%dpx;height:3000px" srcdoc="%s"></iframe>
<script>
document.getElementById("page").onload = event => {
  const page = event.target.contentDocument, view = page.scrollingElement
  page.querySelectorAll("details").forEach(part => part.open = true)
  const seen = part => part.getBoundingClientRect(), all = names => [...page.querySelectorAll(names)]
  document.title = JSON.stringify({
    width: view.clientWidth, needed: view.scrollWidth,
    figures: all(".figure svg").map(part => seen(part).width),
    smallest: Math.min(...all("svg text").map(part => seen(part).height)),
    outside: all("h1, h2, p, .cards div, dd, pre, li, nav a, summary")
      .filter(part => seen(part).right > view.clientWidth + 0.5).map(part => part.outerHTML.slice(0, 80)),
  })
}
</script>"""


def browse(text, width, tmp_path):
    """What Chromium makes of the page ``text``, ``width`` pixels wide with all tables open, and what its console says.

    The page stands in a frame, for a window cannot be as narrow as a phone.
    """
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS % (width, html.escape(text)))
    result = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--user-data-dir={tmp_path / 'profile'}",
         "--window-size=1400,1000", "--enable-logging=stderr", "--virtual-time-budget=5000", "--dump-dom",
         harness.as_uri()], capture_output=True, text=True, timeout=240, check=True)
    title = re.search(r"<title>(.*?)</title>", result.stdout)[1]
    return json.loads(html.unescape(title)), [line for line in result.stderr.splitlines() if ":CONSOLE" in line]


needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: the page was NOT tried in a browser; "
                                                             "Debian, Ubuntu: apt-get install chromium")


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(several, tmp_path, width):
    seen, console = browse(several[2][0].read_text(), width, tmp_path)
    assert not console
    assert seen["width"] == width and seen["needed"] <= width and not seen["outside"]
    assert len(seen["figures"]) == len(SECTIONS) and min(seen["figures"]) > 300
    # Height of the smallest letters, ascenders and descenders included.
    assert seen["smallest"] > 8


@needs_chromium
def test_long_names_and_many_layers_in_a_browser(tmp_path):
    report = record(12, 90, name="a_layer_with_a_name_that_takes_more_room_than_a_phone_has_{}")
    report = with_nodes(report, 12, [range(20), *([place] for place in range(20, 90))])
    report["nodes"][0]["name"] = "Add node '/a_node_of_many_layers_and_a_name_that/takes_more_room_than_a_phone_has'"
    report["command"] = "zeroskip" * 60
    files = write_page(load_run(save(tmp_path, report)), tmp_path / "page.html")
    seen, console = browse(files[0].read_text(), 390, tmp_path)
    assert not console and seen["needed"] <= 390 and not seen["outside"]


@needs_chromium
def test_the_browser_test_sees_what_is_wrong(tmp_path):
    broken = "<meta name=viewport content='width=device-width'><p style='width:900px'>wide</p>" \
             "<svg class=figure><text y=9 font-size=3>x</text></svg><script>undefined_name.x = 1</script>"
    seen, console = browse("<!DOCTYPE html>" + broken, 390, tmp_path)
    assert seen["needed"] > 390 and seen["outside"] and seen["smallest"] < 8
    assert any("undefined_name" in line for line in console)

"""The benchmark of whole networks: registry, golden's integers in batches, steps and their resumption, page, errors."""
import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from boards.bench_networks import __main__ as bench
from boards.bench_networks import measure, modules
from boards.bench_networks.batch import EXACT32, SCALABLE, run_batch
from boards.bench_networks.data import Data, MissingData, cut, data_file, imagenet, imagenet_or_photos
from boards.bench_networks.page import check, mcnemar, networks_page
from boards.bench_networks.registry import BENCHMARKS, DECIBELS, TOP1, Benchmark, _face_overlap, _module
from compiler.progress import Stages
from golden.layer import QuantisedLayer, Slice, Target
from golden.network import QuantisedNetwork, run_network
from golden.postprocess import value_limits
from hw.configs import get_config
from sim_tests.golden_model.random_networks import random_network

SHAPE, CLASSES = (3, 12, 12), 5


class Small(nn.Module):
    """A residual network of three convolutions and a classifier, generated weights."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = torch.relu(self.first(x))
        x = torch.relu(x + self.third(torch.relu(self.second(x))))
        return self.last(x.mean((2, 3)))


def small_data(count=30):
    """Random inputs, labelled by the float network."""
    rng = np.random.default_rng(5)
    inputs = list(rng.normal(size=(count + 8, *SHAPE)).astype(np.float32))
    network = Small().eval()
    with torch.no_grad():
        labels = np.array([int(network(torch.from_numpy(x)[None]).argmax()) for x in inputs[8:]])
    return Data("random inputs", inputs[:8], inputs[8:], lambda x: x, labels)


SMALL = Benchmark("small", "a small network", "generated weights", _module(SHAPE, lambda: Small().eval()), small_data,
                  TOP1, 20)


def missing():
    raise MissingData("set ZEROSKIP_DATA")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Results and page in a temporary folder, and runs in the RTL and the cycle model replaced: they have their own
    tests."""
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "networks")
    page = bench.ROOT / "build" / f"{tmp_path.name}-networks.md"
    monkeypatch.setattr(bench, "PAGE", page)
    monkeypatch.setattr(bench, "measure_run", lambda program, x, stages: {
        "cycles": 1000 + len(program.layers), "layers": len(program.layers), "problems": [], "macs": 9,
        "nonzero_macs": 5, "utilisation": 0.25, "mismatches": 0, "compared": 77, "dram_read_bytes": 1,
        "dram_write_bytes": 1})
    monkeypatch.setattr(bench, "measure_model", lambda program, x: {"cycles": 1000 + len(program.layers) + 1})
    (tmp_path / "networks").mkdir()
    yield tmp_path / "networks"
    page.unlink(missing_ok=True)


def run_measure(benchmark, folder, **options):
    stages = Stages(Console(quiet=True))
    with stages.progress:
        return bench.measure(benchmark, folder, stages, **options)


def test_registry_is_well_formed():
    pinned = (bench.ROOT / "requirements-networks.txt").read_text()
    for name, benchmark in BENCHMARKS.items():
        assert name == benchmark.name and name == name.lower() and " " not in name
        assert benchmark.images > 0 and benchmark.measure.form.format(1.0)
        if benchmark.source.startswith("PyPI "):
            assert f"{benchmark.source.split()[1]}==" in pinned, benchmark.source


def test_generated_networks_have_the_published_sizes():
    # As many convolutions as the tables of the papers list; the multiplications follow from the shapes.
    def size(module):
        counts = []
        for part in module.modules():
            if isinstance(part, nn.Conv2d):
                part.register_forward_hook(lambda part, _, y: counts.append(part.weight.numel() * y[0, 0].numel()))
        with torch.no_grad():
            module.to("meta")(torch.zeros((1, 3, 224, 224), device="meta"))
        return len(counts), sum(counts)

    assert size(modules.vgg19(1)) == (16, 19_508_428_800)
    assert size(modules.googlenet(1)) == (57, 1_581_647_872)


@pytest.mark.parametrize("config", ["tiny", "nullhop"])
@pytest.mark.parametrize("seed", range(4))
def test_batches_equal_golden(seed, config):
    rng = np.random.default_rng(seed)
    network = random_network(rng, get_config(config), depth=4)
    low, high = value_limits(network.value_width, network.input_signed)
    inputs = rng.integers(low, high, (3, *network.input_shape), endpoint=True)
    found = run_batch(network, inputs)
    for number, x in enumerate(inputs):
        expected = run_network(network, x)[0]
        for name in network.outputs:
            assert np.array_equal(found[name][number], expected[name]), f"seed {seed}, {name}, input {number}"


def one_layer(weights, bias, scale, shift, width):
    """A network of one 1x1 layer on 3x3 unsigned values, signed outputs."""
    shape = (weights.shape[1], 3, 3)
    layer = QuantisedLayer("large", (Slice("input", 0, shape[0]),), shape, weights, bias, np.full(len(weights), scale),
                           np.full(len(weights), shift), *value_limits(width, True), Target("large"), value_width=width)
    return QuantisedNetwork("large", width, shape, False, (layer,), ("large",))


def test_sums_that_float32_cannot_hold_are_exact():
    # The first half adds up to more than 2**24, the second takes it off again, the last channel is what is left.
    rng, half = np.random.default_rng(11), 1600
    x = rng.integers(100, 255, (2, half, 3, 3), endpoint=True)
    weights = rng.integers(63, 127, (4, half, 1, 1), endpoint=True)
    last = rng.integers(0, 127, (2, 1, 3, 3), endpoint=True)
    network = one_layer(np.concatenate([weights, -weights, np.ones((4, 1, 1, 1), int)], 1), np.zeros(4, int), 1, 0, 8)
    assert np.einsum("nchw,oc->nohw", x, weights[..., 0, 0]).min() > EXACT32
    found = run_batch(network, np.concatenate([x, x, last], 1))["large"]
    assert np.array_equal(found, np.broadcast_to(last, found.shape))


def test_products_that_float64_cannot_hold_equal_golden():
    rng = np.random.default_rng(12)
    weights = rng.integers(16_000, 32_767, (4, 300, 1, 1)) * np.array([1, -1, 1, -1])[:, None, None, None]
    network = one_layer(weights, np.array([-5, 7, -9, 11]), 40_001, 39, 16)
    inputs = rng.integers(0, 65_535, (2, 300, 3, 3), endpoint=True)
    expected = np.stack([run_network(network, x)[0]["large"] for x in inputs])
    assert np.abs(np.einsum("nchw,oc->nohw", inputs, weights[..., 0, 0])).min() > SCALABLE
    assert len(np.unique(expected)) > 30 and np.array_equal(run_batch(network, inputs)["large"], expected)


def test_a_network_is_measured_and_steps_are_kept(folders, monkeypatch):
    result = run_measure(SMALL, folders)
    assert list(result) == list(bench.STEPS)
    assert result["network"]["convolutions"] == 4
    assert result["network"]["macs"] == 36 * 8 * (27 + 72 + 8) + 8 * CLASSES
    for step in ("8 bits", "16 bits"):
        assert result[step]["inputs"] == 20 and result[step]["float"] == 100.0
    # Few inputs lie near a border between two classes, and 16 bits are as good as float32.
    assert 85 <= result["8 bits"]["quantised"] <= 100 and result["16 bits"]["quantised"] == 100
    flips = result["8 bits"]["flips"]
    assert flips == {"lost": round((100 - result["8 bits"]["quantised"]) / 5), "won": 0, "ties": flips["ties"]}

    monkeypatch.setattr(bench, "load_case", lambda *_: pytest.fail("a step that is there was measured again"))
    assert run_measure(SMALL, folders) == result
    stored = json.loads((folders / "small.json").read_text())
    assert stored == result


def test_signal_to_noise_compares_each_score_with_its_own(folders):
    """The classifier's map has three dimensions, the file's output one."""
    result = run_measure(replace(SMALL, measure=DECIBELS), folders)
    assert 20 < result["8 bits"]["quantised"] < 60 < result["16 bits"]["quantised"]


def test_flips_are_counted_in_pairs(folders):
    """Where labels are wrong, 8 bits cannot lose; without labels nothing is counted."""
    def wrong_data(labels=True):
        data = small_data()
        return replace(data, labels=(data.labels + 1) % CLASSES if labels else None)
    result = run_measure(replace(SMALL, data=wrong_data), folders)["8 bits"]
    assert result["float"] == 0 and result["flips"]["lost"] == 0
    assert result["flips"]["won"] == round(result["quantised"] / 5)
    unlabelled = replace(SMALL, name="unlabelled", data=lambda: wrong_data(False))
    assert run_measure(unlabelled, folders)["8 bits"]["flips"] is None


def test_flips_of_a_network_that_answers_at_random(folders, monkeypatch):
    """Outputs of class 0 for every input, or of all classes for odd ones: lost and won do not cancel, ties are counted.
    """
    labels = np.array([0, 1] * 15)
    benchmark = replace(SMALL, data=lambda: replace(small_data(), labels=labels))
    floats = []
    answers = iter([np.ones((1, CLASSES)) if number % 2 else np.eye(CLASSES)[:1] for number in range(100)])
    monkeypatch.setattr(measure.OnnxCase, "outputs", lambda *_: [next(answers)])
    expected = measure.OnnxCase.expected
    monkeypatch.setattr(measure.OnnxCase, "expected",
                        lambda *arguments: floats.append(expected(*arguments)) or floats[-1])
    result = run_measure(benchmark, folders)["8 bits"]
    right = np.array([outputs[0].argmax() for outputs in floats[:20]]) == labels[:20]
    assert result["flips"] == {"lost": int((right & (labels[:20] == 1)).sum()),
                               "won": int((~right & (labels[:20] == 0)).sum()), "ties": 10}
    assert min(result["flips"].values()) > 0


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1), (2, 0, 0.5), (3, 3, 1), (6, 3, 260 / 512),
                                                    (1, 9, 22 / 1024)])
def test_mcnemar(lost, won, p):
    assert mcnemar(lost, won) == mcnemar(won, lost) == pytest.approx(p)


def test_a_step_asked_for_differently_is_measured_again(folders, monkeypatch):
    before = run_measure(SMALL, folders)
    measured = []
    real = bench.measure_accuracy
    monkeypatch.setattr(bench, "measure_accuracy", lambda *arguments: measured.append(arguments[4]) or real(*arguments))
    after = run_measure(SMALL, folders, images=7)
    assert measured == [7, 7] and after["8 bits"]["inputs"] == 7
    assert after["rtl"] == before["rtl"]


def test_a_cut_off_run_keeps_its_steps(folders, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(bench, "measure_accuracy", stop)
        run_measure(SMALL, folders)
    assert list(bench.load_result(folders, "small")) == ["network", "rtl", "model"]
    with monkeypatch.context() as patched:
        patched.setattr(bench, "measure_run", stop)
        assert list(run_measure(SMALL, folders)) == list(bench.STEPS)


def step(**values):
    return {"asked": {}, "commit": "abc", "date": "2000-01-01", "cpu_seconds": 30.0} | values


def made_up_result():
    return {"network": step(convolutions=4, macs=38_400_000),
            "8 bits": step(config="default", inputs=50, float=80.0, quantised=79.5, data="some digits",
                           flips={"lost": 3, "won": 2, "ties": 4}),
            "16 bits": step(config="nullhop", inputs=40, float=80.0, quantised=79.9, data="some digits",
                            flips={"lost": 1, "won": 1, "ties": 0}),
            "rtl": step(config="default", cycles=200_000, layers=6, mismatches=0, compared=1234, utilisation=0.5),
            "model": step(cycles=201_000)}


def test_page_holds_what_was_measured():
    page = networks_page({"resnet-20": made_up_result()}, {"googlenet": "set ZEROSKIP_DATA"})
    line = next(line for line in page.splitlines() if line.startswith("| ResNet-20 |"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells == ["ResNet-20", "4", "6", "38.4", "top-1", "50 / 40", "80.0 %", "79.5 %", "79.9 %", "3 / 2",
                     "default", "0 of 1,234", "200,000", "201,000", "+0.500 %", "50.0 %", "0.50x", "2.5"]
    line = next(line for line in page.splitlines() if line.startswith("| GoogLeNet"))
    assert line.count("not run") == 12
    assert "- GoogLeNet's shapes: set ZEROSKIP_DATA\n" in page and "Bounds that are missed:\n\n- none\n" in page


def test_missed_bounds_are_named():
    benchmark, result = BENCHMARKS["resnet-20"], made_up_result()
    assert check(benchmark, result) == []
    result["8 bits"]["quantised"], result["16 bits"]["quantised"] = 78.9, 79.7
    result["rtl"]["mismatches"] = 3
    assert check(benchmark, result) == [
        "ResNet-20: 3 values in the RTL differ from golden",
        "ResNet-20: 8 bits lose 1.10 points on 50 inputs, more than 1 (3 lost, 2 won against float, p = 1; on 4 inputs "
        "several classes share the largest score)",
        "ResNet-20: 16 bits lose 0.30 points on 40 inputs, more than 0.2 (1 lost, 1 won against float, p = 1; on 0 "
        "inputs several classes share the largest score)"]


def run_main(*arguments):
    app = bench.typer.Typer()
    app.command()(bench.main)
    return CliRunner().invoke(app, arguments)


def test_command(folders, monkeypatch):
    absent = Benchmark("absent", "an absent network", "nobody", SMALL.write, missing, TOP1, 5)
    networks = {"small": SMALL, "absent": absent}
    for module in ("boards.bench_networks.__main__", "boards.bench_networks.page"):
        monkeypatch.setattr(f"{module}.BENCHMARKS", networks)
    answer = run_main("--images", "6")
    assert answer.exit_code == 0, answer.output
    assert "absent: not run: set ZEROSKIP_DATA" in answer.output
    page = bench.PAGE.read_text()
    assert "- an absent network: set ZEROSKIP_DATA" in page and "| a small network | 4 |" in page
    # Missed bounds show in the exit status, with --collect too.
    path = folders / "small.json"
    result = json.loads(path.read_text())
    result["rtl"]["mismatches"] = 1
    path.write_text(json.dumps(result))
    answer = run_main("--collect")
    assert answer.exit_code == 1 and "1 values in the RTL differ from golden" in answer.output


def test_a_network_that_fails_does_not_end_the_others(folders, monkeypatch):
    def refuse(target):
        raise ValueError("node 'x' cannot be run")
    networks = {"broken": Benchmark("broken", "broken", "nobody", refuse, small_data, TOP1, 5), "small": SMALL}
    for module in ("boards.bench_networks.__main__", "boards.bench_networks.page"):
        monkeypatch.setattr(f"{module}.BENCHMARKS", networks)
    answer = run_main("--images", "6")
    assert answer.exit_code == 1
    assert "broken: not run: failed: node 'x' cannot be run" in answer.output
    assert "| small" not in answer.output and "| a small network | 4 |" in bench.PAGE.read_text()


@pytest.mark.parametrize("arguments, sentence", [
    (["--only", "resnet-21"], "there is no network resnet-21; there are mnist-8,"),
    (["--config", "huge"], "there is no configuration 'huge'"),
])
def test_unusable_arguments(folders, arguments, sentence):
    answer = run_main(*arguments)
    assert answer.exit_code == 2 and answer.output.startswith("error: ") and sentence in answer.output


def test_missing_data_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("ZEROSKIP_DATA", raising=False)
    with pytest.raises(MissingData, match="set ZEROSKIP_DATA"):
        data_file("models/x.npz")
    assert imagenet_or_photos(224, lambda picture: picture).labels is None
    monkeypatch.setenv("ZEROSKIP_DATA", str(tmp_path))
    with pytest.raises(MissingData, match="has no models/x.npz"):
        data_file("models/x.npz")
    with pytest.raises(MissingData, match="imagenet200"):
        imagenet(224, lambda picture: picture)


def test_cut():
    from PIL import Image
    photo = Image.fromarray(np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3))
    pixels = np.asarray(photo)
    assert np.array_equal(cut(photo, 3, .5), pixels[1:4, 2:5])
    assert np.array_equal(cut(photo, 3, 0), pixels[:3, :3]) and np.array_equal(cut(photo, 3, 1), pixels[2:, 4:])


def test_face_overlap():
    def outputs(best, *box):
        scores, boxes = np.zeros((1, 3, 2)), np.zeros((1, 3, 4))
        scores[0, 1, 1], boxes[0, 1] = best, box
        return [scores, boxes]
    face, half = outputs(.9, 0, 0, .4, .2), outputs(.8, .2, 0, .4, .2)
    none, far = outputs(.6, 0, 0, 1, 1), outputs(.9, .5, .5, .6, .6)
    for found, expected, overlap in ((face, face, 100), (half, face, 50), (far, face, 0), (none, face, 0),
                                     (face, none, 0), (none, none, 100)):
        assert _face_overlap(found, expected, None) == pytest.approx(overlap)


def test_written_networks_are_onnx(tmp_path):
    SMALL.write(tmp_path / "small.onnx")
    onnx.checker.check_model(str(tmp_path / "small.onnx"))

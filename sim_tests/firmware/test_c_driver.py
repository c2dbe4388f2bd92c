"""The C driver on this machine: unit tests in C, maps compared with golden, damaged images; all with sanitizers."""
from dataclasses import replace

import numpy as np
import pytest

from compiler.emit import compile_network
from compiler.image import write_image
from golden.formats import decode, encode
from golden.network import QuantisedNetwork
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS
from sim_tests.golden_model.random_layers import DENSITIES, random_layer, random_map, with_scales

from .c_programs import FIRMWARE, make, need, run

#: 16 bit values in blocks of 16 channels; `nullhop` has them in blocks of 32, `snapea` 8 bit values in blocks of 64.
TINY16 = AcceleratorConfig("tiny16", value_width=16, groups=2, lanes=16, block=16, drain=4, weight_depth=160,
                           tile_slots=32, sum_windows=32, pool_columns=8)
FORMATS = (CONFIGS["tiny"], CONFIGS["small"], TINY16, CONFIGS["nullhop"], CONFIGS["snapea"])
FUZZ_SEED, FUZZ_ROUNDS = 1, 4000


@pytest.fixture(scope="module", autouse=True)
def compiler():
    need("gcc", "gcc libc6-dev")


def network_for(config, rng, channels=3):
    """Two layers: one with a pool, one that leaves 5 channels of 2 columns."""
    width = config.value_width
    first = random_layer(rng, "a", "input", (channels, 7, 10), width=width, kernel=(3, 3), out_channels=20,
                         pad=(1, 1, 1, 1), signed_in=True, pool=2)
    second = random_layer(rng, "b", "a", (20, 4, 5), width=width, kernel=(3, 4), out_channels=5,
                          relu=bool(rng.integers(2)))
    return with_scales(QuantisedNetwork("two", width, (channels, 7, 10), True, (first, second), ("b",)), 0.5)


def image_for(config, folder, seed, channels=3):
    """A program and the path of its image; in the intersect array two of the four phases of the first layer share a
    round with the one before them."""
    network = network_for(config, np.random.default_rng(seed), channels)
    program = compile_network(network, config)
    if config.intersect:
        tiling = replace(program.choices["a"].tiling, phases=4, joined=2)
        program = compile_network(network, config, tilings={"a": tiling})
    path = folder / f"{config.name}-{channels}.zsn"
    write_image(program, path)
    return program, path


def test_driver_against_a_fake_accelerator(tmp_path):
    images = [image_for(CONFIGS[name], tmp_path, seed=1)[1] for name in ("tiny", "tiny_snapea")]
    assert run(*make("test_driver"), *images).stdout.startswith("0 of ")


@pytest.mark.parametrize("channels", [3, 40], ids=["dense", "compressed"])
@pytest.mark.parametrize("config", FORMATS, ids=lambda config: config.name)
def test_maps_equal_golden(tmp_path, config, channels):
    seed = 100 * config.value_width + config.block + channels
    rng = np.random.default_rng(seed)
    program, image = image_for(config, tmp_path, seed, channels)
    for density in DENSITIES:
        maps = {name: random_map(rng, shape, width=config.value_width, signed=program.maps[name].signed,
                                 density=density) for name, shape in program.network.maps.items()}
        types = {name: plan.value_type(config) for name, plan in program.maps.items()}
        maps["input"].astype(types["input"]).tofile(tmp_path / "input.values")
        memory = rng.integers(0, 256, program.memory_bytes, dtype=np.uint8)
        for name, plan in program.maps.items():
            # What lies behind the values of a slot is anything: encoded over noise.
            first = plan.address - program.base
            image_bytes = np.frombuffer(encode(maps[name].transpose(1, 2, 0), config, plan), np.uint8)
            used = used_bytes(maps[name], config, plan)
            memory[first:first + plan.size][used] = image_bytes[used]
        memory.tofile(tmp_path / "memory.bin")
        run(*make("map_files"), image, tmp_path / "input.values", tmp_path / "written.bin",
            tmp_path / "memory.bin", tmp_path)
        written = np.fromfile(tmp_path / "written.bin", np.uint8)
        plan = program.maps["input"]
        first = plan.address - program.base
        x = decode(written[first:first + plan.size].tobytes(), config, plan).transpose(2, 0, 1)
        assert (x == maps["input"]).all(), f"input, density {density}, seed {seed}"
        for address, data in program.segments[1:]:
            first = address - program.base
            assert written[first:first + len(data)].tobytes() == data
        for name, values in maps.items():
            read = np.fromfile(tmp_path / f"{name}.bin", types[name])
            assert (read == values.reshape(-1)).all(), f"map {name}, density {density}, seed {seed}"


def used_bytes(values, config, plan):
    """Which of the ``plan.size`` bytes of a map its format gives a meaning."""
    used = np.zeros(plan.size, bool)
    if plan.dense:
        return ~used
    padded = np.zeros((-(-plan.channels // config.block) * config.block, plan.height, plan.segments * 4), bool)
    padded[:plan.channels, :, :plan.width] = values != 0
    for block in range(padded.shape[0] // config.block):
        for row in range(plan.height):
            for segment in range(plan.segments):
                slot = padded[block * config.block:(block + 1) * config.block, row, segment * 4:segment * 4 + 4]
                size = config.map_beats * 8 + -(-int(slot.sum()) * config.value_width // 64) * 8
                first = row * plan.row_bytes + segment * plan.segment_bytes + block * config.slot_bytes
                used[first:first + size] = True
    return used


def test_damaged_images(tmp_path):
    images = [image_for(config, tmp_path, seed, channels)[1]
              for seed, (config, channels) in enumerate([(CONFIGS["tiny"], 3), (TINY16, 3), (CONFIGS["small"], 40),
                                                         (CONFIGS["tiny_snapea"], 40)])]
    print(run(*make("fuzz_image"), FUZZ_SEED, FUZZ_ROUNDS, *images).stdout)


def test_driver_needs_three_functions_of_the_c_library(tmp_path):
    run("gcc", "-std=c11", "-O2", "-ffreestanding", f"-I{FIRMWARE / 'include'}", "-c", FIRMWARE / "src/zeroskip.c",
        "-o", tmp_path / "zeroskip.o")
    undefined = {line.split()[-1] for line in run("nm", "-u", tmp_path / "zeroskip.o").stdout.splitlines()}
    assert undefined - {"_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"} <= {"memcpy", "memset", "strcmp"}

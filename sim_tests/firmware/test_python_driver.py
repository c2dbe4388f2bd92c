"""The Python driver: maps, devices, bitstreams; networks on the simulated board, every value compared with golden."""
import ast
import importlib.util
import os
import shutil
import socket
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zeroskip
from zeroskip import (
    Accelerator,
    BoardError,
    DmaBuffer,
    FileMemory,
    ImageError,
    MapError,
    RunError,
    RunTimeout,
    SocketRegisters,
    UioRegisters,
    load_bitstream,
    read_image,
)
from zeroskip import registers as constants
from zeroskip.bitstream import to_bin
from zeroskip.image import Map
from zeroskip.maps import decode_map, encode_map

from boards.image import Net, choose_job, compile_job
from compiler.emit import compile_network
from compiler.image import image_bytes, write_image
from golden.formats import decode, dense_channels, encode, plan_map
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from hw.descriptor import DESCRIPTOR_BYTES, FIELD_BY_NAME, MAGIC
from hw.generate_registers import ROOT
from hw.registers import COUNTERS, ERRORS, IDENTITY, LOG_BYTES, REGISTERS, VERSION, register
from sim_tests.bench.board_server import board_server
from sim_tests.golden_model.random_layers import DENSITIES, random_layer, random_map, with_prediction, with_scales

PACKAGE = ROOT / "firmware/python/zeroskip"
CONFIG = CONFIGS["tiny"]
#: Where the memory of the simulated board lies: not where images are linked.
BASE = 0x2000_0000


# ---- maps ------------------------------------------------------------------------------------------------------

def driver_map(plan, config):
    """The driver's view of a map of golden."""
    return Map("m", 0, plan.size, plan.channels, plan.height, plan.width, plan.signed, plan.dense, True,
               plan.dense_shift or 0, plan.row_bytes, plan.segment_bytes, 1.0, None, config.value_width, config.block)


CASES = [(config, dense, signed, density) for config in ("tiny", "small", "nullhop", "snapea")
         for dense in (False, True) for signed in (False, True) for density in DENSITIES]


@pytest.mark.parametrize("config, dense, signed, density", CASES)
def test_maps_have_the_bytes_of_golden(config, dense, signed, density):
    config = CONFIGS[config]
    rng = np.random.default_rng(5)
    for channels, height, width in ((1, 1, 1), (3, 2, 5), (config.block, 3, 4), (config.block + 1, 2, 3), (70, 3, 9)):
        if dense and channels > dense_channels(config):
            continue
        plan = plan_map((channels, height, width), config, signed=signed, dense=dense)
        values = random_map(rng, (channels, height, width), width=config.value_width, signed=signed, density=density)
        image = encode(values.transpose(1, 2, 0), config, plan)
        label = f"seed 5, {channels} x {height} x {width}"
        mine = driver_map(plan, config)
        assert mine.slot_bytes == config.slot_bytes
        assert encode_map(values, mine).tobytes() == image, label
        # What lies behind the values of a slot is not read.
        noise = np.frombuffer(rng.bytes(plan.size), np.uint8).copy()
        written = _written_bytes(image, config, plan)
        noise[written] = np.frombuffer(image, np.uint8)[written]
        assert (decode_map(noise, mine) == values).all(), label
        assert (decode(image, config, plan).transpose(2, 0, 1) == values).all(), label


def _written_bytes(image, config, plan):
    """Mask of the bytes of a map that the accelerator writes: sparsity words and whole beats of values."""
    written = np.ones(plan.size, bool)
    if not plan.dense:
        slots = np.frombuffer(image, np.uint8).reshape(-1, config.slot_bytes)
        words = config.map_beats * 8
        counts = np.unpackbits(slots[:, :words], axis=1).sum(axis=1)
        ends = words + -(-counts // config.values_per_beat) * 8
        written = (np.arange(config.slot_bytes) < ends[:, None]).reshape(-1)
    return written


def test_arrays_that_do_not_fit_a_map_are_refused():
    plan = driver_map(plan_map((3, 2, 5), CONFIG), CONFIG)
    for values, sentence in ((np.zeros((3, 5, 2), int), r"\(3, 2, 5\), the array has \(3, 5, 2\)"),
                             (np.zeros((3, 2, 5)), "takes integers, not float64.*real=True"),
                             (np.full((3, 2, 5), 256), "values of 0 to 255, the array has 256 to 256"),
                             (np.full((3, 2, 5), -1), "the array has -1 to -1")):
        with pytest.raises(MapError, match=sentence):
            encode_map(values, plan)


def test_memory_that_is_no_map_is_noticed():
    plan = driver_map(plan_map((3, 2, 5), CONFIG), CONFIG)
    image = encode_map(np.ones((3, 2, 5), int), plan)
    # The sparsity words keep the number of their bits.
    for changes, sentence in (({0: 0b1011}, "beyond its 3 channels"), ({plan.map_bytes: 0}, "stores a zero"),
                              ({plan.segment_bytes: 0b011, plan.segment_bytes + 2: 1}, "or 5 columns")):
        broken = image.copy()
        for at, value in changes.items():
            broken[at] = value
        with pytest.raises(MapError, match=sentence):
            decode_map(broken, plan)


# ---- on the simulated board ------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with board_server(tmp_path_factory.mktemp("board"), base=BASE, seed=6) as running:
        yield running


@pytest.fixture
def accelerator(server):
    with Accelerator.from_socket(server.socket, server.memory, server.base) as opened:
        yield opened


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Job, program and image of the digits on tiny."""
    job = choose_job(Net.digits, None, None, 3)
    program = compile_job(job, CONFIG)
    path = tmp_path_factory.mktemp("images") / "digits.zsn"
    write_image(program, path)
    return job, program, path


def check_maps(found, expected, names, label):
    assert set(found) == set(names), label
    for name in names:
        differs = np.argwhere(found[name] != expected[name])
        assert not len(differs), f"{label}, map {name}: first difference at {differs[0]} of {len(differs)}"


@pytest.mark.cosim
def test_digits_on_the_rtl_equal_golden(accelerator, digits):
    job, program, path = digits
    accelerator.load(path)
    for number, picture in enumerate(job.inputs):
        x = program.network.quantise_input(picture)
        expected, results = run_network(program.network, x)
        check_maps(accelerator.run(x), expected, ["fc2"], f"digit {number}")
        check_maps(accelerator.run(x, maps=program.maps), expected, program.maps, f"digit {number}")
        counters = accelerator.counters()
        assert [set(layer) for layer in counters] == [{name for name, _ in COUNTERS}] * 5
        assert [layer["lane_cycles"] >= results[name].nonzero_macs for name, layer in
                zip(program.layers, counters, strict=True)] == [True] * 5
        assert 0 <= accelerator.cycles() - sum(layer["cycles"] for layer in counters) < 1000
        # Real values in and out are the same run.
        real = accelerator.run(picture, real=True)["fc2"]
        assert real.dtype == np.float32 and np.allclose(real, program.network.dequantise("fc2", expected["fc2"]))


def chain(seed, *, dense=False, signed=True, predicts=False):
    """A random network with a compressed or dense input, every kind of output map, and an input for it; with
    ``predicts`` the first layer has a prediction."""
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(2, 5)) if dense else int(rng.integers(17, 40)), int(rng.integers(5, 14)),
             int(rng.integers(5, 14)))
    first = random_layer(rng, "first", "input", shape, width=8, kernel=(3, 3), out_channels=20, pad=(1, 1, 1, 1),
                         pool=2, keep_full=True, signed_in=signed)
    last = random_layer(rng, "last", "first", first.pooled_shape, width=8, kernel=(2, 2), out_channels=5, relu=False)
    first = with_prediction(rng, first) if predicts else first
    network = with_scales(QuantisedNetwork("chain", 8, shape, signed, (first, last), ("last", "first.full")), 0.5)
    return network, random_map(rng, shape, width=8, signed=signed, density=0.4)


@pytest.mark.cosim
@pytest.mark.parametrize("seed, dense", [(1, False), (2, False), (3, True)])
def test_random_networks_on_the_rtl_equal_golden(accelerator, tmp_path, seed, dense):
    network, x = chain(seed, dense=dense)
    write_image(compile_network(network, CONFIG), tmp_path / "net.zsn")
    accelerator.load(tmp_path / "net.zsn")
    assert accelerator.image.input.dense == dense
    expected, _ = run_network(network, x)
    check_maps(accelerator.run(x), expected, ["first.full", "last"], f"seed {seed}")
    check_maps(accelerator.run(x, maps=["first"]), expected, ["first"], f"seed {seed}")


@pytest.mark.cosim
def test_networks_on_the_intersect_array_equal_golden(tmp_path):
    """Sums that stop and predictions; exact where there are none."""
    config = CONFIGS["tiny_snapea"]
    with board_server(tmp_path, config=config.name, base=BASE, seed=7) as server, \
            Accelerator.from_socket(server.socket, server.memory, BASE) as accelerator:
        for seed, options in ((6, {"signed": False}), (7, {"dense": True}), (8, {"signed": False, "predicts": True}),
                              (9, {"predicts": True})):
            network, x = chain(seed, **options)
            program = compile_network(network, config)
            expected, results = run_network(network, x)
            predicts = "predicts" in options
            assert (program.choices["first"].tiling.phases > 1) == (predicts or "signed" in options), seed
            assert (results["first"].missed > 0) == predicts, seed
            write_image(program, tmp_path / "net.zsn")
            accelerator.load(tmp_path / "net.zsn")
            check_maps(accelerator.run(x, maps=expected), expected, expected, f"seed {seed}")
            assert sum(layer["lane_cycles"] for layer in accelerator.counters()) > 0
        write_image(compile_network(chain(6)[0], CONFIG), tmp_path / "net.zsn")
        with pytest.raises(BoardError, match="compiled for another accelerator: its capability"):
            accelerator.load(tmp_path / "net.zsn")


class IncoherentMemory(FileMemory):
    """A cache that writes nothing back, and reads nothing again, unless told to."""

    def __init__(self, path, address):
        super().__init__(path, address)
        self.real, self.data = self.data, self.data.copy()

    def flush(self, offset, size):
        self.real[offset:offset + size] = self.data[offset:offset + size]

    def invalidate(self, offset, size):
        self.data[offset:offset + size] = self.real[offset:offset + size]


@pytest.mark.cosim
def test_all_that_is_shared_is_flushed_and_invalidated(server, tmp_path):
    network, x = chain(4)
    write_image(compile_network(network, CONFIG), tmp_path / "net.zsn")
    expected, _ = run_network(network, x)
    np.memmap(server.memory, np.uint8, "r+")[:] = 0xA5
    with Accelerator(SocketRegisters(server.socket), IncoherentMemory(server.memory, BASE)) as accelerator:
        accelerator.load(tmp_path / "net.zsn")
        check_maps(accelerator.run(x, maps=expected), expected, expected, "seed 4")
        assert accelerator.counters()[1]["cycles"] > 0


@pytest.mark.cosim
def test_a_dma_buffer_carries_a_run(server, tmp_path):
    """The whole path of a board but for the kernel: the buffer of a fake u-dma-buf is the memory of the RTL."""
    root = fake_buffer(tmp_path, "u-dma-buf", server.memory_bytes, server.memory)
    network, x = chain(5)
    write_image(compile_network(network, CONFIG), tmp_path / "net.zsn")
    with Accelerator(SocketRegisters(server.socket), DmaBuffer("udmabuf0", root=root)) as accelerator:
        accelerator.load(tmp_path / "net.zsn")
        check_maps(accelerator.run(x), run_network(network, x)[0], ["first.full", "last"], "seed 5")


def poke(server, layer, field, value):
    """Change a field of a descriptor that the driver has put into memory."""
    dram = np.memmap(server.memory, np.uint8, "r+")
    at = layer * DESCRIPTOR_BYTES + 4 * FIELD_BY_NAME[field].word
    dram[at:at + 4] = np.frombuffer(struct.pack("<I", value), np.uint8)
    return BASE + at


@pytest.mark.cosim
def test_errors_of_the_accelerator_are_raised_and_the_next_run_is_right(server, accelerator, digits):
    job, program, path = digits
    x = program.network.quantise_input(job.inputs[0])
    expected, _ = run_network(program.network, x)
    for layer, field, value, name in ((2, "weight_address", BASE + server.memory_bytes, "read_response"),
                                      (3, "full_address", BASE + server.memory_bytes, "write_response"),
                                      (1, "kernel_rows", 0, "descriptor_field")):
        accelerator.load(path)
        at = poke(server, layer, field, value)
        with pytest.raises(RunError, match=f"stopped with {name} at .*\\([0-9] layers were finished\\)") as caught:
            accelerator.run(x)
        address = at if name == "descriptor_field" else value
        # Weights of a layer may be read while the one before it runs.
        assert caught.value.name == name and caught.value.layer in (layer - 1, layer)
        assert address <= caught.value.address < address + 4096, hex(caught.value.address)
        assert ERRORS[name][1] in str(caught.value) and f"{caught.value.address:#010x}" in str(caught.value)
        accelerator.load(path)
        check_maps(accelerator.run(x), expected, ["fc2"], f"after {name}")


@pytest.mark.cosim
def test_a_run_that_takes_too_long_is_stopped(accelerator, digits):
    job, program, path = digits
    x = program.network.quantise_input(job.inputs[0])
    accelerator.load(path)
    with pytest.raises(RunTimeout, match="did not end within 0 s and was stopped in layer 0 of 5"):
        accelerator.run(x, timeout=0)
    assert accelerator.read("status") == 0 and accelerator.read("error_code") == ERRORS["stopped"][0]
    check_maps(accelerator.run(x), run_network(program.network, x)[0], ["fc2"], "after the stop")


@pytest.mark.cosim
def test_a_run_that_was_left_behind_can_be_stopped(server, digits):
    job, program, path = digits
    x = program.network.quantise_input(job.inputs[0])
    with Accelerator.from_socket(server.socket, server.memory, BASE) as left:
        left.load(path)
        left._start()
    with Accelerator.from_socket(server.socket, server.memory, BASE) as accelerator:
        accelerator.load(path)
        with pytest.raises(BoardError, match="the accelerator is busy"):
            accelerator.run(x)
        for _ in range(2):
            accelerator.stop()
        check_maps(accelerator.run(x), run_network(program.network, x)[0], ["fc2"], "after the stop")


@pytest.mark.cosim
def test_what_does_not_belong_together_is_refused(accelerator, tmp_path):
    network, x = chain(1)
    with pytest.raises(BoardError, match="no network image is loaded"):
        accelerator.run(x)
    write_image(compile_network(network, CONFIG), tmp_path / "net.zsn")
    data = bytearray((tmp_path / "net.zsn").read_bytes())
    for config, register_name in (("small", "capability"), (None, "configuration")):
        other = CONFIGS[config] if config else CONFIG.__class__(**{**vars(CONFIG), "tile_slots": 33})
        write_image(compile_network(network, other), tmp_path / "other.zsn")
        with pytest.raises(BoardError, match=f"compiled for another accelerator: its {register_name}"):
            accelerator.load(tmp_path / "other.zsn")
    data[-100] ^= 4
    (tmp_path / "net.zsn").write_bytes(data)
    with pytest.raises(ImageError, match="net.zsn: its content is damaged"):
        accelerator.load(tmp_path / "net.zsn")
    assert accelerator.image is None
    wide = random_layer(np.random.default_rng(1), "one", "input", (4, 300, 300), width=8, kernel=(1, 1),
                        out_channels=4)
    wide = with_scales(QuantisedNetwork("wide", 8, (4, 300, 300), False, (wide,), ("one",)), 1.0)
    write_image(compile_network(wide, CONFIG), tmp_path / "wide.zsn")
    with pytest.raises(BoardError, match="wide.zsn needs .* bytes of memory below 4 GiB; there are 1048576"):
        accelerator.load(tmp_path / "wide.zsn")


@pytest.mark.cosim
def test_inputs_and_names_that_do_not_fit_are_refused(accelerator, tmp_path):
    network, x = chain(1)
    write_image(compile_network(network, CONFIG), tmp_path / "net.zsn")
    accelerator.load(tmp_path / "net.zsn")
    for values, options, sentence in ((x[1:], {}, "the array has"), (x + 200, {}, "-128 to 127"),
                                      (x * 0.5, {}, "real=True"), (x * np.nan, {"real": True}, "not numbers"),
                                      (x, {"maps": ["first", "middle"]}, "no map 'middle'; there are input")):
        with pytest.raises(MapError, match=sentence):
            accelerator.run(values, **options)
    scales = network.scales | {"first": np.arange(1.0, 21)}
    write_image(compile_network(replace(network, scales=scales), CONFIG), tmp_path / "net.zsn")
    accelerator.load(tmp_path / "net.zsn")
    with pytest.raises(MapError, match="map first has no scale that holds for all of its channels"):
        accelerator.run(x * 0.5, real=True, maps=["first"])
    # Real inputs beyond the range are clamped.
    expected, _ = run_network(network, np.where(x > 0, 127, x))
    check_maps(accelerator.run(np.where(x > 0, 1e9, x * 0.5), real=True, maps=["last"]),
               {"last": network.dequantise("last", expected["last"])}, ["last"], "seed 1")


@pytest.mark.cosim
def test_an_axi_error_names_the_register(accelerator):
    with pytest.raises(BoardError, match="read of register 0x40 was answered with an AXI error"):
        accelerator.registers.read(0x40)
    with pytest.raises(BoardError, match="write of register 0x40 was answered with an AXI error"):
        accelerator.registers.write(0x40, 1)
    assert accelerator.read("identity") == IDENTITY


# ---- devices ---------------------------------------------------------------------------------------------------

def fake_buffer(root, kind, size, memory=None):
    """A root folder with a u-dma-buf of ``size`` bytes; ``memory``: the file that it is."""
    folder = root / "sys/class" / kind / "udmabuf0"
    folder.mkdir(parents=True)
    (root / "dev").mkdir(exist_ok=True)
    for name, text in (("phys_addr", f"{BASE:#x}\n"), ("size", f"{size}\n"), ("sync_for_cpu", ""),
                       ("sync_for_device", "")):
        (folder / name).write_text(text)
    if memory is None:
        (root / "dev/udmabuf0").write_bytes(bytes(size))
    else:
        (root / "dev/udmabuf0").symlink_to(memory)
    return root


def fake_registers(root, path="dev/uio0", *, identity=IDENTITY, version=VERSION):
    """A root folder with a file in place of the registers; UIO device 1 is the accelerator's."""
    (root / "dev").mkdir(exist_ok=True)
    page = bytearray(4096)
    struct.pack_into("<II", page, 0, identity, version)
    (root / path).write_bytes(page)
    for device, node in (("uio0", "fabric"), ("uio1", "zeroskip")):
        (root / "sys/class/uio" / device).mkdir(parents=True, exist_ok=True)
        (root / "sys/class/uio" / device / "name").write_text(f"{node}\n")
    return root


@pytest.mark.parametrize("kind", ["u-dma-buf", "udmabuf"])
def test_dma_buffer_synchronises_by_offset_and_size(tmp_path, kind):
    buffer = DmaBuffer(root=fake_buffer(tmp_path, kind, 8192))
    folder = tmp_path / "sys/class" / kind / "udmabuf0"
    assert (buffer.address, buffer.data.size) == (BASE, 8192)
    buffer.data[5000] = 77
    buffer.flush(4096, 1024)
    assert (tmp_path / "dev/udmabuf0").read_bytes()[5000] == 77
    assert [(folder / f"sync_{name}").read_text() for name in ("direction", "offset", "size", "for_device",
                                                               "for_cpu")] == ["0", "4096", "1024", "1", ""]
    (folder / "sync_for_device").write_text("")
    buffer.invalidate(0, 64)
    assert [(folder / f"sync_{name}").read_text() for name in ("direction", "offset", "size", "for_device",
                                                               "for_cpu")] == ["0", "0", "64", "", "1"]
    buffer.close()


def test_uio_device_is_found_by_its_node(tmp_path):
    fake_registers(tmp_path, "dev/uio1")
    registers = UioRegisters(root=tmp_path)
    assert registers.read(0) == IDENTITY
    registers.write(register("watchdog").offset, 0x1234_5678)
    registers.close()
    assert struct.unpack_from("<I", (tmp_path / "dev/uio1").read_bytes(), 0x30) == (0x1234_5678,)
    (tmp_path / "sys/class/uio/uio1/name").write_text("other")
    with pytest.raises(BoardError, match=r"no UIO device is called zeroskip \(there are: uio0 \(fabric\), uio1"):
        UioRegisters(root=tmp_path)


def test_uio_wait_unmasks_the_interrupt_and_takes_the_count(tmp_path):
    registers = UioRegisters(root=fake_registers(tmp_path, "dev/uio1"))
    os.close(registers._file)
    # A socket stands for the device: what the driver writes to it, and the count that the kernel answers.
    device, kernel = socket.socketpair()
    registers._file = device.detach()
    registers.wait(0.01)
    assert struct.unpack("=I", kernel.recv(8)) == (1,)
    kernel.send(struct.pack("=II", 5, 6))
    registers.wait(60)
    assert os.read(registers._file, 8) == struct.pack("=I", 6), "one count is taken"
    kernel.close()
    with pytest.raises(BoardError, match="the UIO device has no interrupt"):
        registers.wait(0.01)
    registers.close()


def test_missing_and_wrong_devices_are_named(tmp_path):
    with pytest.raises(BoardError, match="no DMA buffer udmabuf0: load it with `modprobe u-dma-buf"):
        DmaBuffer(root=tmp_path)
    with pytest.raises(BoardError, match="no server answers at .*: start python -m boards.sim.server"):
        Accelerator.from_socket(tmp_path / "s", tmp_path / "m")
    with pytest.raises(BoardError, match="dev/mem cannot be opened: No such file"):
        Accelerator.from_dev_mem(root=tmp_path)
    fake_buffer(fake_registers(tmp_path, identity=0xFFFF_FFFF), "u-dma-buf", 4096)
    with pytest.raises(BoardError, match="identity reads 0xffffffff in place of 0x5a534b50: is the bitstream loaded"):
        Accelerator.from_uio("uio0", root=tmp_path)
    for version in (0x000100, VERSION + 0x10000):
        fake_registers(tmp_path, version=version)
        with pytest.raises(BoardError, match=r"register map [01]\.\d+\.0, this package is for 0\.2\.0"):
            Accelerator.from_uio("uio0", root=tmp_path)
    fake_registers(tmp_path, version=VERSION + 0x100)
    with Accelerator.from_uio("uio0", root=tmp_path) as accelerator:
        assert accelerator.read("identity") == IDENTITY
    accelerator.close()
    for address in (0, BASE + 8):
        (tmp_path / "sys/class/u-dma-buf/udmabuf0/phys_addr").write_text(f"{address:#x}\n")
        with pytest.raises(BoardError, match=f"memory at {address:#x} does not start at a multiple of 4096 above 0"):
            Accelerator.from_uio("uio0", root=tmp_path)


# ---- bitstreams ------------------------------------------------------------------------------------------------

SYNC = bytes.fromhex("ffffffff aa995566 20000000 30022001")
SWAPPED = bytes.fromhex("ffffffff 665599aa 00000020 01200230")


def bit_file(data):
    """A .bit file as Vivado writes it."""
    fields = b"".join(key + struct.pack(">H", len(text) + 1) + text + b"\0" for key, text in (
        (b"a", b"top;UserID=0XFFFFFFFF"), (b"b", b"7z020clg400"), (b"c", b"2024/01/01"), (b"d", b"12:00:00")))
    return bytes.fromhex("00090ff00ff00ff00ff0000001") + fields + b"e" + struct.pack(">I", len(data)) + data


@pytest.mark.parametrize("data", [SYNC, SWAPPED, bit_file(SYNC)], ids=["words", "swapped", "bit"])
def test_bitstreams_become_what_the_manager_takes(data):
    assert to_bin(data) == SWAPPED


@pytest.mark.parametrize("data, sentence", [
    (bit_file(SYNC)[:-4], "damaged .bit file"), (bit_file(SYNC)[:40], "damaged .bit file"), (SYNC[:4], "no sync word"),
    (SYNC[:-1], "not whole words"), (b"", "no sync word"), (bit_file(bytes(64)), "no sync word")])
def test_what_is_no_bitstream_is_refused(data, sentence):
    with pytest.raises(BoardError, match=sentence):
        to_bin(data)


def test_bitstream_goes_through_the_fpga_manager(tmp_path):
    folder = tmp_path / "sys/class/fpga_manager/fpga0"
    (tmp_path / "design.bit").write_bytes(bit_file(SYNC))
    with pytest.raises(BoardError, match="firmware does not exist: the kernel has no FPGA manager"):
        load_bitstream(tmp_path / "design.bit", root=tmp_path)
    folder.mkdir(parents=True)
    for name, text in (("flags", "1"), ("firmware", ""), ("state", "operating\n")):
        (folder / name).write_text(text)
    load_bitstream(tmp_path / "design.bit", root=tmp_path)
    assert (tmp_path / "lib/firmware/design.bin").read_bytes() == SWAPPED
    assert ((folder / "flags").read_text(), (folder / "firmware").read_text()) == ("0", "design.bin")
    (folder / "state").write_text("write error\n")
    with pytest.raises(BoardError, match="state 'write error' after loading .*design.bit; dmesg tells more"):
        load_bitstream(tmp_path / "design.bit", root=tmp_path)
    with pytest.raises(BoardError, match="absent.bit cannot be read: No such file"):
        load_bitstream(tmp_path / "absent.bit", root=tmp_path)
    (tmp_path / "text.bit").write_text("hello, world")
    with pytest.raises(BoardError, match="text.bit is no bitstream: it has no sync word"):
        load_bitstream(tmp_path / "text.bit", root=tmp_path)


# ---- the package -----------------------------------------------------------------------------------------------

def test_the_package_needs_numpy_alone(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "zeroskip", ignore=shutil.ignore_patterns("__pycache__"))
    site = Path(importlib.util.find_spec("numpy").origin).parent.parent
    for name in ("numpy", "numpy.libs"):
        if (site / name).exists():
            (tmp_path / name).symlink_to(site / name)
    (tmp_path / "net.zsn").write_bytes(image_bytes(compile_network(chain(1)[0], CONFIG)))
    script = ("import sys; sys.path.insert(0, '.'); import zeroskip; print(zeroskip.read_image('net.zsn').name, "
              "zeroskip.__file__)")
    # Neither site-packages nor the repository are on the path.
    result = subprocess.run([sys.executable, "-S", "-E", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.split() == ["chain", str(tmp_path / "zeroskip/__init__.py")], result.stderr
    assert read_image(tmp_path / "net.zsn").name == "chain"


def test_the_package_is_python_3_8():
    for path in sorted(PACKAGE.glob("*.py")):
        ast.parse(path.read_text(), str(path), feature_version=(3, 8))


def test_constants_agree_with_the_register_description():
    assert (constants.IDENTITY, constants.VERSION, constants.LOG_BYTES) == (IDENTITY, VERSION, LOG_BYTES)
    assert constants.OFFSETS == {entry.name: entry.offset for entry in REGISTERS}
    assert constants.FIELDS == {(entry.name, field.name): (field.low, field.mask)
                                for entry in REGISTERS for field in entry.fields}
    assert constants.ERRORS == {code: (name, text) for name, (code, text) in ERRORS.items()}
    assert constants.COUNTERS == tuple(name for name, _ in COUNTERS)
    assert constants.DESCRIPTOR_WORDS == {name: field.word for name, field in FIELD_BY_NAME.items()}
    assert (constants.DESCRIPTOR_MAGIC, constants.DESCRIPTOR_BYTES) == (MAGIC, DESCRIPTOR_BYTES)


def test_every_name_that_is_offered_exists():
    assert all(hasattr(zeroskip, name) for name in zeroskip.__all__)

"""The simulated board as a server: protocol, shared memory, what ends it."""
import socket
import struct
import subprocess
import sys

import numpy as np
import pytest

from boards.sim import server as served
from boards.sim.simulator import NO_ANSWER, SimulationError
from compiler.emit import compile_network
from golden.network import QuantisedNetwork, run_network
from hw.configs import CONFIGS
from hw.generate_registers import ROOT
from hw.registers import IDENTITY, RESET_VALUES, register
from sim_tests.bench.board_server import board_server
from sim_tests.golden_model.random_layers import random_layer, random_map

pytestmark = pytest.mark.cosim

CONFIG = CONFIGS["tiny"]
READ, WRITE, WAIT = 1, 2, 3
START, BUSY, DONE = 1, 1, 2


class Client:
    """The other end of the socket, written from the description of the protocol."""

    def __init__(self, server):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(server.socket))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, op, offset, value=0):
        self.socket.sendall(struct.pack("<III", op, offset, value))
        return struct.unpack("<II", self.socket.recv(8, socket.MSG_WAITALL))

    def read(self, name):
        status, value = self.ask(READ, register(name).offset)
        assert status == 0, name
        return value

    def write(self, name, value):
        assert self.ask(WRITE, register(name).offset, value) == (0, 0), name


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with board_server(tmp_path_factory.mktemp("server"), base=0x2000_0000, seed=3) as running:
        yield running


def test_registers_are_read_and_written_by_offset(server):
    with Client(server) as client:
        assert client.read("identity") == IDENTITY
        assert client.read("configuration") == CONFIG.configuration_id
        assert client.read("watchdog") == RESET_VALUES["watchdog"]
        client.write("watchdog", 0xFFFF_FFFE)
        assert client.read("watchdog") == 0xFFFF_FFFE
        client.write("watchdog", RESET_VALUES["watchdog"])


def test_an_axi_error_is_a_status(server):
    beyond = max(register(name).offset for name in ("configuration", "cycles_high")) + 4
    with Client(server) as client:
        assert client.ask(READ, beyond) == (1, 0) and client.ask(WRITE, beyond, 5) == (1, 0)
        assert client.read("identity") == IDENTITY


def test_wait_tells_whether_the_interrupt_came(server):
    with Client(server) as client:
        assert client.ask(WAIT, 0, 100) == (0, 0)
        client.write("interrupt_enable", DONE)
        client.write("layer_count", 0)
        client.write("control", START)
        assert client.ask(WAIT, 0, 100) == (0, 1)
        client.write("status", DONE)
        assert client.ask(WAIT, 0, 100) == (0, 0)
        client.write("interrupt_enable", 0)


def test_a_polling_client_sees_a_run_to_its_end(server):
    rng = np.random.default_rng(7)
    layer = random_layer(rng, "one", "input", (20, 9, 9), width=8, kernel=(3, 3), out_channels=20, pad=(1, 1, 1, 1))
    network = QuantisedNetwork("one", 8, (20, 9, 9), False, (layer,), ("one",))
    program = compile_network(network, CONFIG, base_address=server.base)
    x = random_map(rng, (20, 9, 9), width=8, signed=False, density=0.5)
    dram = np.memmap(server.memory, np.uint8, "r+")
    dram[:program.memory_bytes] = program.load(x)
    with Client(server) as client:
        for name in ("descriptor_address", "layer_count", "log_address"):
            client.write(name, getattr(program, name))
        client.write("control", START)
        polls = 1
        while client.read("status") & BUSY:
            polls += 1
            assert polls < 100
        assert client.read("status") == DONE and polls > 1, "busy was never seen"
        cycles = client.read("cycles_low")
        assert (polls - 1) * served.POLL_CYCLES <= cycles + served.POLL_CYCLES
        client.write("status", DONE)
    assert (program.read_map("one", dram) == run_network(network, x)[0]["one"]).all(), "seed 7"


def test_memory_starts_as_noise_of_the_seed(server):
    assert server.memory.stat().st_size == server.memory_bytes
    noise = np.random.default_rng(3).bytes(server.memory_bytes)
    # The end: other tests of this module write at the start.
    assert server.memory.read_bytes()[-4096:] == noise[-4096:]


def test_clients_come_one_after_the_other_and_find_the_registers_as_left(server):
    with Client(server) as client:
        client.write("log_address", 0x1234_5680)
    with Client(server) as client:
        assert client.read("log_address") == 0x1234_5680


def test_a_malformed_request_ends_its_connection_only(tmp_path):
    cases = [(struct.pack("<III", 4, 0, 0), "there is no op 4; 1 reads, 2 writes, 3 waits"),
             (struct.pack("<III", READ, 2, 0), "offset 0x2 is no multiple of 4 below 0x1000"),
             (struct.pack("<III", WRITE, 4096, 0), "offset 0x1000 is no multiple of 4 below 0x1000"),
             (b"12345", "the connection ended after 5 of the 12 bytes of a request")]
    with board_server(tmp_path) as server:
        for request, _ in cases:
            with Client(server) as client:
                client.socket.sendall(request)
                client.socket.shutdown(socket.SHUT_WR)
                assert client.socket.recv(8) == b""
            with Client(server) as client:
                assert client.read("identity") == IDENTITY
        status, errors = server.stop()
    assert status == 0 and errors.splitlines() == [f"client closed: {sentence}" for _, sentence in cases]
    assert not server.socket.exists() and not server.memory.exists()


def test_options_are_checked(tmp_path):
    (tmp_path / "there").touch()
    good = {"--config": "tiny", "--socket": tmp_path / "s", "--memory": tmp_path / "m", "--memory-bytes": "0x1000"}
    for change, sentence in (({"--config": "huge"}, "no configuration 'huge'"),
                             ({"--memory-bytes": "5000"}, "multiple of 4096, not 5000"),
                             ({"--memory-bytes": "-4096"}, "multiple of 4096, not -4096"),
                             ({"--memory": tmp_path / "there"}, "there exists"),
                             ({"--socket": tmp_path / "there"}, "there exists"),
                             ({"--socket": tmp_path / ("long" * 40)}, "too long"),
                             ({"--base": "12"}, "multiple of 4096")):
        options = [str(word) for pair in (good | change).items() for word in pair]
        result = subprocess.run([sys.executable, "-m", "boards.sim.server", *options], cwd=ROOT, capture_output=True,
                                text=True)
        assert result.returncode == 2 and sentence in result.stderr, result.stderr
        assert result.stderr.startswith("error: ") and result.stdout == ""
        assert sorted(path.name for path in tmp_path.iterdir()) == ["there"]


class BrokenSimulator:
    """Answers as told."""

    def __init__(self, answer):
        self.answer = answer

    def read_word(self, offset):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer, 7

    def write_word(self, offset, value):
        return self.read_word(offset)[0]


@pytest.mark.parametrize("answer, status", [(0, 0), (2, 1), (3, 1), (NO_ANSWER, 2), (SimulationError("WLAST"), 3)])
@pytest.mark.parametrize("op", [READ, WRITE])
def test_faults_become_statuses(op, answer, status, capsys):
    assert served.execute(BrokenSimulator(answer), op, 0, 1) == (status, 7 if op == READ and not status else 0)
    assert ("the simulation failed: WLAST" in capsys.readouterr().err) == (status == 3)

"""The PC's end of the serial line, on a board of Python; digits on the simulated board; the plan of the build."""
import binascii
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner
from zeroskip import Accelerator, BoardError, serial_line
from zeroskip.serial_line import SerialLine, SerialMemory, SerialRegisters

from boards.catalogue import get_board
from boards.ecp5 import digits
from boards.ecp5.board import BAUD, CLOCKS, ClockGenerator, Ulx3s
from boards.ecp5.bridge import MAX_WORDS, QUIET_BITS, START, Op
from boards.sim.jobs import DigitsJob
from hw.configs import CONFIGS
from hw.generate_registers import ROOT
from sim_tests.bench.board_server import board_server

BASE, SIZE = 0x1000_0000, 0x3000


class Board:
    """A port with a board behind it that answers as boards/ecp5/bridge.py says; ``spoil`` changes its next answer."""

    baudrate = BAUD

    def __init__(self):
        self.memory, self.requests, self.timeouts, self.resets = bytearray(SIZE), [], [], 0
        self.timeout, self.spoil, self._answer = None, None, b""

    def write(self, data):
        assert data[0] == START and binascii.crc_hqx(data[1:], 0) == 0
        op, last, address = struct.unpack("<BBI", data[1:7])
        self.requests.append((op, last, address))
        self.timeouts.append(self.timeout)
        at, size = address - BASE, 4 * (last + 1)
        # What lies outside is not there: an AXI error.
        inside, words = 0 <= at <= SIZE - size, b""
        if op == Op.WRITE.value:
            assert len(data) == 9 + size
            if inside:
                self.memory[at:at + size] = data[7:-2]
        else:
            words = {Op.READ.value: bytes(self.memory[at:at + size]) if inside else bytes(size),
                     Op.WAIT.value: bytes(4), Op.DESCRIBE.value: struct.pack("<II", BASE, SIZE)}[op]
            assert len(data) == 9
        body = words + bytes([0 if inside or op > 2 else 3])
        self._answer = bytes([START]) + body + binascii.crc_hqx(body, 0).to_bytes(2, "big")
        if self.spoil:
            self._answer, self.spoil = self.spoil(self._answer), None

    def read(self, count):
        answer, self._answer = self._answer[:count], self._answer[count:]
        return answer

    def reset_input_buffer(self):
        self.resets += 1
        self._answer = b""

    def close(self):
        self.closed = True


@pytest.fixture
def sleeps(monkeypatch):
    """Seconds that the driver slept."""
    found = []
    monkeypatch.setattr(serial_line.time, "sleep", found.append)
    return found


def test_driver_and_bridge_agree():
    assert {op.name: op.value for op in Op} == {name: getattr(serial_line, name) for name in Op.__members__}
    assert (serial_line.START, serial_line.MAX_WORDS) == (START, MAX_WORDS)
    assert serial_line.QUIET_BITS > QUIET_BITS


def test_memory_moves_whole_words_in_pieces(sleeps):
    board = Board()
    memory = SerialMemory(SerialLine(board))
    assert (memory.address, memory.data.size) == (BASE, SIZE)
    memory.data[:] = np.random.default_rng(1).integers(0, 256, SIZE)
    board.requests.clear()
    memory.flush(6, 3)
    memory.flush(0x400, 2500)
    assert board.requests == [(2, 1, BASE + 4), (2, 255, BASE + 0x400), (2, 255, BASE + 0x800), (2, 112, BASE + 0xC00)]
    assert bytes(memory.data[4:12]) == board.memory[4:12] and bytes(4) == board.memory[:4] == board.memory[12:16]
    assert bytes(memory.data[0x400:0x400 + 2500]) == board.memory[0x400:0x400 + 2500]
    board.memory[:] = np.random.default_rng(2).bytes(SIZE)
    board.requests.clear()
    before = memory.data.copy()
    memory.invalidate(0x7FF, 2)
    assert board.requests == [(1, 1, BASE + 0x7FC)]
    assert bytes(memory.data[0x7FC:0x804]) == board.memory[0x7FC:0x804]
    assert (memory.data[:0x7FC] == before[:0x7FC]).all() and (memory.data[0x804:] == before[0x804:]).all()


def test_damage_is_reported_and_followed_by_silence(sleeps):
    board = Board()
    line = SerialLine(board)
    line.describe()
    # Something may have been left on the line by the program before this one.
    assert (board.resets, sleeps) == (1, [(serial_line.QUIET_BITS + serial_line.WAIT_BITS) / BAUD])
    for spoil, sentence in ((lambda answer: b"", "sent 0 of 12 bytes"), (lambda answer: answer[:-1], "sent 11 of 12"),
                            (lambda answer: b"\x00" + answer[1:], "damaged"),
                            (lambda answer: answer[:3] + bytes([answer[3] ^ 4]) + answer[4:], "damaged")):
        board.spoil = spoil
        with pytest.raises(BoardError, match=sentence):
            line.describe()
        resets = board.resets
        assert line.describe() == (BASE, SIZE) and board.resets == resets + 1
        assert line.describe() == (BASE, SIZE) and board.resets == resets + 1


def test_errors_of_the_bus_leave_the_line_in_step(sleeps):
    board = Board()
    line = SerialLine(board)
    for call in (lambda: line.read(BASE + SIZE, 1), lambda: line.write(BASE - 4, bytes(4))):
        with pytest.raises(BoardError, match="1 words at 0x.* was answered with an AXI error"):
            call()
    assert line.describe() == (BASE, SIZE) and board.resets == 1


def test_waits_are_short_and_answers_get_time(sleeps):
    board = Board()
    registers = SerialRegisters(SerialLine(board))
    registers.wait(0.01)
    registers.wait(100)
    assert board.requests == [(3, 0, 10_000), (3, 0, serial_line.WAIT_BITS)]
    assert board.timeouts[1] > 1 + serial_line.WAIT_BITS / BAUD > board.timeouts[0] > 1.01


def test_line_that_fails_is_reported(sleeps):
    board = Board()

    def fail(count):
        raise OSError("device disconnected")
    board.read = fail
    with pytest.raises(BoardError, match="the serial line failed: device disconnected"):
        SerialLine(board).describe()


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(BoardError, match="port /dev/no-such-port cannot be opened: .*is the board connected"):
        Accelerator.from_serial("/dev/no-such-port")
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(BoardError, match="pyserial is missing: install it with `pip install pyserial`"):
        Accelerator.from_serial("/dev/no-such-port")


def test_a_board_that_is_no_accelerator_is_refused(sleeps, monkeypatch):
    board = Board()
    monkeypatch.setattr("zeroskip.accelerator.open_port", lambda port, baud: board)
    board.spoil = None
    with pytest.raises(BoardError, match="AXI error"):
        Accelerator.from_serial("/dev/ttyUSB0")
    assert board.closed


# ---- digits ----------------------------------------------------------------------------------------------------

@pytest.mark.cosim
def test_digits_run_and_differences_are_counted(tmp_path, capsys, monkeypatch):
    with board_server(tmp_path, memory_bytes=1 << 18) as server:
        def opened(port):
            assert port == "P"
            return Accelerator.from_socket(server.socket, server.memory, server.base)
        monkeypatch.setattr(digits.Accelerator, "from_serial", opened)
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(digits.app, ["--port", "P", "--count", "2"])
        assert result.exit_code == 0, result.output
        job = DigitsJob(2)
        for number, (picture, truth) in enumerate(zip(job.inputs, job.classes, strict=False), start=1):
            guess = job.network.run_float(picture)["fc2"].argmax()
            assert f"digit {number}: a {truth}, read as {guess}; " in result.output
        assert "every map equals golden" in result.output
        # A map that is not golden's.
        run = Accelerator.run

        def changed(self, x, **options):
            maps = run(self, x, **options)
            maps["conv2"][3, 2, 1] ^= 1
            return maps
        monkeypatch.setattr(digits.Accelerator, "run", changed)
        result = CliRunner().invoke(digits.app, ["--port", "P", "--count", "1"])
        assert result.exit_code == 1 and "1 values differ from golden" in result.output, result.output


@pytest.mark.parametrize("arguments, sentence", [
    (["--port", "/dev/no-such-port"], "/dev/no-such-port cannot be opened"),
    (["--port", "P", "--count", "0"], "digits must be 1 to 100"),
    (["--port", "P", "--config", "huge"], "there is no configuration 'huge'")])
def test_digits_say_what_is_wrong(arguments, sentence):
    result = CliRunner().invoke(digits.app, arguments)
    assert result.exit_code == 2 and sentence in result.output


def test_digits_need_the_driver():
    result = subprocess.run([sys.executable, "-m", "boards.ecp5.digits"], cwd=ROOT, capture_output=True, text=True,
                            env={"PATH": "", "PYTHONPATH": str(ROOT)})
    assert result.returncode == 2 and "set PYTHONPATH=firmware/python" in result.stderr


# ---- build -----------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_plan_of_the_build():
    plan = get_board("ulx3s_85f").plan(CONFIGS["tiny"], 60, 7)
    lines = plan.files[f"{plan.script}.sh"].splitlines()
    stages = [line.removeprefix('echo "== ').rstrip('"') for line in lines if line.startswith('echo "== ')]
    assert tuple(stages) == Ulx3s.STAGES
    assert any("--seed 7 --report top.report.json --timing-allow-fail" in line for line in lines)
    constraints = plan.files["top.lpf"]
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ' in constraints
    # Board manual: FPGA pins M1 from, L4 to the USB chip.
    assert 'LOCATE COMP "uart_0__rx__io" SITE "M1"' in constraints
    assert 'LOCATE COMP "uart_0__tx__io" SITE "L4"' in constraints


@pytest.mark.parametrize("megahertz", CLOCKS)
def test_pll_makes_the_clock(megahertz):
    """Lattice FPGA-TN-02200: the oscillator runs at reference / CLKI_DIV * CLKFB_DIV * CLKOP_DIV, 400 to 800 MHz."""
    plan = Ulx3s().build(ClockGenerator(megahertz), name="top", do_build=False)
    found = re.findall(r"parameter \\(CLK\w+_DIV) (\d+)", plan.files["top.il"])
    parameters = {name: int(value) for name, value in found}
    oscillator = 25 / parameters["CLKI_DIV"] * parameters["CLKFB_DIV"] * parameters["CLKOP_DIV"]
    assert 400 <= oscillator <= 800 and oscillator / parameters["CLKOS_DIV"] == megahertz


def test_another_clock_is_refused():
    with pytest.raises(ValueError, match="must be one of 25, 30, .* MHz, not 45"):
        get_board("ulx3s_85f").plan(CONFIGS["tiny"], 45, 1)

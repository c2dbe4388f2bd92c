"""Building and running the C programs of firmware/, for its tests."""
import fcntl
import os
import subprocess
import time
from pathlib import Path
from shutil import which

from boards.image import compile_job, write_check
from boards.sim.build import build_library, design_verilog
from boards.sim.jobs import DigitsJob
from compiler.image import write_image
from hw.configs import CONFIGS
from hw.top import Top

ROOT = Path(__file__).parents[2]
FIRMWARE = ROOT / "firmware"
BUILD = ROOT / "build/firmware"


def need(tool: str, package: str):
    """Fail, with what to install, if there is no ``tool``."""
    assert which(tool), f"this test needs {tool}: apt-get install {package}"


def make(*targets: str, build: Path = BUILD, **variables) -> list[Path]:
    """Build targets of firmware/Makefile in the folder ``build``; their paths."""
    build.mkdir(parents=True, exist_ok=True)
    paths = [build / target for target in targets]
    with open(build / ".lock", "w") as lock:
        # Tests that run side by side want the same programs.
        fcntl.flock(lock, fcntl.LOCK_EX)
        # A make that runs these tests must not hand its own options down.
        environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
        run("make", "--no-print-directory", "-C", FIRMWARE, f"BUILD={build}",
            *(f"{name}={value}" for name, value in variables.items()), *paths, env=environment)
    return paths


def run(*command, status: int = 0, **options) -> subprocess.CompletedProcess:
    """Run a command; the test fails with its output if it does not end with ``status``."""
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=200, **options)
    assert result.returncode == status, (f"{' '.join(map(str, command))}\nended with {result.returncode}, not {status}:"
                                         f"\n{result.stdout}{result.stderr}")
    return result


def run_until(text: str, *command, seconds: float = 60) -> str:
    """Run a command that does not end by itself until ``text`` and the rest of its line are in its output."""
    with subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        os.set_blocking(process.stdout.fileno(), False)
        output, deadline = "", time.monotonic() + seconds
        try:
            while text not in output or not output.endswith("\n"):
                assert time.monotonic() < deadline, f"there was no {text!r} in {seconds} s:\n{output}"
                assert process.poll() is None, f"{command[0]} has ended without {text!r}:\n{output}"
                output += (process.stdout.read() or b"").decode(errors="replace").replace("\r", "")
                time.sleep(0.02)
        finally:
            process.kill()
    return output


def library(config) -> Path:
    """The compiled simulation of an accelerator of ``config``."""
    return build_library(design_verilog(config, Top), config.name)


def write_network(program, x, folder: Path) -> tuple[Path, Path]:
    """The image of ``program``, and a folder with every map that golden makes of the real input ``x``."""
    write_image(program, folder / "network.zsn")
    write_check(program, x, folder / "golden")
    return folder / "network.zsn", folder / "golden"


def write_digits(folder: Path, config=CONFIGS["tiny"]) -> tuple[Path, Path]:
    """:func:`write_network` of the digit recogniser for ``config``, and a digit."""
    job = DigitsJob(1)
    return write_network(compile_job(job, config), job.inputs[0], folder)


def assert_golden(golden: Path, folder: Path):
    """Every map in ``golden`` but the input is in ``folder``, byte by byte, and nothing else."""
    names = {path.name for path in golden.iterdir()} - {"input.bin"}
    assert names and {path.name for path in folder.iterdir()} == names
    for name in names:
        assert (folder / name).read_bytes() == (golden / name).read_bytes(), f"map {name} differs from golden"

"""`python -m boards.sim.server` in a process of its own, for tests of drivers."""
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hw.generate_registers import ROOT


@dataclass
class BoardServer:
    """A running server: its paths, the address and size of its memory, its process."""
    socket: Path
    memory: Path
    base: int
    memory_bytes: int
    process: subprocess.Popen

    def stop(self) -> tuple[int, str]:
        """End the server with SIGTERM; its exit status and what it wrote to stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


@contextmanager
def board_server(folder: Path, *, config="tiny", memory_bytes=1 << 20, base=0x1000_0000, seed=0):
    """A :class:`BoardServer` with socket and memory in ``folder``, ready; ended with the block."""
    socket, memory = folder / "s", folder / "m"
    command = [sys.executable, "-m", "boards.sim.server", "--config", config, "--socket", socket, "--memory", memory,
               "--memory-bytes", hex(memory_bytes), "--base", hex(base), "--seed", str(seed)]
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("ready: "):
            raise AssertionError(f"the server is not ready: {process.communicate()[1]}")
        yield BoardServer(socket, memory, base, memory_bytes, process)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)

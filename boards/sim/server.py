"""The simulated board for a driver in another process: registers over a socket, DRAM as a file.

    python -m boards.sim.server --config tiny --socket S --memory M --memory-bytes 16777216

The DRAM is the file ``--memory``, which the driver maps too. On the Unix stream socket a request takes 12 bytes and its
answer 8, little endian:

| request        | u32 op | u32 offset           | u32 value                  | value of the answer             |
|----------------|--------|----------------------|----------------------------|---------------------------------|
| read register  | 1      | multiple of 4, below 4096 | unused                | what was read                   |
| write register | 2      | the same             | what is written            | 0                               |
| wait           | 3      | unused               | clock cycles to wait at most | 1: the interrupt line is high |

Answer: u32 status, u32 value. Status 0: done, 1: AXI error response, 2: the register bus did not answer, 3: the
simulation failed (the reason is on stderr; it stays failed). The clock stands still between requests; while the
accelerator is busy, a read of ``status`` lets ``POLL_CYCLES`` pass first, so that a driver may poll. Clients are served
one after the other; the accelerator keeps its state from one to the next. A malformed request ends its connection.
"""
import argparse
import signal
import socket
import struct
import sys
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hw.configs import CONFIGS, get_config
from hw.registers import register

from .build import BuildError
from .run import mask
from .simulator import NO_ANSWER, SimulationError, Simulator

REQUEST, ANSWER = struct.Struct("<III"), struct.Struct("<II")
READ, WRITE, WAIT = 1, 2, 3
DONE, AXI_ERROR, UNANSWERED, FAILED = range(4)
#: Cycles that pass before a read of ``status`` while the accelerator is busy.
POLL_CYCLES = 5000
#: Register space in bytes.
SPACE = 4096
#: Signals that end the server; while a client waits they are seen this often, in clock cycles.
STOPPING = signal.SIGTERM, signal.SIGINT
CHUNK = 100_000


class RequestError(Exception):
    """A client sent what is no request."""


def receive(connection) -> bytes:
    """The next request; empty if the client has closed the connection. :class:`RequestError` if it ends half way."""
    data = b""
    while len(data) < REQUEST.size:
        part = connection.recv(REQUEST.size - len(data))
        if not part and data:
            raise RequestError(f"the connection ended after {len(data)} of the {REQUEST.size} bytes of a request")
        if not part:
            break
        data += part
    return data


def execute(simulator: Simulator, op: int, offset: int, value: int) -> tuple[int, int]:
    """Status and value that answer a request."""
    if op not in (READ, WRITE, WAIT):
        raise RequestError(f"there is no op {op}; 1 reads, 2 writes, 3 waits")
    if op != WAIT and (offset % 4 or offset >= SPACE):
        raise RequestError(f"offset {offset:#x} is no multiple of 4 below {SPACE:#x}")
    try:
        if op == WAIT:
            return DONE, int(simulator.run(value, chunk=CHUNK) == "interrupt")
        if op == WRITE:
            code, value = simulator.write_word(offset, value), 0
        else:
            code, value = simulator.read_word(offset)
            if offset == register("status").offset and value & mask("status", "busy"):
                simulator.run(POLL_CYCLES)
                code, value = simulator.read_word(offset)
    except SimulationError as error:
        print(f"the simulation failed: {error}", file=sys.stderr, flush=True)
        return FAILED, 0
    if code:
        return UNANSWERED if code == NO_ANSWER else AXI_ERROR, 0
    return DONE, value


def serve(simulator: Simulator, listener) -> None:
    """Serve one client of ``listener`` after the other, for ever."""
    while True:
        connection, _ = listener.accept()
        with connection:
            try:
                while request := receive(connection):
                    connection.sendall(ANSWER.pack(*execute(simulator, *REQUEST.unpack(request))))
            except (RequestError, ConnectionError) as error:
                print(f"client closed: {error}", file=sys.stderr, flush=True)


def _stop(*_):
    # A second one must not disturb the closing.
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(0)


def _number(text: str) -> int:
    return int(text, 0)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m boards.sim.server", description="Simulate an accelerator for a "
                                     "driver in another process, until SIGTERM or Ctrl-C. Prints a line when it is "
                                     "ready. Exit status 2: an option or a tool is not usable.")
    parser.add_argument("--config", required=True, metavar="NAME", help=f"one of {', '.join(CONFIGS)}")
    parser.add_argument("--socket", required=True, metavar="PATH", type=Path,
                        help="Unix socket to listen on; it must not exist")
    parser.add_argument("--memory", required=True, metavar="PATH", type=Path,
                        help="file to be the DRAM; it must not exist and is removed at the end")
    parser.add_argument("--memory-bytes", required=True, metavar="N", type=_number,
                        help="size of the DRAM, a multiple of 4096")
    parser.add_argument("--base", default=0x1000_0000, metavar="N", type=_number,
                        help="address of the DRAM, 0x10000000 unless told")
    parser.add_argument("--seed", default=0, metavar="N", type=int, help="of the noise that the DRAM starts with")
    return parser


def run(options: argparse.Namespace) -> None:
    """Open socket, memory and simulator, then serve; all are closed, and the files removed, however that ends."""
    config = get_config(options.config)
    if options.memory_bytes < 4096 or options.memory_bytes % 4096:
        raise ValueError(f"--memory-bytes must be a multiple of 4096, not {options.memory_bytes}")
    for path in (options.socket, options.memory):
        if path.exists():
            raise ValueError(f"{path} exists: remove it if no other server uses it, or name another")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(options.socket))
        stack.callback(options.socket.unlink, missing_ok=True)
        stack.callback(options.memory.unlink, missing_ok=True)
        dram = np.memmap(options.memory, np.uint8, "w+", shape=(options.memory_bytes,))
        simulator = stack.enter_context(Simulator(config, memory_bytes=dram.size, base=options.base, memory=dram,
                                                  seed=options.seed))
        listener.listen()
        print(f"ready: {config.name} on {options.socket}, {dram.size} bytes at {options.base:#x} in {options.memory}",
              flush=True)
        serve(simulator, listener)


def main(arguments=None) -> int:
    options = build_parser().parse_args(arguments)
    for number in STOPPING:
        signal.signal(number, _stop)
    try:
        run(options)
    except (ValueError, OSError, BuildError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

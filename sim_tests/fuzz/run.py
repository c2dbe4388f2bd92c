"""`make fuzz`: random files, options and networks through the compiler, golden and the RTL, for some time.

    make fuzz MINUTES=60 SEED=1
    make fuzz REPLAY=files:1:204

Each case runs in a process of its own, so that a crash or a hang is a failure of that case. What a seed does depends on
the seed alone. Failures are written to build/fuzz/failures.txt, a line each with the command that repeats it; counts
to build/fuzz/<seed>.json.
"""
import json
import multiprocessing
import resource
import shutil
import signal
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from boards.sim.build import BuildError
from boards.sim.simulator import Simulator
from hw.configs import CONFIGS
from sim_tests.bench.imported import import_proto
from sim_tests.unit.compiler.onnx_graphs import Graph

from .cases import KINDS, Passed, run_case

FAILED, BAD_INPUT = 1, 2
#: Which kind case n is, by n modulo the length.
ORDER = ("files", "files", "graphs", "files", "files", "rtl")
#: Processor seconds after which a case hangs, wall-clock seconds for all other waiting, bytes that a case may take.
CPU_SECONDS, WALL_SECONDS, MEMORY = 60, 900, 12 << 30


def _child(pipe, case, folder):
    """Runs a case and sends ``(result, text)``; a result of None is a failure."""
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        passed = run_case(*case, folder)
        pipe.send((passed.result, passed.text))
    except BaseException:
        pipe.send((None, traceback.format_exc()))


def run_isolated(case: tuple[str, int, int]) -> Passed:
    """Case ``(kind, seed, number)`` in a process of its own; ``result`` is "failed" for a failure, a crash or a
    hang."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    folder = Path(tempfile.mkdtemp(prefix="zeroskip-fuzz-"))
    process = context.Process(target=_child, args=(send, case, folder))
    process.start()
    send.close()
    try:
        answer = receive.recv() if receive.poll(WALL_SECONDS) else None
    except EOFError:
        answer = None
    finally:
        process.join(5)
        process.kill()
        process.join()
        shutil.rmtree(folder, ignore_errors=True)
    if answer is None:
        hung = process.exitcode in (-signal.SIGXCPU, -signal.SIGKILL)
        return Passed("failed", "it hangs" if hung else f"the process ended with status {process.exitcode}")
    return Passed("failed" if answer[0] is None else answer[0], answer[1])


def run_cases(seed: int, seconds: float, console: Console, folder: Path) -> dict:
    """Cases 0, 1, ... of ``seed`` for ``seconds``; the contents of ``<seed>.json``."""
    counts, failures, sentences = {kind: Counter() for kind in KINDS}, [], Counter()
    begin, cpu, number = time.monotonic(), _cpu_seconds(), 0
    with Progress(TextColumn("seed {task.fields[seed]}"), BarColumn(), TimeElapsedColumn(),
                  TextColumn("{task.fields[done]} cases, {task.fields[failed]} failures"), console=console) as progress:
        task = progress.add_task("", total=seconds, seed=seed, done=0, failed=0)
        while time.monotonic() - begin < seconds:
            case = ORDER[number % len(ORDER)], seed, number
            outcome = run_isolated(case)
            counts[case[0]][outcome.result] += 1
            if outcome.result == "refused":
                sentences[f"{case[0]}: {_outline(outcome.text)}"] += 1
            if outcome.result == "failed":
                failures.append(":".join(map(str, case)))
                _note(folder / "failures.txt", failures[-1], outcome.text)
                console.print(f"{failures[-1]}: {outcome.text.strip().splitlines()[-1]}", markup=False, highlight=False)
            number += 1
            progress.update(task, completed=time.monotonic() - begin, done=number, failed=len(failures))
            _write(folder / f"{seed}.json", {
                "seed": seed, "cases": number, "cpu_minutes": round((_cpu_seconds() - cpu) / 60, 2),
                "wall_minutes": round((time.monotonic() - begin) / 60, 2),
                "counts": {kind: dict(sorted(count.items())) for kind, count in counts.items()}, "failures": failures,
                "sentences": dict(sentences.most_common())})
    return json.loads((folder / f"{seed}.json").read_text()) if number else {"failures": []}


def _outline(text):
    """A sentence without the names in it, to count by."""
    words = text.strip().splitlines()[-1].split()
    return " ".join(word for word in words if not any(letter in word for letter in "'/0123456789([{"))[:100]


def _cpu_seconds():
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _note(path, case, text):
    with open(path, "a") as file:
        file.write(f"make fuzz REPLAY={case}\n")
        file.writelines(f"    {line}\n" for line in text.strip().splitlines()[-12:])


def _write(path, content):
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    draft.replace(path)


def _prepare():
    """What would take long in every process: libraries that load when they are first used, the simulator."""
    graph = Graph()
    with tempfile.TemporaryDirectory(prefix="zeroskip-fuzz-") as folder:
        import_proto(graph.proto([graph.node("Relu", graph.conv("x", 4))]), CONFIGS["tiny"], Path(folder),
                     seed=0).signal_to_noise()
    # It is not run here: a copy of a process that has run one waits for threads that it does not have.
    Simulator(CONFIGS["tiny"], memory_bytes=4096, assertions=True).close()


def replay(text: str, console: Console) -> bool:
    """Run the case ``kind:seed:number`` in this process; whether it passes."""
    kind, seed, number = text.split(":")
    if kind not in KINDS:
        raise ValueError(f"there is no kind {kind!r}")
    with tempfile.TemporaryDirectory(prefix="zeroskip-fuzz-") as folder:
        try:
            passed = run_case(kind, int(seed), int(number), Path(folder))
        except Exception:
            console.print(traceback.format_exc(), markup=False, highlight=False)
            return False
    console.print(f"{passed.result}: {passed.text}", markup=False, highlight=False, soft_wrap=True)
    return True


def main(
    minutes: Annotated[float, typer.Option(help="How long to run.")] = 60,
    seed: Annotated[int, typer.Option(help="Where random numbers start; another seed does other cases.", min=0)] = 1,
    replay_: Annotated[str | None, typer.Option("--replay", help="Repeat one case, as failures.txt has it.",
                                                metavar="KIND:SEED:NUMBER")] = None,
    output: Annotated[Path, typer.Option(help="Folder for failures.txt and the counts.")] = Path("build/fuzz"),
):
    """Damaged files, odd options and random networks through compiler, golden and the RTL.

    Exit status: 0 all cases are as they should be, 1 some are not, 2 an option or a tool is not usable.
    """
    console = Console()
    # Many processes of one thread each: their maps are small.
    torch.set_num_threads(1)
    try:
        if replay_:
            raise typer.Exit(0 if replay(replay_, console) else FAILED)
        output.mkdir(parents=True, exist_ok=True)
        _prepare()
        found = run_cases(seed, 60 * minutes, console, output)
    except (ValueError, OSError, BuildError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    console.print({name: value for name, value in found.items() if name != "sentences"})
    raise typer.Exit(FAILED if found["failures"] else 0)


if __name__ == "__main__":
    typer.run(main)

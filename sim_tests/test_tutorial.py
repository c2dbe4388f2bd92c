"""docs/tutorial.md: every command in it runs, and prints what the page says it prints."""
import os
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/tutorial.md"
#: A block of commands, and a block of output behind it if there is one before the next commands.
BLOCK = re.compile(r"^```sh\n(.*?)^```$(?:(?:(?!^```sh).)*?^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def run(commands):
    """What the commands print, both streams, as a reader would type them in a checkout that is set up."""
    # make would install packages again where a requirements file is newer than the environment.
    commands = re.sub(r"^make ", "make -o .venv/.ready ", commands, flags=re.MULTILINE)
    result = subprocess.run(["bash", "-e", "-c", commands], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            text=True, timeout=900, env=os.environ | {"COLUMNS": "120"})
    assert result.returncode == 0, f"{commands}\nended with {result.returncode}:\n{result.stdout}"
    return result.stdout


def shape(text):
    """Lines without what changes with every edit of the RTL or with the machine: numbers are #, spaces are one."""
    return [re.sub(r"\s+", " ", re.sub(r"[0-9][0-9.,]*[kMG]?", "#", line)).strip() for line in text.splitlines()]


def test_every_command_runs_and_prints_what_the_page_shows():
    blocks = BLOCK.findall(PAGE.read_text())
    assert [commands.split()[0] for commands, _ in blocks] == \
        [".venv/bin/pip", "mkdir", ".venv/bin/zeroskip", "make", ".venv/bin/zeroskip"]
    outputs = [(run(commands), shown) for commands, shown in blocks]
    assert sum(bool(shown) for _, shown in outputs) == PAGE.read_text().count("```text\n") == 1
    for output, shown in outputs:
        missing = set(shape(shown)) - set(shape(output))
        assert not missing, f"the page shows lines that were not printed: {missing}; printed was:\n{output}"
    simulation = outputs[3][0]
    assert re.search(r"^0 mismatches in [1-9]", simulation, re.MULTILINE)
    assert "the same largest value in 5 of 5" in re.sub(r"\s+", " ", simulation)
    for name in ("build/tutorial/recogniser.zsn", "build/sim/recogniser/report.json",
                 "build/sim/recogniser/report.html", "build/sim/recogniser/report-cycles.png"):
        assert (ROOT / name).stat().st_size > 1000

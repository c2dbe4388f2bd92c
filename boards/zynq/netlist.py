"""A netlist for nextpnr: no constants on pins that a DSP slice or block RAM does not read, ties on resets that it does
read, and how far the router may look around a net.

A constant 0 on a hard block is routed like any signal: a DSP slice that multiplies without its C port would take 48
wires of the congested columns for nothing. Pins without a net read 1 on this family. What is removed is only what the
block's mode ignores; everything else stays. The reset of a register stage in use gets a net where Yosys gives it none
(RSTD of the pre-adder), so that it does not depend on what an open pin reads.

The router looks for the way of a net in the rectangle around its ends and some tiles more. To nextpnr a pin of the PS7
lies in the middle of that block, but its wire leaves the block up to 52 rows above or below: with the 3 rows that are
usual no way is inside, which the router finds out by looking at all of it, for each such net in each pass.

    python -m boards.zynq.netlist IN.json OUT.json

Source: Xilinx UG479 (DSP48E1: OPMODE, register attributes), UG473 (block RAM: port widths, output registers).
"""
import json
import sys
from collections import Counter

CONSTANTS = {"0", "1", "x"}
#: Pins of other slices, which have wires of their own.
CASCADES = {"ACIN", "BCIN", "PCIN", "CARRYCASCIN", "MULTSIGNIN"}
#: Enables and resets that belong to a register stage of the DSP slice, by attribute.
REGISTERS = {"CREG": ("CEC", "RSTC"), "DREG": ("CED",), "ADREG": ("CEAD",), "MREG": ("CEM", "RSTM"),
             "PREG": ("CEP", "RSTP"), "INMODEREG": ("CEINMODE", "RSTINMODE"),
             "ALUMODEREG": ("CEALUMODE", "RSTALUMODE"), "CARRYINREG": ("CECARRYIN", "RSTALLCARRYIN")}

#: Reset pin of each register stage.
RESETS = {"AREG": "RSTA", "BREG": "RSTB", "CREG": "RSTC", "DREG": "RSTD", "ADREG": "RSTD", "MREG": "RSTM",
          "PREG": "RSTP", "INMODEREG": "RSTINMODE", "OPMODEREG": "RSTCTRL", "CARRYINSELREG": "RSTCTRL",
          "ALUMODEREG": "RSTALUMODE", "CARRYINREG": "RSTALLCARRYIN"}

#: Settings of nextpnr's router2: tiles around the rectangle of a net. The PS7 is 104 rows high.
ROUTER = {"router2/bbMargin/x": "6", "router2/bbMargin/y": "56"}


def _number(parameters, name, default=0):
    value = parameters.get(name, default)
    return int(value, 2) if isinstance(value, str) else value


def _dsp_ignores(cell):
    """Input pins of a DSP48E1 that its mode does not read."""
    parameters, nets = cell["parameters"], cell["connections"]
    ignored = set(CASCADES)
    mode = nets.get("OPMODE", [])
    if all(bit in CONSTANTS for bit in mode) and mode[4:6] != ["1", "1"] and mode[2:4] != ["1", "1"]:
        ignored |= {"C", "CEC", "RSTC"}
    if parameters.get("USE_DPORT", "FALSE") == "FALSE":
        ignored |= {"D", "CED", "CEAD", "RSTD"}
    for register, pins in REGISTERS.items():
        if _number(parameters, register) == 0:
            ignored |= set(pins)
    for port in "AB":
        stages = _number(parameters, f"{port}REG", 1)
        if stages == 0:
            ignored |= {f"CE{port}1", f"CE{port}2", f"RST{port}"}
        elif stages == 1:
            ignored.add(f"CE{port}1")
    return ignored


def _ram_ignores(cell):
    """Input pins of a RAMB18E1 or RAMB36E1 that its mode does not read."""
    parameters = cell["parameters"]
    ignored = set()
    for port, pins in (("A", {"REGCEAREGCE", "RSTREGARSTREG"}), ("B", {"REGCEB", "RSTREGB"})):
        if _number(parameters, f"DO{port}_REG") == 0:
            ignored |= pins
    # In simple dual-port mode port A reads and port B writes.
    if parameters.get("RAM_MODE", "TDP") == "SDP" or _number(parameters, "WRITE_WIDTH_A") == 0:
        ignored.add("WEA")
    if parameters.get("RAM_MODE", "TDP") == "SDP":
        ignored |= {"RSTRAMB", "RSTREGB"}
    return ignored


IGNORES = {"DSP48E1": _dsp_ignores, "RAMB18E1": _ram_ignores, "RAMB36E1": _ram_ignores}


def remove_constants(design: dict, top: str) -> Counter:
    """Remove such pins from the hard blocks of module ``top`` of a Yosys JSON netlist; how many bits, by type and pin.

    A pin with a signal on one of its bits keeps all of them.
    """
    removed = Counter()
    for cell in design["modules"][top]["cells"].values():
        ignores = IGNORES.get(cell["type"])
        if ignores is None:
            continue
        for pin in sorted(ignores(cell)):
            bits = cell["connections"].get(pin)
            if bits and all(bit in CONSTANTS for bit in bits):
                del cell["connections"][pin]
                del cell["port_directions"][pin]
                removed[cell["type"], pin] += len(bits)
    return removed


def tie_resets(design: dict, top: str) -> int:
    """Give a constant 0 to reset pins without a net of registers that DSP slices of module ``top`` use; how many."""
    tied = 0
    for cell in design["modules"][top]["cells"].values():
        if cell["type"] != "DSP48E1":
            continue
        for register, pin in RESETS.items():
            if _number(cell["parameters"], register) and pin not in cell["connections"]:
                cell["connections"][pin], cell["port_directions"][pin] = ["0"], "input"
                tied += 1
    return tied


def main(source: str, target: str, top: str = "top"):
    """Filter the netlist in file ``source`` to ``target``."""
    with open(source) as file:
        design = json.load(file)
    removed = remove_constants(design, top)
    tied = tie_resets(design, top)
    design["modules"][top]["settings"] = ROUTER
    with open(target, "w") as file:
        json.dump(design, file)
    for (kind, pin), bits in sorted(removed.items()):
        print(f"{kind}.{pin}: {bits} constant bits removed")
    print(f"{tied} resets of DSP registers tied to 0")


if __name__ == "__main__":
    main(*sys.argv[1:])

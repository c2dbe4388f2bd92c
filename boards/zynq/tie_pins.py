"""Give the constant pins of DSP slices that no wire of the fabric reaches the tie of the tile that they need.

INMODE[4:0], ALUMODE[3:2] and OPMODE[6] of a DSP48E1 are driven by a constant 0 or 1 of the tile (``DSP_GND``,
``DSP_VCC``) and nothing else. nextpnr 0.11 sets their inverters as it does for pins that float to 1, and no tie: a
slice then ignores an operand on the chip, which neither timing nor a simulation of the netlist shows. Here each such
pin gets the tie for its value, and no inverter, as the vendor's tool writes it.

    python -m boards.zynq.tie_pins IN.fasm OUT.fasm

Source: openXC7/nextpnr-xilinx, pull request 159 (measured on an xc7z010, bits compared with the vendor's tool).
"""
import re
import sys
from pathlib import Path

PINS = (*(("INMODE", bit) for bit in range(5)), ("ALUMODE", 2), ("ALUMODE", 3), ("OPMODE", 6))
SLICE = re.compile(r"(DSP_([LR])_X\d+Y\d+)\.DSP48\.DSP_([01])\.(\S+)")


def tie_pins(lines: list[str]) -> list[str]:
    """The FASM ``lines`` with a tie and without an inverter for each of :data:`PINS` of each DSP slice in use.

    An inverter that nextpnr left off (``ZIS_..._INVERTED`` is set) means a 1. ``ValueError`` for a pin with a tie.
    """
    slices = {}
    for line in lines:
        if match := SLICE.match(line):
            slices.setdefault(match.group(1, 2, 3), set()).add(match[4])
    present, added = set(lines), []
    for (tile, side, number), features in slices.items():
        for bus, bit in PINS:
            inverter = f"ZIS_{bus}_INVERTED[{bit}]"
            pin = f"{tile}.DSP_{number}_{bus}{bit}"
            for tie in ("GND", "VCC"):
                if f"{pin}.DSP_{tie}_{side}" in present:
                    raise ValueError(f"{pin} has a tie already: this nextpnr needs no boards.zynq.tie_pins")
            added.append(f"{pin}.DSP_{'VCC' if inverter in features else 'GND'}_{side}")
            if inverter not in features:
                added.append(f"{tile}.DSP48.DSP_{number}.{inverter}")
    return [*lines, *added]


def main(source: str, target: str):
    """Filter the FASM file ``source`` to ``target``."""
    lines = Path(source).read_text().splitlines()
    result = tie_pins(lines)
    Path(target).write_text("\n".join(result) + "\n")
    print(f"{len(result) - len(lines)} features for pins of DSP slices added")


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Constants that leave the pins of hard blocks, and those that stay."""
import json

import pytest

from boards.zynq import netlist


def number(value):
    return format(value, "032b")


def dsp(*, opmode, **parameters):
    """A DSP48E1 with constant 0 on every input but A and B; ``opmode``: bits from the highest."""
    cell = {"type": "DSP48E1", "parameters": {"USE_DPORT": "FALSE", **{name: number(value) for name, value in (
        {"AREG": 1, "BREG": 1, "CREG": 0, "DREG": 0, "ADREG": 0, "MREG": 1, "PREG": 1} | parameters).items()
        if not isinstance(value, str)}}, "connections": {
        "A": list(range(2, 32)), "B": list(range(40, 58)), "C": ["0"] * 48, "D": ["0"] * 25, "ACIN": ["0"] * 30,
        "BCIN": ["0"] * 18, "PCIN": ["0"] * 48, "OPMODE": list(reversed(opmode)), "ALUMODE": ["0"] * 4,
        "INMODE": ["0"] * 5, "CARRYIN": ["0"], "CARRYINSEL": ["0"] * 3, "CEA1": ["1"], "CEA2": ["1"], "CEC": ["0"],
        "CEM": ["1"], "CEP": ["1"], "RSTC": ["0"], "RSTM": ["0"], "RSTP": ["0"], "P": list(range(100, 148))}}
    cell["parameters"] |= {name: value for name, value in parameters.items() if isinstance(value, str)}
    cell["port_directions"] = {pin: "output" if pin == "P" else "input" for pin in cell["connections"]}
    return cell


def filtered(cell):
    design = {"modules": {"top": {"cells": {"cell": cell}}}}
    removed = netlist.remove_constants(design, "top")
    return set(design["modules"]["top"]["cells"]["cell"]["connections"]), removed


def test_a_multiplication_does_not_read_c_d_and_the_cascades():
    pins, removed = filtered(dsp(opmode="0000101"))
    assert pins == {"A", "B", "OPMODE", "ALUMODE", "INMODE", "CARRYIN", "CARRYINSEL", "CEA2", "CEM", "CEP", "RSTM",
                    "RSTP", "P"}
    assert removed["DSP48E1", "C"] == 48 and removed["DSP48E1", "D"] == 25


@pytest.mark.parametrize("opmode", ["0110101", "0001100", "0111111"])
def test_c_stays_where_z_or_y_select_it(opmode):
    pins, _ = filtered(dsp(opmode=opmode))
    assert "C" in pins


def test_c_stays_with_an_operation_that_changes():
    cell = dsp(opmode="0000101")
    cell["connections"]["OPMODE"][4] = 77
    assert "C" in filtered(cell)[0]


def test_d_stays_with_the_preadder():
    assert "D" in filtered(dsp(opmode="0000101", USE_DPORT="TRUE"))[0]


def test_a_pin_with_a_signal_stays_whole():
    cell = dsp(opmode="0000101")
    cell["connections"]["C"][3] = 99
    pins, removed = filtered(cell)
    assert "C" in pins and ("DSP48E1", "C") not in removed
    assert cell["connections"]["C"][3] == 99 and cell["connections"]["C"].count("0") == 47


@pytest.mark.parametrize("register, pins", [("MREG", {"CEM", "RSTM"}), ("PREG", {"CEP", "RSTP"})])
def test_enables_and_resets_go_with_their_registers(register, pins):
    assert not pins & filtered(dsp(opmode="0000101", **{register: 0}))[0]
    assert pins <= filtered(dsp(opmode="0000101", **{register: 1}))[0]


def ram(mode, **parameters):
    pins = {"WEA": ["0"] * 4, "WEBWE": ["1"] * 8, "REGCEAREGCE": ["0"], "REGCEB": ["0"], "RSTREGARSTREG": ["0"],
            "RSTREGB": ["0"], "RSTRAMARSTRAM": ["0"], "RSTRAMB": ["0"], "ENARDEN": ["1"], "DIADI": ["0"] * 32}
    return {"type": "RAMB36E1", "parameters": {"RAM_MODE": mode} | {k: number(v) for k, v in parameters.items()},
            "connections": pins, "port_directions": dict.fromkeys(pins, "input")}


def test_block_ram_keeps_what_it_reads():
    pins, _ = filtered(ram("SDP", DOA_REG=0, DOB_REG=0, WRITE_WIDTH_A=0))
    assert pins == {"WEBWE", "RSTRAMARSTRAM", "ENARDEN", "DIADI"}
    pins, _ = filtered(ram("TDP", DOA_REG=1, DOB_REG=0, WRITE_WIDTH_A=36))
    assert pins == {"WEA", "WEBWE", "REGCEAREGCE", "RSTREGARSTREG", "RSTRAMARSTRAM", "RSTRAMB", "ENARDEN", "DIADI"}


@pytest.mark.parametrize("register, pin", [("ADREG", "RSTD"), ("CREG", "RSTC"), ("INMODEREG", "RSTINMODE")])
def test_resets_of_registers_in_use_are_tied_to_0_where_they_have_no_net(register, pin):
    def tied(value, nets):
        cell = dsp(opmode="0000101", **{register: value})
        cell["connections"] |= {name: ["0"] for name in ("RSTA", "RSTB")}
        cell["connections"].pop(pin, None)
        cell["connections"] |= nets
        count = netlist.tie_resets({"modules": {"top": {"cells": {"cell": cell}}}}, "top")
        return count, cell["connections"].get(pin), cell["port_directions"].get(pin)
    assert tied(1, {}) == (1, ["0"], "input")
    assert tied(0, {})[:2] == (0, None)
    assert tied(1, {pin: [99]})[:2] == (0, [99])


def test_other_cells_are_left_alone():
    cell = {"type": "LUT2", "parameters": {}, "connections": {"C": ["0"]}, "port_directions": {"C": "input"}}
    assert filtered(cell) == ({"C"}, {})


def test_the_command_filters_a_file(tmp_path, capsys):
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps({"modules": {"zynq": {"cells": {"a": dsp(opmode="0000101")}}}}))
    netlist.main(str(source), str(target), "zynq")
    module = json.loads(target.read_text())["modules"]["zynq"]
    assert "C" not in module["cells"]["a"]["connections"]
    # The PS7 is 104 rows high, its middle where nextpnr takes its pins to be.
    assert int(module["settings"]["router2/bbMargin/y"]) >= 52
    assert "DSP48E1.C: 48 constant bits removed" in capsys.readouterr().out

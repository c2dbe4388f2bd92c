"""Ties of pins of DSP slices that the fabric does not reach."""
import pytest

from boards.zynq.tie_pins import PINS, main, tie_pins

SLICE = "DSP_L_X22Y65.DSP48.DSP_0"


def test_each_pin_gets_the_tie_of_its_value_and_no_inverter():
    lines = [f"{SLICE}.ZMREG[0]", f"{SLICE}.ZIS_INMODE_INVERTED[2]", "INT_L_X22Y65.IMUX1.GFAN0"]
    result = tie_pins(lines)
    assert result[:3] == lines and len(set(result)) == len(result)
    added = set(result[3:])
    assert {line for line in added if "_VCC_" in line} == {"DSP_L_X22Y65.DSP_0_INMODE2.DSP_VCC_L"}
    assert {line for line in added if "_GND_" in line} == {
        f"DSP_L_X22Y65.DSP_0_{bus}{bit}.DSP_GND_L" for bus, bit in PINS if (bus, bit) != ("INMODE", 2)}
    assert {line for line in result if "INVERTED" in line} == {
        f"{SLICE}.ZIS_{bus}_INVERTED[{bit}]" for bus, bit in PINS}


def test_both_slices_and_sides_are_told_apart():
    result = tie_pins([f"{SLICE}.ZMREG[0]", "DSP_R_X9Y125.DSP48.DSP_1.ZMREG[0]"])
    assert "DSP_R_X9Y125.DSP_1_OPMODE6.DSP_GND_R" in result and "DSP_L_X22Y65.DSP_0_OPMODE6.DSP_GND_L" in result
    assert not any("DSP_R_X9Y125.DSP_0" in line or "DSP_L_X22Y65.DSP_1" in line for line in result)


def test_a_pin_with_a_tie_is_refused():
    with pytest.raises(ValueError, match="DSP_L_X22Y65.DSP_0_ALUMODE3 has a tie already"):
        tie_pins([f"{SLICE}.ZMREG[0]", "DSP_L_X22Y65.DSP_0_ALUMODE3.DSP_GND_L"])


def test_a_design_without_slices_stays(tmp_path, capsys):
    source, target = tmp_path / "in.fasm", tmp_path / "out.fasm"
    source.write_text("INT_L_X22Y65.IMUX1.GFAN0\n")
    main(str(source), str(target))
    assert target.read_text() == source.read_text() and "0 features" in capsys.readouterr().out

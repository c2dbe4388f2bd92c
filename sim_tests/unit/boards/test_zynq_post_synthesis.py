"""What the models of the cells refuse, and what is filled in where a netlist leaves something open."""
import pytest

from boards.zynq.post_synthesis import model_block_ram, model_cells

#: Input pins of a RAMB18E1 that the model looks at, and their bits.
PINS = {"CLKARDCLK": 1, "CLKBWRCLK": 1, "ENARDEN": 1, "ENBWREN": 1, "RSTRAMARSTRAM": 1, "RSTRAMB": 1,
        "ADDRARDADDR": 14, "ADDRBWRADDR": 14, "DIADI": 16, "DIBDI": 16, "DIPADIP": 2, "DIPBDIP": 2, "WEA": 2,
        "WEBWE": 4}
OUTPUTS = {"DOADO": 16, "DOBDO": 16, "DOPADOP": 2, "DOPBDOP": 2}


def ram(**changes):
    """A RAMB18E1 that reads on port A and writes on port B; every pin has nets of its own but clock and resets."""
    nets = iter(range(100, 1000))
    pins = {pin: [next(nets) for _ in range(width)] for pin, width in (PINS | OUTPUTS).items()}
    pins |= {"CLKARDCLK": [2], "CLKBWRCLK": [2], "RSTRAMARSTRAM": ["0"], "RSTRAMB": ["0"]}
    parameters = {"DOA_REG": 0, "DOB_REG": 0, "READ_WIDTH_A": 36, "READ_WIDTH_B": 0, "WRITE_WIDTH_A": 0,
                  "WRITE_WIDTH_B": 36, "RAM_MODE": "SDP", "WRITE_MODE_A": "READ_FIRST", "WRITE_MODE_B": "READ_FIRST"}
    parameters |= {name: value for name, value in changes.items() if name not in pins}
    parameters = {name: value if isinstance(value, str) else f"{value:032b}" for name, value in parameters.items()}
    parameters |= {f"INIT_{n:02X}": f"{n:0256b}" for n in range(64)} | {f"INITP_{n:02X}": "x" * 256 for n in range(8)}
    pins |= {name: value for name, value in changes.items() if name in pins}
    return {"type": "RAMB18E1", "parameters": parameters, "connections": pins, "attributes": {},
            "port_directions": {pin: "output" if pin in OUTPUTS else "input" for pin in pins}}


def test_simple_dual_port_joins_the_pins_of_both_ports():
    cell = ram()
    model, pins = model_block_ram("m", cell), cell["connections"]
    joined = model["connections"]
    assert joined["i"] == [bit for port in "AB" for n in (0, 1) for bit in
                           (*pins[f"DI{port}DI"][8 * n:8 * n + 8], pins[f"DIP{port}DIP"][n])]
    assert joined["o"][27:36] == [*pins["DOBDO"][8:], pins["DOPBDOP"][1]]
    assert joined["read_address"] == pins["ADDRARDADDR"][3:] and joined["write_byte"] == pins["WEBWE"]
    assert model["parameters"]["READ_BYTES"] == f"{4:032b}" and model["parameters"]["BYTES"] == f"{2048:032b}"
    assert model["parameters"]["INIT"] == "".join(f"{n:0256b}" for n in reversed(range(64)))


def test_true_dual_port_takes_the_pins_of_the_ports_that_are_used():
    cell = ram(RAM_MODE="TDP", READ_WIDTH_A=0, READ_WIDTH_B=18, WRITE_WIDTH_A=9, WRITE_WIDTH_B=0)
    model, pins = model_block_ram("m", cell)["connections"], cell["connections"]
    assert model["i"] == [*pins["DIADI"][:8], pins["DIPADIP"][0]] and model["write"] == pins["ENARDEN"]
    assert model["o"] == [*pins["DOBDO"][:8], pins["DOPBDOP"][0], *pins["DOBDO"][8:], pins["DOPBDOP"][1]]
    assert model["write_address"] == pins["ADDRARDADDR"][3:] and model["write_byte"] == pins["WEA"][:1]


@pytest.mark.parametrize("change, sentence", [
    ({"DOA_REG": 1}, "DOA_REG is 1"), ({"WRITE_MODE_B": "WRITE_FIRST"}, "WRITE_MODE_B is WRITE_FIRST"),
    ({"READ_WIDTH_A": 4}, "READ_WIDTH_A is 4"), ({"INIT_A": 5}, "INIT_A is 5"),
    ({"IS_ENARDEN_INVERTED": 1}, "IS_ENARDEN_INVERTED is 1"),
    ({"READ_WIDTH_A": 18}, "SDP that does not read on port A and write on port B with the full width"),
    ({"READ_WIDTH_B": 36}, "does not read on one port and write on the other"),
    ({"CLKBWRCLK": [3]}, "different clocks"), ({"RSTRAMARSTRAM": [7]}, "RSTRAMARSTRAM is not constant 0")])
def test_other_modes_are_refused(change, sentence):
    with pytest.raises(ValueError, match=f"RAMB18E1 m: .*{sentence}.*block_ram.v does not model that"):
        model_block_ram("m", ram(**change))


def design(cell, ports):
    library = {cell["type"]: {"ports": {name: {"direction": direction, "bits": list(range(2, 2 + width))}
                                        for name, (direction, width) in ports.items()}}}
    return {"modules": {"top": {"cells": {"cell": cell}, "ports": {}}} | library}


def test_pins_of_hard_blocks_without_a_net_read_1():
    cell = {"type": "DSP48E1", "parameters": {}, "connections": {"A": [5]}, "port_directions": {"A": "input"}}
    made = model_cells(design(cell, {"A": ("input", 1), "C": ("input", 3), "P": ("output", 4)}), 0)
    assert made["modules"]["top"]["cells"]["cell"]["connections"] == {"A": [5], "C": ["1", "1", "1"]}
    assert list(made["modules"]) == ["top"] and cell["connections"] == {"A": [5]}


def test_what_is_undefined_is_random_and_fixed_by_the_seed():
    cell = {"type": "FDRE", "parameters": {"INIT": "x" * 64, "TEXT": "xor"}, "connections": {"D": ["x"] * 64},
            "port_directions": {"D": "input"}}
    first, second, third = (model_cells(design(cell, {}), seed)["modules"]["top"]["cells"]["cell"]
                            for seed in (1, 1, 2))
    assert first == second != third
    assert set(first["parameters"]["INIT"]) == set(first["connections"]["D"]) == {"0", "1"}
    assert first["parameters"]["TEXT"] == "xor"

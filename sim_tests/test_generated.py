import re
import subprocess
from shutil import which

import pytest

from hw.descriptor import FIELDS
from hw.generate_registers import HEADER, ROOT, generate, main
from hw.registers import COUNTERS, ERRORS, REGISTERS


def test_generated_files_are_current():
    assert main(["--check"]) == 0


def test_check_finds_a_stale_and_a_missing_file(tmp_path, capsys):
    assert main(["--check"], root=tmp_path) == 1
    assert main([], root=tmp_path) == 0
    assert main(["--check"], root=tmp_path) == 0
    with open(tmp_path / HEADER, "a") as file:
        file.write("\n")
    assert main(["--check"], root=tmp_path) == 1
    assert HEADER in capsys.readouterr().err


def test_generation_is_deterministic_and_names_no_path():
    assert generate() == generate()
    for path, text in generate().items():
        assert str(ROOT) not in text and text.endswith("\n") and not text.endswith("\n\n"), path


def test_header_values_agree_with_the_description():
    defines = dict(re.findall(r"^#define (\w+) (\w+)", generate()[HEADER], re.M))
    defines = {name: int(value.rstrip("u"), 0) for name, value in defines.items()}
    for register in REGISTERS:
        assert defines[f"ZEROSKIP_{register.name.upper()}_OFFSET"] == register.offset
        for field in register.fields:
            name = f"ZEROSKIP_{register.name}_{field.name}".upper()
            assert defines[f"{name}_MASK"] == field.mask == ((1 << field.width) - 1) << defines[f"{name}_SHIFT"]
    for name, (code, _) in ERRORS.items():
        assert defines[f"ZEROSKIP_ERROR_{name.upper()}"] == code
    for index, (name, _) in enumerate(COUNTERS):
        assert defines[f"ZEROSKIP_COUNTER_{name.upper()}"] == index
    for field in FIELDS[1:]:
        assert defines[f"ZEROSKIP_DESCRIPTOR_{field.name.upper()}"] == field.word


def test_header_names_are_unique():
    names = re.findall(r"^#define (\w+) ", generate()[HEADER], re.M)
    assert len(names) == len(set(names))


@pytest.mark.skipif(which("gcc") is None, reason="no C compiler")
def test_header_compiles(tmp_path):
    (tmp_path / "main.c").write_text('#include "zeroskip_regs.h"\n#include "zeroskip_regs.h"\n'
                                     '_Static_assert(ZEROSKIP_STATUS_DONE_MASK == 2u, "mask");\n'
                                     "int main(void) { return 0; }\n")
    (tmp_path / "zeroskip_regs.h").write_text(generate()[HEADER])
    command = ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "main.c"]
    subprocess.run(command, cwd=tmp_path, check=True)

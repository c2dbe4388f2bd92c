"""Configurations by name and from a file; docs/configuration.md."""
import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import pytest

from hw.config import AcceleratorConfig
from hw.configs import CONFIGS, get_config

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
MINE = asdict(CONFIGS["tiny"]) | {"name": "mine", "groups": 3}
SNAPEA = asdict(CONFIGS["tiny_snapea"]) | {"name": "mine"}


def write(folder, content):
    path = folder / "mine.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_names_and_files(tmp_path):
    assert get_config("tiny") is CONFIGS["tiny"]
    assert get_config(write(tmp_path, MINE)) == AcceleratorConfig(**MINE)
    assert get_config(write(tmp_path, asdict(CONFIGS["small"]))) == CONFIGS["small"]
    short = {name: value for name, value in MINE.items() if name not in ("array", "clusters", "pes", "max_burst")}
    assert get_config(write(tmp_path, short)) == AcceleratorConfig(**MINE)


@pytest.mark.parametrize(("content", "sentence"), [
    ("", "mine.json is not JSON: a configuration is an object such as"),
    ("{'name': 1}", "mine.json is not JSON"),
    ("[" * 100_000, "mine.json is not JSON"),
    ("[1]", "mine.json holds no JSON object"),
    ({**MINE, "lane": 3, "x": 1}, "mine.json has an unknown 'lane', has an unknown 'x'; its fields are name, value_"),
    ({name: value for name, value in MINE.items() if name != "drain"}, "mine.json has no drain; its fields are"),
    ({**MINE, "groups": "2"}, "mine.json cannot be built: groups must be a positive integer, not '2'"),
    ({**MINE, "groups": 2.0}, "groups must be a positive integer, not 2.0"),
    ({**MINE, "groups": True}, "groups must be a positive integer, not True"),
    ({**MINE, "lanes": 24}, "lanes must be a multiple of block"),
    ({**MINE, "array": "systolic"}, "array must be broadcast or intersect, not 'systolic'"),
    ({**MINE, "array": 1}, "array must be broadcast or intersect, not 1"),
    ({**MINE, "block": 64, "lanes": 64}, "block must be one of (16, 32) in the broadcast array, not 64"),
    ({**MINE, "pes": 2}, "clusters and pes are 1 in the broadcast array, not 1 and 2"),
    ({**SNAPEA, "block": 8}, "block must be one of (16, 32, 64) in the intersect array, not 8"),
    ({**SNAPEA, "value_width": 16}, "value_width must be 8 in the intersect array, not 16"),
    ({**SNAPEA, "clusters": 3}, "clusters must divide drain (4), not be 3"),
    ({**SNAPEA, "pes": 9}, "pes must be at most 8, not 9"),
    ({**SNAPEA, "lanes": 48}, "lanes must be a power of two in the intersect array, not 48"),
    ({**SNAPEA, "sum_windows": 33}, "sum_windows must be a power of two in the intersect array, not 33"),
    ({**SNAPEA, "weight_depth": 96}, "weight_depth must be 7 to 256 blocks (16) in the intersect array, not 96"),
    ({**SNAPEA, "weight_depth": 168}, "weight_depth must be 7 to 256 blocks (16) in the intersect array, not 168"),
    ({**SNAPEA, "weight_depth": 4112}, "weight_depth must be 7 to 256 blocks (16) in the intersect array, not 4112"),
    ({**MINE, "name": 5}, "name must be an identifier, not 5"),
    ({**MINE, "name": "../x"}, "name must be an identifier"),
    ({**MINE, "name": "tiny"}, "is called 'tiny', as another one is (hw/configs.py); give it another name"),
])
def test_a_file_that_is_no_configuration_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        get_config(write(tmp_path, content))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "sentence"), [
    ("big", "there is no configuration 'big'; choose one of tiny, small"),
    ("none.json", "none.json cannot be read: No such file or directory"),
    ("./", ". cannot be read: Is a directory"),
    ("", "there is no configuration ''"),
])
def test_a_name_that_is_none_is_one_sentence(name, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        get_config(name)


def test_sizes_of_the_intersect_array():
    config = CONFIGS["snapea"]
    assert (config.group_multipliers, config.total_lanes, config.cluster_lanes) == (16, 64, 16)
    assert (config.weight_words, config.block_groups, config.slot_bytes) == (9, 8, 512)
    assert CONFIGS["tiny"].total_lanes == 32 == 2 * CONFIGS["tiny"].group_multipliers


def test_the_page_says_what_the_code_says():
    """Each field's row of the table is its paragraph of the docstring; the example can be built."""
    text = PAGE.read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.MULTILINE))
    section = AcceleratorConfig.__doc__.split("----------")[1].split("Raises")[0]
    paragraphs = re.findall(r"^    (\w+) : \w+\n((?:        .*\n)+)", section, re.MULTILINE)
    documented = {name: " ".join(lines.split()).replace("``", "`") for name, lines in paragraphs}
    assert rows == documented and list(rows) == [field.name for field in fields(AcceleratorConfig)]
    example = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL)[1])
    assert AcceleratorConfig(**example).name == "mine"

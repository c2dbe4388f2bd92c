"""Counting of cells after synthesis."""
from boards.resources import count_cells, summarise
from hw.config import AcceleratorConfig
from hw.configs import CONFIGS, get_config

STAT = """
=== top ===

     9643 wires
       42   $scopeinfo
       32   DSP48E1
     4704   FDRE
        3   FDSE
      274   LUT2
      244   LUT6
       56   RAM32M
       23   RAMB36E1
        3   RAMB18E1

   Estimated number of LCs:       3879
"""


def test_cells_are_counted_by_type_and_nothing_else():
    assert count_cells(STAT) == {"DSP48E1": 32, "FDRE": 4704, "FDSE": 3, "LUT2": 274, "LUT6": 244, "RAM32M": 56,
                                 "RAMB36E1": 23, "RAMB18E1": 3}


def test_memories_in_luts_count_as_luts_and_half_block_rams_as_halves():
    assert summarise(count_cells(STAT)) == (274 + 244 + 4 * 56, 4707, 32, 24.5)


def test_names_of_configurations_are_their_keys():
    assert all(isinstance(config, AcceleratorConfig) and get_config(name) is config
               for name, config in CONFIGS.items())

"""Named configurations. ``CONFIG=`` of every make target takes one of these names, or a file (docs/configuration.md).
"""
import json
from dataclasses import MISSING, fields
from pathlib import Path

from .config import AcceleratorConfig

CONFIGS = {config.name: config for config in (
    # For CI and for reading waveforms.
    AcceleratorConfig("tiny", value_width=8, groups=2, lanes=16, block=16, drain=4,
                      weight_depth=160, tile_slots=32, sum_windows=32, pool_columns=8),
    # xc7z010: 64 8-bit lanes in 32 packed DSPs.
    AcceleratorConfig("small", value_width=8, groups=2, lanes=32, block=32, drain=4,
                      weight_depth=512, tile_slots=64, sum_windows=128, pool_columns=16),
    # xc7z020: 384 8-bit lanes in 192 packed DSPs.
    AcceleratorConfig("default", value_width=8, groups=6, lanes=64, block=32, drain=8,
                      weight_depth=512, tile_slots=32, sum_windows=64, pool_columns=16),
    # NullHop's 128 lanes and 2304 16-bit weights a lane, for comparison with the paper.
    AcceleratorConfig("nullhop", value_width=16, groups=2, lanes=64, block=32, drain=8,
                      weight_depth=1152, tile_slots=192, sum_windows=256, pool_columns=32),
    # 64 PEs, as many as SnaPEA.
    AcceleratorConfig("snapea", value_width=8, groups=4, lanes=64, block=64, drain=16, weight_depth=576, tile_slots=32,
                      sum_windows=256, pool_columns=16, array="intersect", clusters=4, pes=4),
    # The same with more memory: a PE has twice the weights of 32 kernels in place of 16, tiles of 4 times the size.
    AcceleratorConfig("snapea_wide", value_width=8, groups=8, lanes=64, block=64, drain=16, weight_depth=1152,
                      tile_slots=128, sum_windows=128, pool_columns=16, array="intersect", clusters=2, pes=4),
    AcceleratorConfig("tiny_snapea", value_width=8, groups=2, lanes=16, block=16, drain=4, weight_depth=160,
                      tile_slots=32, sum_windows=32, pool_columns=8, array="intersect", clusters=2, pes=2),
)}


def get_config(name: str) -> AcceleratorConfig:
    """The configuration called ``name``, or the one in the JSON file ``name`` (:func:`load_config`).

    Raises
    ------
    ValueError
        There is neither, or the file does not hold a configuration: one sentence.
    """
    if name in CONFIGS:
        return CONFIGS[name]
    if name.endswith(".json") or "/" in name:
        return load_config(Path(name))
    raise ValueError(f"there is no configuration {name!r}; choose one of {', '.join(CONFIGS)}, or give a .json file")


def load_config(path: Path) -> AcceleratorConfig:
    """The configuration in ``path``, a JSON object with the fields of ``AcceleratorConfig``; those that have a default
    may be left out.

    Its name must not be that of another configuration in this module, for results are kept by name.

    Raises
    ------
    ValueError
        One sentence that names the file, the field and what to do.
    """
    known = [field.name for field in fields(AcceleratorConfig)]
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise ValueError(f"the configuration {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is not JSON: a configuration is an object such as {{\"name\": \"mine\", "
                         f"\"value_width\": 8, ...}} (docs/configuration.md)") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no JSON object: a configuration is one, with the fields {', '.join(known)}")
    wrong = [f"has no {field.name}" for field in fields(AcceleratorConfig)
             if field.default is MISSING and field.name not in content]
    wrong += [f"has an unknown {name!r}" for name in content if name not in known]
    if wrong:
        raise ValueError(f"the configuration {path} {', '.join(wrong)}; its fields are {', '.join(known)}")
    try:
        config = AcceleratorConfig(**content)
    except ValueError as error:
        raise ValueError(f"the configuration {path} cannot be built: {error}") from None
    if CONFIGS.get(config.name, config) != config:
        raise ValueError(f"the configuration {path} is called {config.name!r}, as another one is (hw/configs.py); give "
                         f"it another name")
    return config

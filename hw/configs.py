"""Named configurations. ``CONFIG=`` of every make target takes one of these names."""
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
)}


def get_config(name: str) -> AcceleratorConfig:
    """The configuration called ``name``; ``ValueError`` lists the names if there is none."""
    if name not in CONFIGS:
        raise ValueError(f"there is no configuration {name!r}; choose one of {', '.join(CONFIGS)}")
    return CONFIGS[name]

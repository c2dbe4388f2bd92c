"""Accesses by kind, and an energy proxy: what each costs, by published figures.

Source: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014: 45 nm, 0.9 V.
"""
from hw.config import BEAT, UNPACKED, AcceleratorConfig

#: What is counted for each layer besides the counters of the hardware. In the intersect array the buffers of tiles and
#: weights are the memories of the PEs, each with its own copy; a product reads a beat of weights and ``UNPACKED``
#: values.
ACCESSES = {
    "multiplications": "products of a weight and a non-zero activation",
    "weight_reads": "weights read from weight buffers: one for each lane of a group and non-zero activation; "
                    "intersect: beats",
    "weight_writes": "beats written to weight buffers, each counted once for each group; intersect: for each PE that "
                     "has the lane, map words too",
    "map_reads": "sparsity map words read from tile buffers; intersect: phase map words too",
    "map_writes": "sparsity map words written to tile buffers, each counted once for each group",
    "value_reads": "beats read from tile buffers: one for each non-zero activation",
    "value_writes": "beats of values written to tile buffers, each counted once for each group",
    "sum_reads": "partial sums read",
    "sum_writes": "partial sums written",
    "dram_reads": "beats read from DRAM",
    "dram_writes": "beats written to DRAM",
}
#: Picojoules of a multiplication (the source has 8 and 32 bits: 0.2 and 3.1; 16 bits: four times 8), of an addition of
#: 32 bits, of 64 bits from or to an 8 KiB memory, and of a beat of 64 bits from or to DRAM (the source: 1300 to 2600).
ENERGY = {"multiply_8": 0.2, "multiply_16": 0.8, "add_32": 0.1, "sram_64": 10.0, "dram_64": 1300.0}


def energy(accesses: dict[str, int], config: AcceleratorConfig) -> dict[str, float]:
    """Picojoules of each kind of ``accesses`` (of a layer, or a sum of several), and of all: ``total``.

    A proxy to compare layers, tilings and configurations with: control, clock, postprocessing and leakage are not in
    it, every buffer counts as one of 8 KiB, and an access of fewer than 64 bits as its share.
    """
    sram = ENERGY["sram_64"] / BEAT
    bits = {"weight_reads": config.value_width, "map_reads": config.block, "map_writes": config.block,
            "sum_reads": config.sum_width, "sum_writes": config.sum_width,
            **dict.fromkeys(("weight_writes", "value_reads", "value_writes"), BEAT)}
    if config.intersect:
        bits |= {"weight_reads": BEAT, "value_reads": UNPACKED * config.value_width}
    cost = {name: sram * width for name, width in bits.items()}
    cost["multiplications"] = ENERGY[f"multiply_{config.value_width}"] + ENERGY["add_32"] * config.sum_width / 32
    cost["dram_reads"] = cost["dram_writes"] = ENERGY["dram_64"]
    spent = {name: accesses[name] * cost[name] for name in ACCESSES}
    return spent | {"total": sum(spent.values())}

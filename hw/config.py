"""The one configuration object: what the generator builds, what golden, compiler and boards assume.

Source: docs/architecture.md, "Parameters".
"""
import zlib
from dataclasses import dataclass, fields

#: Pixels of one row that share a slot of the compressed map (golden/README.md, "Compressed feature map").
SEGMENT = 4
#: Channels of a word that are unpacked in a cycle for the intersect array.
UNPACKED = 16
#: Phases of the weights that may share a round in the intersect array.
ROUND_PHASES = 4
#: Width of the AXI4 data bus in bits; one transfer of it is a beat.
BEAT = 64
#: Widths, in bits, of the quantities that a descriptor carries. They bound what the hardware can run.
ROW_BITS = COLUMN_BITS = 12
CHANNEL_BITS = 13
LOCAL_BITS = 8
#: Requantisation: unsigned multiplier and shift (golden/README.md, "Requantisation").
SCALE_BITS = 16
SHIFT_BITS = 6


def is_power_of_two(number: int) -> bool:
    return number > 0 and number & (number - 1) == 0


@dataclass(frozen=True)
class AcceleratorConfig:
    """Parameters of one accelerator, checked on construction.

    Parameters
    ----------
    name : str
        Name of the configuration: letters, digits and underscores.
    value_width : int
        Bits of an activation and of a weight: 8 (two lanes share a DSP) or 16.
    groups : int
        Groups, 1 to 16. Each walks its own windows.
    lanes : int
        Lanes of a group, each with its own kernel; a multiple of ``block``.
    block : int
        Channels of one sparsity map word, 16 or 32; with the intersect array also 64.
    drain : int
        Sums that leave a group, and values that leave postprocess, in a cycle. A power of two; divides ``block``.
    weight_depth : int
        Weights of one lane in one half of its double buffer: taps x channels of a chunk, at least 49. The intersect
        array counts whole blocks of channels.
    tile_slots : int
        Input slots (``SEGMENT`` pixels x ``block`` channels) of one half of the tile buffer.
    sum_windows : int
        Windows whose partial sums a group keeps between chunks.
    pool_columns : int
        Pooled columns of a tile that the pooling row buffer holds.
    max_burst : int
        Beats of the longest AXI burst, a power of two up to 256.
    array : str
        ``broadcast``: a non-zero activation at a time for all lanes of a group (NullHop). ``intersect``: processing
        elements (PEs) that each multiply what is non-zero in activations and weights, and stop early (SnaPEA). It has
        8-bit values.
    clusters : int
        Intersect array: clusters of a group; a cluster has every ``clusters``-th lane. Divides ``drain``.
    pes : int
        Intersect array: PEs of a cluster, 1 to 8. They share its lanes.

    Raises
    ------
    ValueError
        A sentence that names the parameter and its value.
    """

    name: str
    value_width: int
    groups: int
    lanes: int
    block: int
    drain: int
    weight_depth: int
    tile_slots: int
    sum_windows: int
    pool_columns: int = 32
    max_burst: int = 16
    array: str = "broadcast"
    clusters: int = 1
    pes: int = 1

    def __post_init__(self):
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            if field.name == "array":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{field.name} must be a positive integer, not {value!r}")
        if not isinstance(self.name, str) or not self.name.isidentifier() or not self.name.isascii():
            raise ValueError(f"name must be an identifier, not {self.name!r}")
        if self.value_width not in (8, 16):
            raise ValueError(f"value_width must be 8 or 16, not {self.value_width}")
        if self.groups > 16:
            raise ValueError(f"groups must be at most 16, not {self.groups}")
        if self.array not in ("broadcast", "intersect"):
            raise ValueError(f"array must be broadcast or intersect, not {self.array!r}")
        blocks = (16, 32, 64) if self.intersect else (16, 32)
        if self.block not in blocks:
            raise ValueError(f"block must be one of {blocks} in the {self.array} array, not {self.block}")
        if self.lanes % self.block or self.lanes > 256:
            raise ValueError(f"lanes must be a multiple of block ({self.block}) up to 256, not {self.lanes}")
        if not is_power_of_two(self.drain) or not 4 <= self.drain <= 16:
            raise ValueError(f"drain must be 4, 8 or 16, not {self.drain}")
        if not 49 <= self.weight_depth <= 16384:
            raise ValueError(f"weight_depth must be 49 to 16384, not {self.weight_depth}")
        if not 16 <= self.tile_slots <= 4096:
            raise ValueError(f"tile_slots must be 16 to 4096, not {self.tile_slots}")
        if self.sum_windows > 4096:
            raise ValueError(f"sum_windows must be at most 4096, not {self.sum_windows}")
        if not 4 <= self.pool_columns <= 128:
            raise ValueError(f"pool_columns must be 4 to 128, not {self.pool_columns}")
        if not is_power_of_two(self.max_burst) or self.max_burst > 256:
            raise ValueError(f"max_burst must be a power of two up to 256, not {self.max_burst}")
        if self.intersect:
            self._check_intersect()
        elif self.clusters != 1 or self.pes != 1:
            raise ValueError(f"clusters and pes are 1 in the broadcast array, not {self.clusters} and {self.pes}")

    def _check_intersect(self):
        if self.value_width != 8:
            raise ValueError(f"value_width must be 8 in the intersect array, not {self.value_width}")
        if self.drain % self.clusters:
            raise ValueError(f"clusters must divide drain ({self.drain}), not be {self.clusters}")
        if self.pes > 8:
            raise ValueError(f"pes must be at most 8, not {self.pes}")
        for name in ("lanes", "sum_windows"):
            if not is_power_of_two(getattr(self, name)):
                raise ValueError(f"{name} must be a power of two in the intersect array, not {getattr(self, name)}")
        if self.weight_depth % self.block or not 7 <= self.weight_words <= 256:
            raise ValueError(f"weight_depth must be 7 to 256 blocks ({self.block}) in the intersect array, not "
                             f"{self.weight_depth}")

    @property
    def configuration_id(self) -> int:
        """CRC-32 of ``parameter=value`` of all parameters but the name, comma separated: register ``configuration``."""
        text = ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self)[1:])
        return zlib.crc32(text.encode())

    @property
    def intersect(self) -> bool:
        return self.array == "intersect"

    @property
    def group_multipliers(self) -> int:
        """Multiplications that a group can do in a cycle: its lanes, or the PEs of all its clusters."""
        return self.clusters * self.pes if self.intersect else self.lanes

    @property
    def total_lanes(self) -> int:
        """Multiplications that the array can do in a cycle."""
        return self.groups * self.group_multipliers

    @property
    def cluster_lanes(self) -> int:
        """Lanes of a cluster: lane ``slot * clusters + cluster`` is its lane ``slot``."""
        return self.lanes // self.clusters

    @property
    def weight_words(self) -> int:
        """Phase map words of a lane in one half of the weight buffer of the intersect array."""
        return self.weight_depth // self.block

    @property
    def block_groups(self) -> int:
        """Groups of 8 channels, a beat of dense values, in a block."""
        return self.block // 8

    @property
    def units(self) -> int:
        """Multipliers (DSP slices) of a group: a pair of 8-bit lanes shares one."""
        return self.lanes // self.lanes_per_unit

    @property
    def lanes_per_unit(self) -> int:
        return 2 if self.value_width == 8 else 1

    @property
    def units_per_beat(self) -> int:
        """Multipliers whose weights one beat carries: 4 in both modes."""
        return BEAT // self.value_width // self.lanes_per_unit

    @property
    def unit_weight_width(self) -> int:
        """Bits a multiplier's weight memory stores for an address: 9 + 8 for a packed pair, else 16."""
        return 17 if self.value_width == 8 else 16

    @property
    def lane_sum_width(self) -> int:
        """Bits of a lane's accumulator: holds any sum of ``weight_depth`` products."""
        return 2 * self.value_width - 1 + (self.weight_depth - 1).bit_length() + 1

    @property
    def sum_width(self) -> int:
        """Bits of a partial sum across chunks, and of a bias: 32 in 8-bit mode, 48 in 16-bit mode."""
        return 32 if self.value_width == 8 else 48

    @property
    def values_per_beat(self) -> int:
        return BEAT // self.value_width

    @property
    def slot_values(self) -> int:
        """Values that a full slot holds."""
        return SEGMENT * self.block

    @property
    def map_beats(self) -> int:
        """Beats of the sparsity map words at the start of a slot."""
        return self.slot_values // BEAT

    @property
    def value_beats(self) -> int:
        """Beats of the values of a full slot."""
        return self.slot_values // self.values_per_beat

    @property
    def slot_bytes(self) -> int:
        """Distance between slots in DRAM: the next power of two, so that no slot crosses a 4 KiB boundary."""
        return 1 << ((self.map_beats + self.value_beats) * BEAT // 8 - 1).bit_length()

    @property
    def window_words(self) -> int:
        """Words of ``drain`` sums that one window of all lanes takes."""
        return self.lanes // self.drain

    @property
    def joined_words(self) -> int:
        """Words of sums that wait in the intersect array for the collector, for each group: those of two windows, so
        that a window's words are joined while other groups have their turn."""
        return 2 * self.window_words

    @property
    def block_words(self) -> int:
        """Words of ``drain`` values in one block of channels."""
        return self.block // self.drain

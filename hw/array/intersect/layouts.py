"""Layouts inside of a cluster of the intersect array."""
from amaranth.hdl import signed, unsigned
from amaranth.lib import data

from ...config import BEAT, ROUND_PHASES, SEGMENT, AcceleratorConfig

#: Kernel rows and columns at most.
TAPS = 7


def own_lanes(c: AcceleratorConfig, lanes, cluster: int):
    """How many of the first ``lanes`` lanes, a value, are those of ``cluster``: ``slot * clusters + cluster``."""
    return (lanes + (c.clusters - 1 - cluster)) >> (c.clusters - 1).bit_length()


def tile_address(c: AcceleratorConfig):
    """Of a pixel and block in the tile memories: ``(half * tile_slots + slot) * SEGMENT + pixel``."""
    return range(2 * c.tile_slots * SEGMENT)


def word_address(c: AcceleratorConfig):
    """Of a word of weights: ``(half * cluster_lanes + slot) * weight_words + word``."""
    return range(2 * c.cluster_lanes * c.weight_words)


def map_address(c: AcceleratorConfig):
    """Of a phase map: ``(half * cluster_lanes + slot) * ROUND_PHASES * weight_words + phase * words + word``."""
    return range(2 * c.cluster_lanes * ROUND_PHASES * c.weight_words)


def sum_address(c: AcceleratorConfig):
    """Of a partial sum of a cluster: ``window * cluster_lanes + slot``."""
    return range(c.sum_windows * c.cluster_lanes)


def window(c: AcceleratorConfig) -> data.StructLayout:
    """A window: ``address`` (modulo its width) of the pixel under tap (0, 0) and block 0, padding or not. Bit n of
    ``rows``, ``columns``: kernel row, column n lies inside of the loaded tile."""
    return data.StructLayout({"address": tile_address(c), "rows": unsigned(TAPS), "columns": unsigned(TAPS)})


def offset(c: AcceleratorConfig) -> data.StructLayout:
    """Where word n of a kernel lies from the window's ``address`` on, and at which tap; ``last`` word of the kernel."""
    return data.StructLayout({"address": tile_address(c), "row": range(TAPS), "column": range(TAPS), "last": 1})


def offset_write(c: AcceleratorConfig) -> data.StructLayout:
    """``address = table * 2**n + word``."""
    return data.StructLayout({"table": 1, "word": range(c.weight_words), "offset": offset(c)})


def word_map(c: AcceleratorConfig) -> data.StructLayout:
    """Which weights of a word belong to a phase of the round."""
    return data.StructLayout({"address": map_address(c), "map": unsigned(c.block)})


def word_values(c: AcceleratorConfig) -> data.StructLayout:
    """The weights of channels ``8 * group`` .. + 7 of the word at ``address``, each in its place."""
    return data.StructLayout({"address": word_address(c), "group": range(c.block_groups), "values": unsigned(BEAT)})


def task(c: AcceleratorConfig) -> data.StructLayout:
    """A window and a lane: the sum so far, to which the products of a round are added.

    ``word``: address of the lane's first word of weights. ``table``: which table of offsets holds. ``joined``: phases
    of the round, less one; ``stop_part``: the first of them with the stop rule.
    """
    return data.StructLayout({"window": window(c), "word": word_address(c), "table": 1, "signed": 1,
                              "joined": range(ROUND_PHASES), "stop_part": unsigned(3), "sum": signed(c.sum_width)})


def partial(c: AcceleratorConfig) -> data.StructLayout:
    """A sum between rounds; ``dead``: it is final, and its output 0."""
    return data.StructLayout({"sum": signed(c.sum_width), "dead": 1})


def result(c: AcceleratorConfig) -> data.StructLayout:
    """The sum of a task; ``parity`` counts the tasks of a PE."""
    return data.StructLayout({"parity": 1, "partial": partial(c)})

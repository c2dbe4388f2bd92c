"""What the parts of the model remember between clock edges: records of integers, one dtype for each part.

A name that is also a register of the RTL means the same. Queues whose words carry no data are only their level; others
are rings with a running number of the next word in and out. ``*_at`` is a clock cycle.
"""
import hashlib
from pathlib import Path

import numpy as np

from hw.descriptor import FIELDS

#: How numba compiles the model. Nothing is allocated, so that arrays need no counts of references: with them, it takes
#: three times as long.
OPTIONS = {"error_model": "numpy", "_nrt": False}
#: Depth of the queues of jobs, and of the ring that keeps the jobs that are somewhere.
JOB_DEPTH, JOBS = 4, 256
#: A cycle that does not come.
NEVER = 1 << 62
#: Bursts in flight on each side of the bus; entries of a ring of bursts.
MAX_BURSTS, BURSTS = 16, 32
#: Bursts of writes whose address is ahead of their data (hw/bus/axi_writer.py).
MAX_AHEAD = 8
#: Entries of a ring of slots: a power of two, more than the tile loader or an encoder has of them.
SLOTS = 64
#: hw/array/broadcast/window_walker.py, ``WINDOWS``; word_filter.py, ``QUEUE_DEPTH``.
WINDOWS, QUEUE_DEPTH = 8, 16
#: Windows whose sums may wait in a group: a power of two above ``4 * lanes / block``.
ENDS = 128
#: Words inside of the requantiser (hw/postprocess/requantise.py, ``DEPTH``).
REQUANTISE_DEPTH = 16


def record(*names: str, **rings: int | tuple[int, ...]) -> np.dtype:
    """The dtype of a part with registers ``names`` and ``rings`` of the shapes given."""
    return np.dtype([(name, np.int64) for name in names] + [(name, np.int64, shape) for name, shape in rings.items()])


#: Numba keeps compiled code as long as the file of the outermost function and the types of its arguments stay the same
#: (numba/numba#8396). With this in a type it is compiled again when any file with compiled functions changes.
SOURCES = hashlib.sha256(b"".join(
    Path(__file__).parent.joinpath(f"{name}.py").read_bytes()
    for name in ("bus", "cluster", "control", "element", "group", "intersect", "load", "machine", "post", "rounds",
                 "state", "../tasks"))).hexdigest()
#: Constants of a run: configuration, memory, registers.
RUN = record("groups", "lanes", "block", "drain", "max_burst", "values_per_beat", "map_beats", "block_words", "slots",
             "setup", "capacity", "sums_latency", "clusters", "pes", "cluster_lanes", "sum_windows", "joins",
             "joined_words", "parts", "read_latency", "write_latency", "cycles_per_beat", "descriptor_address",
             "log_address", "layers", f"sources_{SOURCES[:16]}")
#: A layer: its descriptor, and where its counts begin in the arrays of all layers.
LAYER = record(*(field.name for field in FIELDS), "words_at", "slots_at", "full_at", "pool_at", "in_segments",
               "full_segments", "full_rows", "pool_segments", "pool_rows", "dense_beats", "x_at", "x_columns",
               "in_blocks", "maps_at", "bias_at", "beats_at")
#: A tile and chunk: load job, group job and collect job in one. Input coordinates are those of the map.
JOB = record("rows", "columns", "y", "x", "row_first", "column_first", "in_rows", "segment", "segments", "row",
             "blocks", "block", "out_block", "kernel_rows", "kernel_columns", "first_chunk", "last_chunk",
             "pass_first", "weights_first", "weights_last", "scales_first", "scales_last", "lanes", "words",
             "phase", "joined", "stop_part", "kernel_row", "stop", "predict")
#: A client of the bus: the rest of its request, and the burst that waits to be issued.
PORT = record("active", "place", "left", "burst", "burst_beats", "ready")
#: One side of the bus: scheduler, bursts on their way to the memory, the memory, a register of beats.
BUS = record("asked", "later", "in_flight", "out", "out_in", "bursts_in", "bursts_out", "address_ready", "valid",
             "client", "last", "next_beat", "beats", "beat_in", "order_in", "order_out", "sent", "complete",
             "data_ready", "answer", "total", outs=(2, 2), bursts=(BURSTS, 3), words=(2, 2), order=(MAX_AHEAD, 2))
CONTROL = record("reader", "reader_wait", "reader_beat", "reader_upper", "offered", "served", "state", "wait", "layer",
                 "jobs_in", "job_ready", "pending", "moved", "group_served", "channels_done", "channel",
                 "row", "phase", "y", "x", "pass_y", "pass_x", "tile", "log", "log_asking", "log_beat", "load_in",
                 "load_out", "collect_in", "collect_out", "push_load", "push_groups", "push_collect", "map_end",
                 "pass_end", "last_rows", "last_channels", collects=JOBS)
#: A double buffer: bit n is consumer n; pulses of this cycle act at its end.
BUFFER = record("fill_half", "half", "release_half", "untaken0", "untaken1", "unreleased0", "unreleased1", "filled",
                "take", "release", releases=8)
LOADER = record("walk", "job", "allowed", "room", "request", "request_place", "block", "row", "segment",
                "slots_in", "slots_out", "place", "inner", "queue", "beat", "part", "pixel", "gathered", "word1",
                "word1_slot", "word2", "word2_slot", "counted", "counted_slot", "value_request", "value_place",
                "value_beats", "values_in", "values_out", "value_beat", "done", "state", "map_words", "value_writes",
                "unpacked",
                slots=(SLOTS, 4), values=(SLOTS, 2))
WEIGHTS = record("planner", "wait", "layer", "new_layer", "state", "scales", "place", "beats", "left_beats",
                 "left_lanes", "left_passes", "left_channels", "left_rows", "first_chunk", "now_scales", "weight_beats")
GROUP = record("wake", "since", "state", "jobs_in", "jobs_out", "job", "count", "tile_taken", "weights_taken",
               "active", "turn", "left", "columns_left", "any_own", "y", "x", "scan_ready", "inside", "starts_in",
               "starts_out", "emit", "empty", "rows", "columns", "blocks", "row", "column", "block", "address",
               "flags", "words_at", "block_pitch", "row_pitch", "in_height", "stride", "filter_ready", "reading",
               "reading_word", "word", "word_value", "held", "held_word", "level", "queue_in", "queue_out", "valid",
               "walked", "bits", "room", "wait", "free", "issued", "issued_before", "drain_until", "ends_in",
               "ends_out", "idle", "busy", "lane_cycles", "stall_output", "stall_tile", "stall_weights", "stall_find",
               "map_reads", "sum_reads", "sum_writes", starts=(WINDOWS, 6), queue=QUEUE_DEPTH, ends=ENDS)
COLLECTOR = record("held", "job", "wants_scales", "turn", "lane_word", "row", "column", "valid", "position", "release",
                   "stages", "positions_in", "positions_out", "values", "served", positions=REQUANTISE_DEPTH)
POOL = record("word", "word_position", "column", "column_position", "row", "row_position", "valid", "position")
ENCODER = record("word", "position", "occupied", "ends_in", "ends_out", "busy", "beat", "beats", "read", "valid",
                 "request", ends=(SLOTS, 2))
#: The array of PEs: clusters, the last of them the tile unpacker; PEs; what is one for a group; the weight loader.
CLUSTER = record("wake", "idle", "waits", "jobs_in", "jobs_out", "job", "state", "until", "unfinished", "parity",
                 "oldest", "window", "window_row", "window_column", "walking", "row", "column", "turn", "index",
                 "pass_index", "windows", "free", "loaded", "slot", "slots", "held", "held_slot", "held_row",
                 "held_column", "address", "value", "dead", "finished_in", "finished_out", "done", "drained", "arrives",
                 "sums", "joined", dealt=2, weights_last=2, last_chunk=2, windows_of=2, slots_of=2, left=2,
                 finished=(2, 2))
ELEMENT = record("wake", "since", "accepted", "popped", "inside", "parity", "first", "second", "head", "opening",
                 "valid", "now_parity", "bits", "last", "dead_at", "one", "read", "ready", "added", "result",
                 "result_parity", "working", fetching=2, number=2, queue_in=2, queue_out=2, queue=(2, 16), busy=2,
                 places=2, jobs=2, outcomes=2, thresholds=2)
JOINER = record("step", "free", "level", "ends_in", "ends_out", "working", "busy", "lane_cycles", "stall_output",
                "stall_tile", "stall_weights", "stall_find", "map_reads", "sum_reads", "sum_writes", ends=ENDS)
ROUNDS = record("planner", "new_layer", "state", "layer", "left", "kernel", "place", "passes", "beats", "header",
                "rounds_at", "ahead", "inner", "out", "walker", "wait", "walk_layer", "first_lane", "lanes", "phase",
                "channel", "row", "rows", "left_passes", "block", "blocks", "offer_words", "maps", "loading",
                "now_lanes", "now_maps", "map_pitch", "now_blocks", "all_blocks", "lane_words", "map_at", "words",
                "split", "split_lane", "split_maps", "split_values", "weight_beats")
#: The part of the weight loader that each cluster has, with the queue of beats before it.
LANES = record("inner", "out", "state", "slot", "slots", "map_number", "word", "part", "mask", "mask_count",
               "mask_last", "ahead_groups", "unpack", "needs", "left_values", "unpacked")

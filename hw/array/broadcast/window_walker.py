"""Window walker: from a tile to the map words under each window of one group.

Source: golden/README.md, "Loop order" and "Tile geometry".
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from ...buffer.tile_buffer import map_address
from ...config import CHANNEL_BITS, LOCAL_BITS, SEGMENT, AcceleratorConfig
from ...payloads import BLOCK_BITS, group_job
from ...stream.fifo import StreamFifo

#: Windows of a tile, and coordinates of a window in the loaded input.
WINDOW_BITS = 2 * (LOCAL_BITS + 1)
PLACE_BITS = LOCAL_BITS + 5
#: Windows between the scan and the emission: in the stages, and in the queue behind them.
WINDOWS = 8
#: Fields that go with a window through all stages.
STAGE_FLAGS = ("valid", "window", "restart", "final")


def window_flags(c: AcceleratorConfig) -> data.StructLayout:
    """What the stages behind the walker have to know of a window and its job."""
    return data.StructLayout({
        "window": 1,           # 0: no window at all, only the releases of a job without a window of this group
        "restart": 1,          # first window of the group in this pass and chunk: partial-sum index 0
        "release_tile": 1,     # last window of the group in this tile ..
        "release_weights": 1,  # .. and in this chunk
        "signed": 1, "dense": 1, "first_chunk": 1, "last_chunk": 1,
        "lanes": range(c.lanes + 1), "words": range(c.window_words + 1),
    })


def map_fetch(c: AcceleratorConfig) -> data.StructLayout:
    """A map word to read, with the weight address of its channel 0. ``last`` of its window; ``empty``: has no word."""
    return data.StructLayout({"address": map_address(c), "weight": range(2 * c.weight_depth), "empty": 1, "last": 1,
                              "flags": window_flags(c)})


def _stage(fields) -> data.StructLayout:
    return data.StructLayout({name: 1 for name in STAGE_FLAGS} | fields)


def _window_place(map_bits: int) -> data.StructLayout:
    """A window: input row and column below its tap (0, 0); ``row``: map address of that row, if it is not negative."""
    return _stage({"y": signed(PLACE_BITS), "x": signed(PLACE_BITS), "row": map_bits})


def _window_clip(map_bits: int) -> data.StructLayout:
    """Its part inside of the loaded input, ``bottom`` and ``right`` excluded, and the padding taps before it."""
    place = signed(PLACE_BITS)
    return _stage({"top": place, "bottom": place, "left": place, "right": place,
                   "skip_rows": 3, "skip_columns": 3, "row": map_bits})


def _window_count(map_bits: int) -> data.StructLayout:
    return _stage({"rows": 3, "columns": 3, "empty": 1, "skip_rows": 3, "skip_columns": 3, "address": map_bits})


def _window_range(map_bits: int, weight_bits: int) -> data.StructLayout:
    return _stage({"rows": 3, "columns": 3, "empty": 1, "address": map_bits,
                   "weight_row": weight_bits, "weight_column": weight_bits})


def _window_start(map_bits: int, weight_bits: int) -> data.StructLayout:
    return _stage({"rows": 3, "columns": 3, "empty": 1, "address": map_bits, "weight": weight_bits})


def _start(c: AcceleratorConfig) -> data.StructLayout:
    return data.StructLayout({"address": map_address(c), "weight": range(2 * c.weight_depth)})


def _emitted(c: AcceleratorConfig) -> data.StructLayout:
    """The window whose words are emitted, with what it needs of its job."""
    return data.StructLayout({
        "rows": 3, "columns": 3, "empty": 1, "channels": CHANNEL_BITS, "row_pitch": map_address(c),
        "block_pitch": map_address(c), "tap_row_pitch": range(2 * c.weight_depth), "flags": window_flags(c)})


def _times(small, value):
    """Product with a factor of 3 bits, as adders: multipliers are for the lanes."""
    return Mux(small[0], value, 0) + Mux(small[1], value << 1, 0) + Mux(small[2], value << 2, 0)


def _maximum(value, other):
    return Mux(value < other, other, value)


def _minimum(value, other):
    return Mux(value < other, value, other)


class WindowWalker(wiring.Component):
    """Step over the windows of a tile and over the map words of each window that is this group's.

    Windows are taken row by row; the turn, modulo ``groups``, restarts with ``pass_first`` and otherwise runs on over
    tiles; a window is this group's if the turn is ``index``. For each block ``b``, and kernel row and column ``ky``,
    ``kx`` that are not padding, in this order, with ``y`` and ``x`` the loaded row and column below them:

    ``address = half * tile_slots * 4 + (b * in_rows + y) * segments * 4 + x + phase``
    ``weight = weights_half * weight_depth + (ky * kernel_columns + kx) * channels + b * block``

    A window without any such word, and a job without any window of this group, give one ``empty`` word.

    Flow control: a word a cycle, without a bubble between windows if the windows of other groups, one a cycle, are
    skipped in time. The next job is taken when the last window of the present one starts.

    Members
    -------
    i_job : In(Stream(group_job(config)))
        ``rows``, ``columns``: at least 1; ``stride``: 1 to 4.
    i_tile_full, i_tile_half, o_tile_take, i_weights_full, i_weights_half, o_weights_take
        See ``DoubleBufferControl``.
    o : Out(Stream(map_fetch(config)))
    o_wait_tile, o_wait_weights : Out(1)
        The job waits for its input, or has that and waits for its weights.
    o_walking, o_idle : Out(1)
        A window is on its way to ``o``. Nothing is to be done.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """

    i_job: stream.Interface
    i_tile_full: Signal
    i_tile_half: Signal
    o_tile_take: Signal
    i_weights_full: Signal
    i_weights_half: Signal
    o_weights_take: Signal
    o: stream.Interface
    o_wait_tile: Signal
    o_wait_weights: Signal
    o_walking: Signal
    o_idle: Signal
    o_active: Signal

    def __init__(self, config: AcceleratorConfig, index: int):
        if not 0 <= index < config.groups:
            raise ValueError(f"index must be 0 to {config.groups - 1}, not {index!r}")
        self.config, self.index = config, index
        super().__init__({
            "i_job": In(stream.Signature(group_job(config))),
            "i_tile_full": In(1), "i_tile_half": In(1), "o_tile_take": Out(1),
            "i_weights_full": In(1), "i_weights_half": In(1), "o_weights_take": Out(1),
            "o": Out(stream.Signature(map_fetch(config))),
            "o_wait_tile": Out(1), "o_wait_weights": Out(1), "o_walking": Out(1), "o_idle": Out(1),
            "o_active": Out(1),
        })

    @property
    def setup_cycles(self) -> int:
        """Cycles from a job, whose tile and weights are there, to its first window: multiplications bit by bit."""
        return self._product_bits + 2

    @property
    def _product_bits(self) -> int:
        return max(len(self.o.p.address), LOCAL_BITS + 2)

    def elaborate(self, platform):
        m = Module()
        self._declare()
        self._build_job(m)
        self._build_scan(m)
        starts = self._build_stages(m)
        emitting = self._build_emit(m, starts)
        m.d.comb += [
            self.o_walking.eq(emitting | ~self._stages_empty),
            self.o_active.eq(self._job_moves | self._scan_moves | self._stage_moves | emitting & self.o.ready),
        ]
        return m

    def _declare(self):
        """Registers and strobes that the parts below share."""
        # Addresses are computed modulo the power of two that holds them: the result is in range, whatever came before.
        map_bits, weight_bits = len(self.o.p.address), len(self.o.p.weight)
        self._job = Signal(group_job(self.config))
        self._map_base, self._weight_base = Signal(map_bits), Signal(weight_bits)
        self._row_pitch, self._block_pitch, self._first_row = Signal(map_bits), Signal(map_bits), Signal(map_bits)
        self._tap_row_pitch = Signal(weight_bits)
        self._windows = Signal(WINDOW_BITS)
        # Strobes: a new scan starts, its last window has been passed, the stages behind it can take a window.
        self._scan_load, self._scan_done, self._scan_ready = Signal(), Signal(), Signal()
        self._stages_empty = Signal()
        # What ``o_active`` is made of.
        self._job_moves, self._scan_moves, self._stage_moves = Signal(), Signal(), Signal()
        self._found = Signal(_window_place(map_bits))

    def _build_job(self, m):
        """Take a job, its tile and its weights; multiply; let its windows be scanned."""
        c, job = self.config, self._job
        tile_taken, weights_taken = Signal(), Signal()
        count = Signal(range(self._product_bits + 2))
        with m.FSM():
            with m.State("Idle"):
                # The stages behind the scan read the registers of the job: they have to be empty before a new one.
                m.d.comb += [self.i_job.ready.eq(self._stages_empty), self.o_idle.eq(~self.o_walking),
                             self._job_moves.eq(self.i_job.valid & self.i_job.ready)]
                with m.If(self.i_job.valid & self.i_job.ready):
                    m.d.sync += [tile_taken.eq(0), count.eq(0), job.eq(self.i_job.payload),
                                 weights_taken.eq(~self.i_job.p.weights_first)]
                    m.next = "Setup"
            with m.State("Setup"):
                m.d.comb += [
                    self.o_wait_tile.eq(~tile_taken & ~self.i_tile_full),
                    self.o_wait_weights.eq(~weights_taken & ~self.i_weights_full & ~self.o_wait_tile),
                    self.o_tile_take.eq(~tile_taken & self.i_tile_full),
                    self.o_weights_take.eq(~weights_taken & self.i_weights_full),
                    self._scan_load.eq(tile_taken & weights_taken & (count == self._product_bits + 1)),
                    self._job_moves.eq((count != self._product_bits + 1) | self.o_tile_take | self.o_weights_take
                                       | self._scan_load),
                ]
                self._build_products(m, count)
                with m.If(self.o_tile_take):
                    m.d.sync += [tile_taken.eq(1), self._map_base.eq(Mux(self.i_tile_half, c.tile_slots * SEGMENT, 0))]
                with m.If(self.o_weights_take):
                    m.d.sync += [weights_taken.eq(1),
                                 self._weight_base.eq(Mux(self.i_weights_half, c.weight_depth, 0))]
                with m.If(self._scan_load):
                    m.next = "Scan"
            with m.State("Scan"):
                with m.If(self._scan_done):
                    m.next = "Idle"

    def _build_products(self, m, count):
        """in_rows * row pitch, y_first * row pitch, rows * columns: a bit of the first factor a cycle, low bit first.

        Further cycles add nothing: the factors are shifted out by then.
        """
        job = self._job
        in_rows, y_first, rows = (Signal(self._product_bits, name=name) for name in ("in_rows", "y_first", "rows"))
        pitch, columns = Signal.like(self._row_pitch), Signal(WINDOW_BITS)
        with m.If(count == 0):
            m.d.sync += [
                in_rows.eq(job.in_rows), y_first.eq(job.y_first), rows.eq(job.rows), columns.eq(job.columns),
                pitch.eq(job.segments * SEGMENT), self._row_pitch.eq(job.segments * SEGMENT),
                self._block_pitch.eq(0), self._first_row.eq(0), self._windows.eq(0),
                self._tap_row_pitch.eq(_times(job.kernel_columns, job.channels)),
            ]
        with m.Else():
            m.d.sync += [
                in_rows.eq(in_rows >> 1), y_first.eq(y_first >> 1), rows.eq(rows >> 1),
                pitch.eq(pitch << 1), columns.eq(columns << 1),
                self._block_pitch.eq(self._block_pitch + Mux(in_rows[0], pitch, 0)),
                self._first_row.eq(self._first_row + Mux(y_first[0], pitch, 0)),
                self._windows.eq(self._windows + Mux(rows[0], columns, 0)),
            ]
        with m.If(count != self._product_bits + 1):
            m.d.sync += count.eq(count + 1)

    def _build_scan(self, m):
        """Visit a window a cycle; stop at an own one until the stages behind take it."""
        c, job = self.config, self._job
        active, any_own, restart = Signal(), Signal(), Signal()
        turn = Signal(max(1, (c.groups - 1).bit_length()))
        y, x = Signal(signed(PLACE_BITS)), Signal(signed(PLACE_BITS))
        row, left, columns_left = Signal.like(self._map_base), Signal(WINDOW_BITS), Signal(LOCAL_BITS + 1)
        # Comparisons of ``left`` and ``columns_left``, made a cycle ahead.
        last, last_turn, last_column = Signal(), Signal(), Signal()
        row_step = Signal.like(row)
        own, push, step = Signal(), Signal(), Signal()
        m.d.comb += [
            own.eq(turn == self.index),
            push.eq(own | (last & ~any_own)),
            step.eq(active & (~push | self._scan_ready)),
            self._scan_done.eq(step & last), self._scan_moves.eq(step),
            self._found.valid.eq(step & push), self._found.window.eq(own), self._found.restart.eq(restart),
            # The next own window would come after ``groups`` windows.
            self._found.final.eq(last_turn | ~own),
            self._found.y.eq(y), self._found.x.eq(x), self._found.row.eq(row),
        ]
        m.d.sync += row_step.eq(_times(job.stride, self._row_pitch))
        with m.If(step):
            m.d.sync += [
                turn.eq(Mux(turn == c.groups - 1, 0, turn + 1)), left.eq(left - 1), active.eq(~last),
                last.eq(left == 2), last_turn.eq(left <= c.groups + 1),
                columns_left.eq(columns_left - 1), last_column.eq(columns_left == 2), x.eq(x + job.stride),
            ]
            with m.If(last_column):
                m.d.sync += [columns_left.eq(job.columns), last_column.eq(job.columns == 1), x.eq(job.x_first),
                             y.eq(y + job.stride), row.eq(row + row_step)]
            with m.If(own):
                m.d.sync += [any_own.eq(1), restart.eq(0)]
        with m.If(self._scan_load):
            m.d.sync += [active.eq(1), any_own.eq(0), left.eq(self._windows), columns_left.eq(job.columns),
                         last.eq(self._windows == 1), last_turn.eq(self._windows <= c.groups),
                         last_column.eq(job.columns == 1),
                         y.eq(job.y_first), x.eq(job.x_first), row.eq(self._first_row)]
            with m.If(job.pass_first):
                m.d.sync += [turn.eq(0), restart.eq(1)]

    def _build_stages(self, m):
        """Three stages from the place of a window to its first addresses and the size of its range of words; a queue.

        The stages never hold: a window is let in only if there is room for it in the queue.
        """
        job, found = self._job, self._found
        map_bits, weight_bits = len(found.row), len(self._weight_base)
        clip, count, place = (Signal(shape, name=name) for name, shape in (
            ("clip", _window_clip(map_bits)), ("count", _window_count(map_bits)),
            ("place", _window_range(map_bits, weight_bits))))
        m.submodules.starts = starts = StreamFifo(_window_start(map_bits, weight_bits), depth=WINDOWS)
        inside = Signal(range(WINDOWS + 1))
        m.d.comb += [
            starts.i.valid.eq(place.valid),
            starts.i.p.weight.eq(place.weight_row + place.weight_column),
            self._stages_empty.eq(inside == 0),
            self._stage_moves.eq(clip.valid | count.valid | place.valid | starts.o_moves | ~self._scan_ready),
        ]
        m.d.comb += [getattr(starts.i.p, name).eq(getattr(place, name))
                     for name in (*STAGE_FLAGS, "address", "rows", "columns", "empty")]
        m.d.sync += [
            inside.eq(inside + found.valid - (starts.o.valid & starts.o.ready)),
            # A window that comes in this cycle is not counted yet.
            self._scan_ready.eq(inside < WINDOWS - 1),
            Assert(~starts.i.valid | starts.i.ready, "a window has no room"),
        ]
        m.d.sync += [getattr(clip, name).eq(getattr(found, name)) for name in STAGE_FLAGS]
        # First and last row and column that the window shares with the loaded input.
        m.d.sync += [
            clip.row.eq(self._map_base + Mux(found.y < 0, 0, found.row)),
            clip.top.eq(_maximum(found.y, 0)), clip.left.eq(_maximum(found.x, 0)),
            clip.bottom.eq(_minimum(found.y + job.kernel_rows, job.in_rows)),
            clip.right.eq(_minimum(found.x + job.kernel_columns, job.in_columns)),
            clip.skip_rows.eq(Mux(found.y < 0, -found.y, 0)), clip.skip_columns.eq(Mux(found.x < 0, -found.x, 0)),
        ]
        m.d.sync += [getattr(count, name).eq(getattr(clip, name)) for name in STAGE_FLAGS]
        m.d.sync += [
            count.address.eq(clip.row + clip.left + job.phase),
            count.rows.eq(clip.bottom - clip.top), count.columns.eq(clip.right - clip.left),
            count.skip_rows.eq(clip.skip_rows), count.skip_columns.eq(clip.skip_columns),
            count.empty.eq((clip.bottom <= clip.top) | (clip.right <= clip.left) | ~clip.window | (job.blocks == 0)),
        ]
        m.d.sync += [getattr(place, name).eq(getattr(count, name))
                     for name in (*STAGE_FLAGS, "address", "rows", "columns", "empty")]
        m.d.sync += [
            place.weight_row.eq(_times(count.skip_rows, self._tap_row_pitch)),
            place.weight_column.eq(self._weight_base + _times(count.skip_columns, job.channels)),
        ]
        return starts.o

    def _build_emit(self, m, starts):
        """Three nested counters: block, kernel row, kernel column."""
        job, window, start = self._job, Signal(_emitted(self.config)), starts.payload
        rows_left, columns_left, blocks_left = Signal(3), Signal(3), Signal(BLOCK_BITS)
        # Whether they are at 1, made a cycle ahead.
        last_row, last_column, last_block = Signal(), Signal(), Signal()
        column, row, block = (Signal(_start(self.config), name=name) for name in ("column", "row", "block"))
        valid, final = Signal(), Signal()
        m.d.comb += [
            final.eq(last_row & last_column & last_block | window.empty),
            starts.ready.eq(~valid | self.o.ready & final),
            self.o.valid.eq(valid), self.o.p.address.eq(column.address), self.o.p.weight.eq(column.weight),
            self.o.p.empty.eq(window.empty), self.o.p.last.eq(final), self.o.p.flags.eq(window.flags),
        ]
        with m.If(starts.ready):
            m.d.sync += valid.eq(starts.valid)
            m.d.sync += [position.eq(Cat(start.address, start.weight))
                         for position in (column.as_value(), row.as_value(), block.as_value())]
            m.d.sync += [rows_left.eq(start.rows), columns_left.eq(start.columns), blocks_left.eq(job.blocks),
                         last_row.eq(start.rows == 1), last_column.eq(start.columns == 1),
                         last_block.eq(job.blocks == 1)]
            self._build_window(m, window, start)
        with m.Elif(self.o.ready):
            m.d.sync += [column.address.eq(column.address + 1), column.weight.eq(column.weight + window.channels),
                         columns_left.eq(columns_left - 1), last_column.eq(columns_left == 2)]
            with m.If(last_column):
                next_row = Signal.like(row)
                m.d.comb += [next_row.address.eq(row.address + window.row_pitch),
                             next_row.weight.eq(row.weight + window.tap_row_pitch)]
                m.d.sync += [column.eq(next_row), row.eq(next_row), columns_left.eq(window.columns),
                             last_column.eq(window.columns == 1),
                             rows_left.eq(rows_left - 1), last_row.eq(rows_left == 2)]
                with m.If(last_row):
                    next_block = Signal.like(block)
                    m.d.comb += [next_block.address.eq(block.address + window.block_pitch),
                                 next_block.weight.eq(block.weight + self.config.block)]
                    m.d.sync += [column.eq(next_block), row.eq(next_block), block.eq(next_block),
                                 rows_left.eq(window.rows), last_row.eq(window.rows == 1),
                                 blocks_left.eq(blocks_left - 1), last_block.eq(blocks_left == 2)]
        return valid

    def _build_window(self, m, window, place):
        """Copy what the window needs of its job, so that the next job can be set up meanwhile."""
        job, flags = self._job, window.flags
        m.d.sync += [getattr(window, name).eq(getattr(place, name)) for name in ("rows", "columns", "empty")]
        m.d.sync += [
            window.channels.eq(job.channels), window.row_pitch.eq(self._row_pitch),
            window.block_pitch.eq(self._block_pitch), window.tap_row_pitch.eq(self._tap_row_pitch),
            flags.window.eq(place.window), flags.restart.eq(place.restart), flags.release_tile.eq(place.final),
            flags.release_weights.eq(place.final & job.weights_last),
        ]
        m.d.sync += [getattr(flags, name).eq(getattr(job, name))
                     for name in ("signed", "dense", "first_chunk", "last_chunk", "lanes", "words")]

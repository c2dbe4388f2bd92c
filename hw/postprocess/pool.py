"""Max-pool with kernel 2 or 3 and stride 2, tile by tile.

Source: golden/README.md, "Max-pool" (normative).
"""
from amaranth import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..config import COLUMN_BITS, ROW_BITS, AcceleratorConfig
from .block_index import BlockIndex


class Pool(wiring.Component):
    """The maximum over windows of ``i_kernel x i_kernel`` pixels that start at even rows and columns.

    ``o[j, i] = max(i[2 * j .. 2 * j + kernel - 1, 2 * i .. 2 * i + kernel - 1])``, cut at the edge of the tile (ceil
    mode). First along the columns, then the maxima of a row along the rows, which a row buffer keeps. With kernel 3 an
    even column (row) ends a window and starts the next; a window that a tile starts with its last column (row) is left
    to the next tile.

    Flow control: one word a cycle in. While ``o`` stalls all stages hold and ``i`` stalls; ``i.ready`` depends
    combinationally on ``o.ready``.

    Parameters
    ----------
    config : AcceleratorConfig
        Widths, lanes and ``pool_columns``.

    Members
    -------
    i : In(stream.Signature(payloads.value_word(config)))
        Pixels of a tile row by row, all words of a pixel in order. A tile starts at an even row and column.
    i_kernel : In(2)
        2 or 3; held, as ``i_signed``, while not ``o_idle``.
    i_signed : In(1)
        Values are signed.
    o : Out(stream.Signature(payloads.value_word(config)))
        Pooled pixels; ``position.y``, ``position.x`` count pooled rows and columns, ``row_first`` .. ``column_last``
        are those of the pooled tile.
    o_idle : Out(1)
        No word is inside.
    o_active : Out(1)
        A clock edge may change something: hw/README.md.
    """
    i: stream.Interface
    o: stream.Interface

    #: Cycles from a transfer on ``i`` to ``o.valid``, if ``o`` does not stall.
    LATENCY = 4

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "i": In(stream.Signature(payloads.value_word(config))),
            "i_kernel": In(2), "i_signed": In(1),
            "o": Out(stream.Signature(payloads.value_word(config))),
            "o_idle": Out(1), "o_active": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        self.step = Signal()
        self.word = Signal(payloads.value_word(self.config))
        word_valid = Signal()
        m.d.comb += [
            self.step.eq(~self.o.valid | self.o.ready),
            self.i.ready.eq(self.step),
        ]
        with m.If(self.step):
            m.d.sync += [self.word.eq(self.i.payload), word_valid.eq(self.i.valid)]
        m.submodules.block_index = block_index = BlockIndex(self.config)
        m.d.comb += [
            block_index.i_step.eq(self.step & word_valid),
            block_index.i_position.eq(self.word.position),
        ]
        column_valid, row_valid = self._build_columns(m, word_valid, block_index.o_index)
        self._build_rows(m, row_valid)
        m.d.comb += [
            self.o_idle.eq(~(word_valid | column_valid | row_valid | self.o.valid)),
            self.o_active.eq(self.i.valid | ~self.o_idle),
        ]
        return m

    def _build_columns(self, m, word_valid, index):
        """Running maximum of the window columns of a row, for each word of a pixel. Gives the word for the rows."""
        word_q = Signal.like(self.word)
        column_valid = Signal()
        # Pooled coordinates of the tile's first window.
        x_origin, y_origin = Signal(COLUMN_BITS - 1), Signal(ROW_BITS - 1)
        self.row_word = Signal.like(self.word)
        self.row_word_index = Signal.like(index)
        self.row_word_top = Signal()
        row_valid = Signal()
        index_q = Signal.like(index)
        position = word_q.position
        first, last, odd = position.column_first, position.column_last, position.x[0]
        column = Signal(COLUMN_BITS - 1)
        address = Cat(self.word.position.word, index)
        address_q = Cat(position.word, index_q)
        running = self._build_memory(m, "columns", depth=self.config.window_words, read_address=address,
                                     write_address=address_q, write_enable=column_valid)
        maximum, emit = self._build_window(m, running, word_q.values, first=first, last=last, odd=odd)
        m.d.comb += column.eq(self._window(position.x, first))
        with m.If(self.step):
            m.d.sync += [
                word_q.eq(self.word),
                index_q.eq(index),
                column_valid.eq(word_valid),
                self.row_word.eq(word_q),
                self.row_word.values.eq(maximum),
                self.row_word.position.x.eq(column),
                self.row_word.position.column_first.eq(column == x_origin),
                self.row_word_index.eq(index_q),
                self.row_word_top.eq(self._window(position.y, position.row_first) == y_origin),
                row_valid.eq(column_valid & emit),
            ]
            with m.If(word_valid & self.word.position.column_first):
                m.d.sync += x_origin.eq(self.word.position.x[1:])
            with m.If(word_valid & self.word.position.row_first):
                m.d.sync += y_origin.eq(self.word.position.y[1:])
        self.row_address = Cat(position.word, column[:self._column_bits], index_q)
        return column_valid, row_valid

    def _build_rows(self, m, row_valid):
        """Running maximum of the window rows, for each pooled column and word. Gives the output."""
        position = self.row_word.position
        address = Cat(position.word, position.x[:self._column_bits], self.row_word_index)
        depth = (self.config.window_words << self._column_bits)
        running = self._build_memory(m, "rows", depth=depth, read_address=self.row_address, write_address=address,
                                     write_enable=row_valid)
        maximum, emit = self._build_window(m, running, self.row_word.values, first=position.row_first,
                                           last=position.row_last, odd=position.y[0])
        with m.If(self.step):
            m.d.sync += [
                self.o.payload.eq(self.row_word),
                self.o.p.values.eq(maximum),
                self.o.p.position.y.eq(self._window(position.y, position.row_first)),
                self.o.p.position.row_first.eq(self.row_word_top),
                self.o.valid.eq(row_valid & emit),
            ]

    @property
    def _column_bits(self):
        """The columns of a tile are consecutive, so the low bits of the column tell them apart."""
        return (self.config.pool_columns - 1).bit_length()

    def _window(self, coordinate, first):
        """Pooled coordinate of the window that a pixel ends: with kernel 3 an even one ends the window before."""
        return coordinate[1:] - ((self.i_kernel == 3) & ~coordinate[0] & ~first)

    def _build_memory(self, m, name, *, depth, read_address, write_address, write_enable):
        """Running maxima: one is read while the one before it is written, perhaps at the same address. Returns
        (data read, data to write)."""
        m.submodules[name] = maxima = Memory(shape=self.word.values.shape(), depth=max(2, depth), init=[])
        write = maxima.write_port()
        read = maxima.read_port(transparent_for=(write,))
        m.d.comb += [
            read.addr.eq(read_address),
            read.en.eq(self.step),
            write.addr.eq(write_address),
            write.en.eq(self.step & write_enable),
        ]
        return read.data, write.data

    def _build_window(self, m, running, values, *, first, last, odd):
        """One step of a running maximum along an axis. Returns (maximum, whether a window ends here)."""
        read, write = running
        three = self.i_kernel == 3
        fresh = first | (~odd & ~three)
        maximum = Signal(data.ArrayLayout(self.config.value_width, self.config.drain))
        sign = self.i_signed << (self.config.value_width - 1)
        for element, (value, before) in enumerate(zip(values, read, strict=True)):
            # With the sign bit flipped, signed values compare as unsigned ones.
            keep = ~fresh & ((before ^ sign) > (value ^ sign))
            m.d.comb += maximum[element].eq(Mux(keep, before, value))
        m.d.comb += write.eq(Mux(odd, maximum, values))
        return maximum, last | Mux(three, ~odd & ~first, odd)

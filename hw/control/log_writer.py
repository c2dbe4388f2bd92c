"""Log writer: the counters of a finished layer, as a record in DRAM.

Source: hw/registers.py, ``COUNTERS`` and ``LOG_BYTES``.
"""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from .. import payloads
from ..registers import COUNTERS, LOG_BYTES
from .counters import COUNTER_BITS


class LogWriter(wiring.Component):
    """Write one record of ``LOG_BYTES``: a 64-bit word for each counter, then zeros.

    Members
    -------
    i_write : In(1)
        Pulse: write a record; only while ``o_idle``. The other inputs stay constant until ``o_idle`` is back.
    i_address : In(32)
        Where, a multiple of ``LOG_BYTES``.
    i_counters : In(StructLayout)
        As :class:`~hw.control.counters.Counters` gives them.
    o_request, o_data : streams
        Write client of the bus.
    o_idle : Out(1)
        The last beat of the record has been taken.
    """

    def __init__(self, counters_layout):
        super().__init__({
            "i_write": In(1), "i_address": In(32), "i_counters": In(counters_layout),
            "o_request": Out(stream.Signature(payloads.request())), "o_data": Out(stream.Signature(64)),
            "o_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beats = LOG_BYTES // 8
        beat, asking, sending = Signal(range(beats)), Signal(), Signal()
        words = Array([*(self.i_counters[name] for name, _ in COUNTERS),
                       *[C(0, COUNTER_BITS)] * (beats - len(COUNTERS))])
        m.d.comb += [
            self.o_request.valid.eq(asking),
            self.o_request.p.address.eq(self.i_address),
            self.o_request.p.beats.eq(beats),
            self.o_data.valid.eq(sending & ~asking),
            self.o_data.payload.eq(words[beat]),
            self.o_idle.eq(~sending),
        ]
        with m.If(self.i_write & self.o_idle):
            m.d.sync += [asking.eq(1), sending.eq(1), beat.eq(0)]
        with m.If(asking & self.o_request.ready):
            m.d.sync += asking.eq(0)
        with m.If(self.o_data.valid & self.o_data.ready):
            m.d.sync += beat.eq(beat + 1)
            with m.If(beat == beats - 1):
                m.d.sync += sending.eq(0)
        return m

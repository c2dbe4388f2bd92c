"""A top for the cosimulation of the bus parts: what client n reads, it writes somewhere else."""
from amaranth import *
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi4 import Axi4Signature, AxiLiteSignature, connect_axi4
from hw.bus.axi_reader import AxiReader
from hw.bus.axi_writer import AxiWriter
from hw.bus.csr_bank import CsrBank
from hw.payloads import request
from hw.stream.fifo import StreamFifo

CLIENTS = 2
MAX_BURST = 16
#: Holds all that a client copies: R and W each serve one client at a time, in orders that may differ, so that with less
#: room both could wait for each other.
QUEUE = 1024


class BusTop(wiring.Component):
    """A register bank, and a reader whose data go to a writer through a queue for each client."""
    def __init__(self):
        super().__init__({
            "s_axi": In(AxiLiteSignature(12)), "m_axi": Out(Axi4Signature()),
            "i_read": In(stream.Signature(request())).array(CLIENTS),
            "i_write": In(stream.Signature(request())).array(CLIENTS),
            "i_done": In(1), "o_start": Out(1), "o_watchdog": Out(32), "o_idle": Out(1), "o_error": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.csr = csr = CsrBank()
        m.submodules.reader = reader = AxiReader(CLIENTS, MAX_BURST)
        m.submodules.writer = writer = AxiWriter(CLIENTS, MAX_BURST)
        wiring.connect(m, csr.axi, wiring.flipped(self.s_axi))
        connect_axi4(m, self.m_axi, reader.axi, writer.axi)
        for n in range(CLIENTS):
            m.submodules[f"queue{n}"] = queue = StreamFifo(64, QUEUE)
            wiring.connect(m, reader.i_request[n], wiring.flipped(self.i_read[n]))
            wiring.connect(m, writer.i_request[n], wiring.flipped(self.i_write[n]))
            wiring.connect(m, reader.o_data[n], queue.i)
            wiring.connect(m, queue.o, writer.i_data[n])
        m.d.comb += [
            csr.r_status_done_set.eq(self.i_done), self.o_start.eq(csr.r_control_start),
            self.o_watchdog.eq(csr.r_watchdog_value), csr.r_identity_value.eq(0x5A534B50),
            self.o_idle.eq(reader.o_idle & writer.o_idle), self.o_error.eq(reader.o_error | writer.o_error),
        ]
        return m

"""The top: accelerator, AXI4 master, AXI4-Lite registers, interrupt, and the clean stop after an error.

Source: docs/architecture.md, "Errors and reset"; hw/registers.py.
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .accelerator import READ_CLIENTS, WRITE_CLIENTS, Accelerator
from .bus.axi4 import Axi4Signature, AxiLiteSignature, connect_axi4
from .bus.axi_reader import AxiReader
from .bus.axi_writer import AxiWriter
from .bus.csr_bank import CsrBank
from .config import AcceleratorConfig
from .registers import ERRORS, IDENTITY, REGISTERS, VERSION

#: Byte address bits of the register space.
REGISTER_ADDRESS_BITS = 12


class Top(wiring.Component):
    """A core for an AXI system: one AXI4 master for all data, one AXI4-Lite slave for the registers.

    An error (AXI response, refused descriptor, watchdog) or ``control.stop`` leads to the same clean stop: no new burst
    is issued, those in flight are finished, then everything but the registers is reset and ``status.error`` is set. A
    bus that never answers is left behind after ``watchdog`` further cycles.

    Members
    -------
    s_axil : In(AxiLiteSignature)
        Registers.
    m_axi : Out(Axi4Signature)
        DRAM.
    irq : Out(1)
        Level: an enabled status bit is set.
    """

    def __init__(self, config: AcceleratorConfig):
        self.config = config
        super().__init__({
            "s_axil": In(AxiLiteSignature(address_width=REGISTER_ADDRESS_BITS)),
            "m_axi": Out(Axi4Signature()),
            "irq": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        #: Resets all but the registers at the end of a clean stop.
        self.soft_reset = Signal()
        m.submodules.csr = self._csr = CsrBank(REGISTERS, address_width=REGISTER_ADDRESS_BITS)
        inner = ResetInserter(self.soft_reset)
        self._accelerator = Accelerator(self.config)
        self._reader = AxiReader(len(READ_CLIENTS), self.config.max_burst)
        self._writer = AxiWriter(len(WRITE_CLIENTS), self.config.max_burst)
        m.submodules.accelerator = inner(self._accelerator)
        m.submodules.reader = inner(self._reader)
        m.submodules.writer = inner(self._writer)
        wiring.connect(m, wiring.flipped(self.s_axil), self._csr.axi)
        self._build_bus(m)
        self._build_registers(m)
        self._build_run(m)
        return m

    def _build_bus(self, m):
        accelerator, reader, writer = self._accelerator, self._reader, self._writer
        for n in range(len(READ_CLIENTS)):
            wiring.connect(m, accelerator.o_read_request[n], reader.i_request[n])
            wiring.connect(m, reader.o_data[n], accelerator.i_read_data[n])
        for n in range(len(WRITE_CLIENTS)):
            wiring.connect(m, accelerator.o_write_request[n], writer.i_request[n])
            wiring.connect(m, accelerator.o_write_data[n], writer.i_data[n])
        connect_axi4(m, self.m_axi, reader.axi, writer.axi)
        m.d.comb += [
            accelerator.i_write_idle.eq(writer.o_idle),
            accelerator.i_read_beat.eq(reader.o_beats), accelerator.i_write_beat.eq(writer.o_beats),
        ]

    def _build_registers(self, m):
        csr, accelerator, config = self._csr, self._accelerator, self.config
        m.d.comb += [
            csr.r_identity_value.eq(IDENTITY), csr.r_version_value.eq(VERSION),
            csr.r_capability_groups.eq(config.groups), csr.r_capability_lanes.eq(config.lanes),
            csr.r_capability_value_width.eq(config.value_width), csr.r_capability_block.eq(config.block),
            csr.r_capability_array.eq(config.intersect), csr.r_configuration_value.eq(config.configuration_id),
            accelerator.i_descriptor_address.eq(csr.r_descriptor_address_value),
            accelerator.i_layer_count.eq(csr.r_layer_count_value),
            accelerator.i_log_address.eq(csr.r_log_address_value),
            self.irq.eq(csr.r_status_done & csr.r_interrupt_enable_done
                        | csr.r_status_error & csr.r_interrupt_enable_error),
        ]

    def _error(self):
        """(condition, code, address) of what can stop a run, the most telling first."""
        reader, writer, accelerator = self._reader, self._writer, self._accelerator
        return [
            (reader.o_error, ERRORS["read_response"][0], reader.o_error_address),
            (writer.o_error, ERRORS["write_response"][0], writer.o_error_address),
            (accelerator.o_error, accelerator.o_error_code, accelerator.o_error_address),
            (self._csr.r_control_stop, ERRORS["stopped"][0], C(0)),
            (self._expired, ERRORS["watchdog"][0], accelerator.o_descriptor_address),
        ]

    def _build_watchdog(self, m, progress):
        """``_expired`` after ``watchdog`` cycles without progress; a watchdog of 0 never expires."""
        limit, quiet = self._csr.r_watchdog_value, Signal(32)
        self._expired = Signal()
        m.d.sync += [quiet.eq(Mux(progress, 0, quiet + 1)),
                     self._expired.eq((quiet >= limit) & (limit != 0) & ~progress)]

    def _build_run(self, m):
        """Idle, running, stopping."""
        csr, accelerator, reader, writer = self._csr, self._accelerator, self._reader, self._writer
        running, stopping, cycles = Signal(), Signal(), Signal(64)
        code, address, layers, stop = Signal(8), Signal(32), Signal(16), Signal()
        self._build_watchdog(m, ~(running | stopping) | stop | accelerator.o_progress)
        start = csr.r_control_start & ~running & ~stopping
        m.d.comb += [
            accelerator.i_start.eq(start),
            csr.r_status_busy.eq(running | stopping),
            # The last write may be answered with an error: the writer is idle, and reports it, in the same cycle.
            csr.r_status_done_set.eq(running & accelerator.o_done & ~stop),
            csr.r_layer_value.eq(layers), csr.r_error_code_value.eq(code), csr.r_error_address_value.eq(address),
            csr.r_cycles_low_value.eq(cycles[:32]), csr.r_cycles_high_value.eq(cycles[32:]),
            reader.i_abort.eq(stopping), writer.i_abort.eq(stopping),
        ]
        with m.If(start):
            m.d.sync += [running.eq(1), cycles.eq(0), code.eq(0), address.eq(0)]
        with m.Elif(running):
            m.d.sync += [cycles.eq(cycles + 1), layers.eq(accelerator.o_layers_done)]
            with m.If(accelerator.o_done):
                m.d.sync += running.eq(0)
        for condition, error, where in reversed(self._error()):
            with m.If(condition & (running | csr.r_control_stop) & ~stopping):
                m.d.comb += stop.eq(1)
                m.d.sync += [running.eq(0), stopping.eq(1), code.eq(error), address.eq(where)]
        finished = stopping & ~self.soft_reset & (reader.o_idle & writer.o_idle | self._expired)
        m.d.sync += self.soft_reset.eq(finished)
        m.d.comb += csr.r_status_error_set.eq(self.soft_reset)
        with m.If(self.soft_reset):
            m.d.sync += stopping.eq(0)

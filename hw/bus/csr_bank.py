"""The register bank: an AXI4-Lite slave built from a register description.

Source: hw/registers.py; Arm IHI 0022H, chapter B1.
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..registers import REGISTERS, RESET_VALUES
from .axi4 import AxiLiteSignature, Response

#: Reading the first register keeps the second one as it is in that cycle, for a later read of it.
LATCHES = {"cycles_low": "cycles_high"}


class CsrBank(wiring.Component):
    """Registers on AXI4-Lite, with one member for each field.

    An access to an address without a register is answered SLVERR; it reads 0 and writes nothing. Writes to read-only
    fields are ignored. The two low address bits are ignored. Strobes select bytes. A bit of a ``rw1c`` field that is
    set and cleared in the same cycle stays set.

    Flow control: one read and one write at a time, independent of each other; write address and data come in any order.
    A read or a write takes at least 3 cycles. No output depends combinationally on an input of the bus.

    Parameters
    ----------
    registers : tuple of Register
        What to build.
    reset_values : dict
        Values at reset where not 0, by register.
    latches : dict
        Pairs of registers for a consistent read, see ``LATCHES``.
    address_width : int
        Address bits of the bus.

    Members
    -------
    axi : In(AxiLiteSignature(address_width))
        The bus.
    r_<register>_<field>
        ``ro``: In, the value to be read. ``rw``: Out, the value. ``wo``: Out, the bits written with 1, for one cycle.
        ``rw1c``: Out, the value.
    r_<register>_<field>_set
        ``rw1c``: In, bits to be set.
    """
    axi: wiring.PureInterface

    #: Cycles from a transfer on AR to ``rvalid``, and from the later one of those on AW and W to ``bvalid``.
    LATENCY = 2

    def __init__(self, registers=REGISTERS, *, reset_values=RESET_VALUES, latches=LATCHES, address_width: int = 12):
        top = max(register.offset for register in registers)
        if top >= 1 << address_width:
            raise ValueError(f"address_width must reach offset {top:#x}, not {address_width!r}")
        self.registers, self.reset_values, self.latches = registers, reset_values, latches
        members = {"axi": In(AxiLiteSignature(address_width))}
        for register in registers:
            for field in register.fields:
                name = self._name(register, field)
                init = reset_values.get(register.name, 0) >> field.low & (1 << field.width) - 1
                members[name] = In(field.width) if field.access == "ro" else Out(field.width, init=init)
                if field.access == "rw1c":
                    members[f"{name}_set"] = In(field.width)
        super().__init__(members)

    @staticmethod
    def _name(register, field):
        return f"r_{register.name}_{field.name}"

    def elaborate(self, platform):
        m = Module()
        self._build_write(m)
        self._build_read(m)
        return m

    def _build_write(self, m):
        """Channels AW, W, B. Address and data wait for each other."""
        axi = self.axi
        address, address_full = Signal.like(axi.awaddr), Signal()
        word, strobe, word_full = Signal(32), Signal(4), Signal()
        write = Signal()
        m.d.comb += [
            axi.awready.eq(~address_full), axi.wready.eq(~word_full),
            write.eq(address_full & word_full & ~axi.bvalid),
        ]
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [address_full.eq(1), address.eq(axi.awaddr)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += [word_full.eq(1), word.eq(axi.wdata), strobe.eq(axi.wstrb)]
        with m.If(write):
            m.d.sync += [address_full.eq(0), word_full.eq(0), axi.bvalid.eq(1), axi.bresp.eq(Response.SLVERR.value)]
        with m.If(axi.bvalid & axi.bready):
            m.d.sync += axi.bvalid.eq(0)

        mask = Signal(32)
        m.d.comb += mask.eq(Cat(bit.replicate(8) for bit in strobe))
        for register in self.registers:
            hit = Signal(name=f"write_{register.name}")
            m.d.comb += hit.eq(write & (address[2:] == register.offset >> 2))
            with m.If(hit):
                m.d.sync += axi.bresp.eq(Response.OKAY.value)
            for field in register.fields:
                bits = slice(field.low, field.high + 1)
                self._build_field(m, self._name(register, field), field.access, hit, word[bits], mask[bits])

    def _build_field(self, m, name, access, hit, word, mask):
        """What a write of the bits ``mask`` of a field with ``word`` does."""
        value = getattr(self, name)
        if access == "rw":
            with m.If(hit):
                m.d.sync += value.eq((value & ~mask) | (word & mask))
        elif access == "wo":
            m.d.sync += value.eq(Mux(hit, word & mask, 0))
        elif access == "rw1c":
            cleared = Mux(hit, word & mask, 0)
            m.d.sync += value.eq((value & ~cleared) | getattr(self, f"{name}_set"))

    def _build_read(self, m):
        """Channels AR and R: the address is registered, then the word."""
        axi = self.axi
        address, address_full = Signal.like(axi.araddr), Signal()
        read = Signal()
        m.d.comb += [axi.arready.eq(~address_full), read.eq(address_full & ~axi.rvalid)]
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [address_full.eq(1), address.eq(axi.araddr)]
        with m.If(axi.rvalid & axi.rready):
            m.d.sync += axi.rvalid.eq(0)

        words = {register.name: self._read_word(register) for register in self.registers}
        latched = {}
        for first, second in self.latches.items():
            latched[first] = Signal(32, name=f"{second}_q")
            words[second], later = latched[first], words[second]
            with m.If(read & (address[2:] == self._offset(first) >> 2)):
                m.d.sync += latched[first].eq(later)
        with m.If(read):
            m.d.sync += [address_full.eq(0), axi.rvalid.eq(1), axi.rdata.eq(0), axi.rresp.eq(Response.SLVERR.value)]
            with m.Switch(address[2:]):
                for register in self.registers:
                    with m.Case(register.offset >> 2):
                        m.d.sync += [axi.rdata.eq(words[register.name]), axi.rresp.eq(Response.OKAY.value)]

    def _offset(self, name):
        return next(register.offset for register in self.registers if register.name == name)

    def _read_word(self, register):
        word = Const(0, 32)
        for field in register.fields:
            if field.access != "wo":
                word |= getattr(self, self._name(register, field)) << field.low
        return word

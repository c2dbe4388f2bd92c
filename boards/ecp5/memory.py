"""Memory in block RAM for the accelerator, and for a host.

Source: Arm IHI 0022H, chapters A3 (bursts, responses) and B1 (AXI4-Lite).
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In

from hw.bus.axi4 import ADDRESS_BITS, BURST_INCR, SIZE, Axi4Signature, AxiLiteSignature, Response
from hw.config import BEAT, is_power_of_two

BEAT_BYTES = BEAT // 8


class BlockMemory(wiring.Component):
    """``size`` bytes from the address ``base`` on, for one AXI4 and one AXI4-Lite master. Contents start as 0.

    Accesses outside are answered DECERR and write nothing. A burst is judged by its first address: it never crosses
    4 KiB. A read that meets a write of the same beat gives the old value.

    Flow control: on each bus one read and one write at a time, independent of each other; one beat a cycle. Between two
    bursts an access of ``axil`` comes first, within one it waits. ``ready`` of an address of ``axi`` depends
    combinationally on ``valid`` of ``axil``, nothing else on an input of a bus.

    Parameters
    ----------
    size : int
        Bytes, a power of two of at least 4096.
    base : int
        A multiple of ``size``.

    Members
    -------
    axi : In(Axi4Signature())
        Bursts of whole beats that count up (INCR, 8 bytes), from a multiple of 8; asserted at each address.
    axil : In(AxiLiteSignature(32))
        Words of 32 bits; the two low address bits are ignored.
    """
    axi: wiring.PureInterface
    axil: wiring.PureInterface

    def __init__(self, size: int, base: int):
        if not is_power_of_two(size) or size < 4096:
            raise ValueError(f"size must be a power of two of at least 4096 bytes, not {size!r}")
        if base % size or not 0 <= base < 1 << ADDRESS_BITS:
            raise ValueError(f"base must be a multiple of the size {size:#x} below 4 GiB, not {base!r}")
        self.size, self.base = size, base
        super().__init__({"axi": In(Axi4Signature()), "axil": In(AxiLiteSignature(ADDRESS_BITS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=BEAT, depth=self.size // BEAT_BYTES, init=[])
        self._build_read(m, memory.read_port())
        self._build_write(m, memory.write_port(granularity=8))
        return m

    def _response(self, address):
        low = (self.size - 1).bit_length()
        return Mux(address[low:] == self.base >> low, Response.OKAY.value, Response.DECERR.value)

    def _check(self, m, letter):
        legal = ((getattr(self.axi, f"a{letter}burst") == BURST_INCR) & (getattr(self.axi, f"a{letter}size") == SIZE)
                 & (getattr(self.axi, f"a{letter}addr")[:3] == 0))
        m.d.sync += Assert(legal, "bursts must be INCR, of aligned beats of 8 bytes")

    def _build_read(self, m, port):
        axi, axil = self.axi, self.axil
        place, left, upper = Signal.like(port.addr), Signal(range(257)), Signal()
        m.d.comb += [axi.rdata.eq(port.data), axil.rdata.eq(port.data.word_select(upper, 32)), port.en.eq(0)]
        with m.FSM(name="read"):
            with m.State("idle"):
                m.d.comb += [axil.arready.eq(1), axi.arready.eq(~axil.arvalid)]
                with m.If(axil.arvalid):
                    m.d.comb += [port.addr.eq(axil.araddr[3:]), port.en.eq(1)]
                    m.d.sync += [upper.eq(axil.araddr[2]), axil.rresp.eq(self._response(axil.araddr))]
                    m.next = "word"
                with m.Elif(axi.arvalid):
                    self._check(m, "r")
                    m.d.sync += [place.eq(axi.araddr[3:]), left.eq(axi.arlen + 1), axi.rid.eq(axi.arid),
                                 axi.rresp.eq(self._response(axi.araddr))]
                    m.next = "burst"
            with m.State("word"):
                m.d.comb += axil.rvalid.eq(1)
                with m.If(axil.rready):
                    m.next = "idle"
            with m.State("burst"):
                m.d.comb += [port.addr.eq(place), port.en.eq((left != 0) & (~axi.rvalid | axi.rready))]
                with m.If(port.en):
                    m.d.sync += [axi.rvalid.eq(1), axi.rlast.eq(left == 1), place.eq(place + 1), left.eq(left - 1)]
                with m.Elif(axi.rready):
                    m.d.sync += axi.rvalid.eq(0)
                with m.If(axi.rvalid & axi.rready & axi.rlast):
                    m.next = "idle"

    def _build_write(self, m, port):
        axi, axil = self.axi, self.axil
        place, word = Signal.like(port.addr), Signal()
        m.d.comb += word.eq(axil.awvalid & axil.wvalid)
        with m.FSM(name="write"):
            with m.State("idle"):
                m.d.comb += [axil.awready.eq(word), axil.wready.eq(word), axi.awready.eq(~word)]
                with m.If(word):
                    response = self._response(axil.awaddr)
                    m.d.comb += [port.addr.eq(axil.awaddr[3:]), port.data.eq(axil.wdata.replicate(2))]
                    with m.If(response == Response.OKAY.value):
                        m.d.comb += port.en.eq(axil.wstrb << (axil.awaddr[2] << 2))
                    m.d.sync += axil.bresp.eq(response)
                    m.next = "word"
                with m.Elif(axi.awvalid):
                    self._check(m, "w")
                    m.d.sync += [place.eq(axi.awaddr[3:]), axi.bid.eq(axi.awid),
                                 axi.bresp.eq(self._response(axi.awaddr))]
                    m.next = "burst"
            with m.State("word"):
                m.d.comb += axil.bvalid.eq(1)
                with m.If(axil.bready):
                    m.next = "idle"
            with m.State("burst"):
                m.d.comb += [axi.wready.eq(1), port.addr.eq(place), port.data.eq(axi.wdata)]
                with m.If(axi.wvalid):
                    with m.If(axi.bresp == Response.OKAY.value):
                        m.d.comb += port.en.eq(axi.wstrb)
                    m.d.sync += place.eq(place + 1)
                    with m.If(axi.wlast):
                        m.next = "respond"
            with m.State("respond"):
                m.d.comb += axi.bvalid.eq(1)
                with m.If(axi.bready):
                    m.next = "idle"

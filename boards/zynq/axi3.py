"""AXI3 as the ports of the PS7 speak it, and the way from there to the registers.

Source: Arm IHI 0022H, chapters A2 and A5 (AXI3: bursts of up to 16 beats, WID); Xilinx UG585, chapter 5.
"""
from amaranth import *
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.bus.axi4 import AxiLiteSignature

#: Id bits of the general-purpose master port GP0.
GP_ID_BITS = 12


class Axi3Signature(wiring.Signature):
    """The general-purpose master port: 32 data bits, seen from the master. Locks, caches and QoS are left out."""
    def __init__(self):
        members = {}
        for letter in "rw":
            members |= {f"a{letter}id": Out(GP_ID_BITS), f"a{letter}addr": Out(32), f"a{letter}len": Out(4),
                        f"a{letter}size": Out(2), f"a{letter}burst": Out(2), f"a{letter}valid": Out(1),
                        f"a{letter}ready": In(1)}
        super().__init__(members | {
            "rid": In(GP_ID_BITS), "rdata": In(32), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
            "wdata": Out(32), "wstrb": Out(4), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
            "bid": In(GP_ID_BITS), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        })


class Axi3ToLite(wiring.Component):
    """Serve an AXI3 master from an AXI4-Lite slave, beat by beat.

    A burst of n beats becomes n accesses. FIXED bursts stay at their address, all others count up (the cores never send
    WRAP to a device). The response of a write burst is the worst one of its beats. Accesses of less than a word read
    the whole word; the strobes say what they write.

    Flow control: one read burst and one write burst at a time, independent of each other.

    Members
    -------
    i : In(Axi3Signature())
        From the master.
    o : Out(AxiLiteSignature(address_width))
        To the slave: the low ``address_width`` bits of the address.
    """

    def __init__(self, address_width: int):
        super().__init__({"i": In(Axi3Signature()), "o": Out(AxiLiteSignature(address_width))})

    def elaborate(self, platform):
        m = Module()
        self._build_read(m)
        self._build_write(m)
        return m

    def _build_read(self, m):
        left, fixed, target = Signal(4), Signal(), Signal.like(self.o.araddr)
        m.d.comb += [
            self.o.araddr.eq(target), self.i.rdata.eq(self.o.rdata), self.i.rresp.eq(self.o.rresp),
            self.i.rlast.eq(left == 0),
        ]
        with m.FSM(name="read"):
            with m.State("idle"):
                m.d.comb += self.i.arready.eq(1)
                with m.If(self.i.arvalid):
                    m.d.sync += [self.i.rid.eq(self.i.arid), target.eq(self.i.araddr), left.eq(self.i.arlen),
                                 fixed.eq(self.i.arburst == 0)]
                    m.next = "address"
            with m.State("address"):
                m.d.comb += self.o.arvalid.eq(1)
                with m.If(self.o.arready):
                    m.next = "data"
            with m.State("data"):
                m.d.comb += [self.i.rvalid.eq(self.o.rvalid), self.o.rready.eq(self.i.rready)]
                with m.If(self.o.rvalid & self.i.rready):
                    m.d.sync += [left.eq(left - 1), target.eq(target + Mux(fixed, 0, 4))]
                    m.next = "address"
                    with m.If(left == 0):
                        m.next = "idle"

    def _build_write(self, m):
        fixed, target, last, sent = Signal(), Signal.like(self.o.awaddr), Signal(), Signal(2)
        m.d.comb += [
            self.o.awaddr.eq(target), self.o.wdata.eq(self.i.wdata), self.o.wstrb.eq(self.i.wstrb),
        ]
        with m.FSM(name="write"):
            with m.State("idle"):
                m.d.comb += self.i.awready.eq(1)
                with m.If(self.i.awvalid):
                    m.d.sync += [self.i.bid.eq(self.i.awid), target.eq(self.i.awaddr), fixed.eq(self.i.awburst == 0),
                                 self.i.bresp.eq(0)]
                    m.next = "beat"
            with m.State("beat"):
                # Address and data of a beat go out in any order.
                m.d.comb += [
                    self.o.awvalid.eq(self.i.wvalid & ~sent[0]), self.o.wvalid.eq(self.i.wvalid & ~sent[1]),
                    self.i.wready.eq((self.o.awready | sent[0]) & (self.o.wready | sent[1])),
                ]
                with m.If(self.i.wvalid):
                    m.d.sync += sent.eq(sent | Cat(self.o.awready, self.o.wready))
                    with m.If(self.i.wready):
                        m.d.sync += [sent.eq(0), last.eq(self.i.wlast)]
                        m.next = "answer"
            with m.State("answer"):
                m.d.comb += self.o.bready.eq(1)
                with m.If(self.o.bvalid):
                    m.d.sync += [self.i.bresp.eq(self.i.bresp | self.o.bresp), target.eq(target + Mux(fixed, 0, 4))]
                    m.next = "beat"
                    with m.If(last):
                        m.next = "respond"
            with m.State("respond"):
                m.d.comb += self.i.bvalid.eq(1)
                with m.If(self.i.bready):
                    m.next = "idle"

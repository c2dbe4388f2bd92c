"""The two buses of the accelerator, with the names of AMBA.

A member ``m_axi: Out(Axi4Signature())`` becomes the ports ``m_axi__awvalid`` and so on.

Source: Arm IHI 0022H, "AMBA AXI and ACE Protocol Specification", chapters A2, A3 and B1.
"""
from amaranth import *
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from ..config import BEAT

ADDRESS_BITS = 32
ID_BITS = 4
#: ``arsize`` and ``awsize`` of a burst of whole beats, and the only kind of burst that is used.
SIZE = (BEAT // 8 - 1).bit_length()
BURST_INCR = 1
#: ``arcache`` and ``awcache``: normal memory, not cacheable, bufferable; what the HP ports of a Zynq expect.
CACHE = 0b0011


class Response(enum.Enum, shape=2):
    """``bresp`` and ``rresp``."""
    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


def _address(letter):
    return {f"a{letter}id": Out(ID_BITS), f"a{letter}addr": Out(ADDRESS_BITS), f"a{letter}len": Out(8),
            f"a{letter}size": Out(3), f"a{letter}burst": Out(2), f"a{letter}cache": Out(4), f"a{letter}prot": Out(3),
            f"a{letter}valid": Out(1), f"a{letter}ready": In(1)}


_READ = _address("r") | {"rid": In(ID_BITS), "rdata": In(BEAT), "rresp": In(2), "rlast": In(1), "rvalid": In(1),
                         "rready": Out(1)}
_WRITE = _address("w") | {"wdata": Out(BEAT), "wstrb": Out(BEAT // 8), "wlast": Out(1), "wid": Out(ID_BITS),
                          "wvalid": Out(1), "wready": In(1), "bid": In(ID_BITS), "bresp": In(2), "bvalid": In(1),
                          "bready": Out(1)}


class Axi4ReadSignature(wiring.Signature):
    """Channels AR and R of :class:`Axi4Signature`."""
    def __init__(self):
        super().__init__(_READ)


class Axi4WriteSignature(wiring.Signature):
    """Channels AW, W and B of :class:`Axi4Signature`."""
    def __init__(self):
        super().__init__(_WRITE)


class Axi4Signature(wiring.Signature):
    """AXI4 with 64 data bits, 32 address bits and 4 id bits, seen from the master.

    ``wid``, the id of a write's data, is for slaves that speak AXI3; AXI4 has none.
    """
    def __init__(self):
        super().__init__(_READ | _WRITE)


class AxiLiteSignature(wiring.Signature):
    """AXI4-Lite with 32 data bits and ``address_width`` address bits, seen from the master."""
    def __init__(self, address_width: int):
        self.address_width = address_width
        super().__init__({
            "awaddr": Out(address_width), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address_width), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })


def connect_axi4(m, axi, *parts):
    """Drive the master port ``axi`` of the component that ``m`` belongs to from parts that own some of its channels.

    ``axi`` is the component's own ``Out(Axi4Signature())``, as seen from inside; ``parts`` are the ``axi`` members of
    an ``AxiReader`` and an ``AxiWriter``.
    """
    for part in parts:
        for name, member in part.signature.members.items():
            inside, outside = getattr(part, name), getattr(axi, name)
            m.d.comb += outside.eq(inside) if member.flow is Out else inside.eq(outside)

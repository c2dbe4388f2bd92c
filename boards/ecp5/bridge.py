"""From a serial line to AXI4-Lite: how a PC reads and writes registers and memory, and waits for the interrupt.

A request, then its answer; the PC sends nothing before it has the answer, or has given up waiting for it.

| request  | bytes                                                                              |
|----------|------------------------------------------------------------------------------------|
| start    | 0x5A                                                                               |
| op       | 1 read, 2 write, 3 wait, 4 describe                                                |
| last     | read, write: words - 1; wait: 0; describe: 1                                       |
| address  | 4 bytes. read, write: of the first word, a multiple of 4; wait: bit times, at most |
| words    | write: 4 bytes each                                                                |
| checksum | 2 bytes                                                                            |

| answer   | bytes                                                                              |
|----------|------------------------------------------------------------------------------------|
| start    | 0x5A                                                                               |
| words    | read: 4 bytes each. wait: 1 if the interrupt line is high, 0 if the time is over.  |
|          | describe: address and bytes of the memory                                          |
| response | 1 byte: all AXI responses of the request, or-ed                                    |
| checksum | 2 bytes                                                                            |

Numbers are little endian. The checksum is the CRC-16/XMODEM of all bytes after the start byte, high byte first. A
request is executed when it is there as a whole and its checksum is right; any other gets no answer. After
``QUIET_BITS`` bit times without a byte the bridge forgets what has come of a request: a PC that has waited for so long
can start anew, whatever was lost.
"""
from amaranth import *
from amaranth.lib import crc, data, enum, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.bus.axi4 import ADDRESS_BITS, AxiLiteSignature

from .uart import UartReceiver, UartTransmitter

START = 0x5A
#: Bit times without a byte after which a request that is not complete is dropped: a tenth of a second at 1 Mbaud.
QUIET_BITS = 100_000
#: Most words of a request.
MAX_WORDS = 256


class Op(enum.Enum, shape=8):
    READ = 1
    WRITE = 2
    WAIT = 3
    DESCRIBE = 4


#: A request from its second byte to its words.
HEADER = data.StructLayout({"op": Op, "last": 8, "address": ADDRESS_BITS})


class UartBridge(wiring.Component):
    """Execute what comes on a serial line as accesses of an AXI4-Lite master. The protocol is that of the module.

    Flow control: one access at a time; its address stays until it has been answered.

    Parameters
    ----------
    divisor : int
        Clock cycles of a bit, at least 4.
    memory_base, memory_size : int
        What ``describe`` answers.
    quiet_bits : int
        ``QUIET_BITS``, or less in tests.

    Members
    -------
    i_line, o_line : In(1), Out(1)
        From and to the PC. ``i_line`` is not synchronised.
    i_irq : In(1)
        What ``wait`` waits for.
    axil : Out(AxiLiteSignature(32))
        The accesses. ``araddr`` and ``awaddr`` are the same.
    """

    def __init__(self, divisor: int, memory_base: int, memory_size: int, *, quiet_bits: int = QUIET_BITS):
        self.divisor, self.quiet_bits = divisor, quiet_bits
        self.memory_base, self.memory_size = memory_base, memory_size
        super().__init__({"i_line": In(1), "o_line": Out(1, init=1), "i_irq": In(1),
                          "axil": Out(AxiLiteSignature(ADDRESS_BITS))})

    def elaborate(self, platform):
        m = Module()
        m.submodules.receiver = self._receiver = UartReceiver(self.divisor)
        m.submodules.transmitter = self._transmitter = UartTransmitter(self.divisor)
        m.submodules.crc = self._crc = crc.catalog.CRC16_XMODEM().create()
        # Words of a write, kept until the checksum has been seen.
        m.submodules.buffer = self._buffer = Memory(shape=32, depth=MAX_WORDS, init=[])
        self._header, self._index = Signal(HEADER), Signal(range(MAX_WORDS + 1))
        self._word, self._part, self._response = Signal(32), Signal(3), Signal(2)
        m.d.comb += [
            self._receiver.i.eq(self.i_line), self.o_line.eq(self._transmitter.o),
            self.axil.araddr.eq(self._header.address), self.axil.awaddr.eq(self._header.address),
            self.axil.wstrb.eq(0b1111),
        ]
        self._build_time(m)
        with m.FSM():
            self._build_request(m)
            self._build_accesses(m)
            self._build_answer(m)
        return m

    def _build_time(self, m):
        """``_tick`` once in a bit time; ``_quiet`` after ``quiet_bits`` of them without a byte."""
        prescaler, quiet = Signal(range(self.divisor)), Signal(range(self.quiet_bits + 1))
        self._tick, self._quiet = Signal(), Signal()
        m.d.comb += [self._tick.eq(prescaler == self.divisor - 1), self._quiet.eq(quiet == self.quiet_bits)]
        m.d.sync += prescaler.eq(Mux(self._tick, 0, prescaler + 1))
        with m.If(self._receiver.o.valid):
            m.d.sync += quiet.eq(0)
        with m.Elif(self._tick & ~self._quiet):
            m.d.sync += quiet.eq(quiet + 1)

    def _receive(self, m):
        """Take a byte of a request if there is one; ``with`` its statements. Back to the start after a long silence."""
        byte = self._receiver.o
        m.d.comb += [self._crc.data.eq(byte.payload), self._crc.valid.eq(byte.valid)]
        with m.If(self._quiet):
            m.next = "start"
        return m.If(byte.valid)

    def _build_request(self, m):
        header, byte = self._header, self._receiver.o.payload
        port = self._buffer.write_port()
        m.d.comb += [port.addr.eq(self._index), port.data.eq(Cat(self._word[8:], byte))]
        with m.State("start"):
            m.d.comb += self._crc.start.eq(1)
            m.d.sync += [self._index.eq(0), self._part.eq(0), self._response.eq(0)]
            with m.If(self._receiver.o.valid & (byte == START)):
                m.next = "header"
        with m.State("header"):
            with self._receive(m):
                m.d.sync += [header.eq(Cat(header.as_value()[8:], byte)), self._part.eq(self._part + 1)]
                with m.If(self._part == HEADER.size // 8 - 1):
                    m.d.sync += self._part.eq(0)
                    m.next = "kind"
        with m.State("kind"):
            m.next = "checksum"
            with m.If(header.op == Op.WRITE):
                m.next = "words"
        with m.State("words"):
            with self._receive(m):
                m.d.sync += [self._word.eq(port.data), self._part.eq(self._part + 1)]
                with m.If(self._part == 3):
                    m.d.comb += port.en.eq(1)
                    m.d.sync += [self._part.eq(0), self._index.eq(self._index + 1)]
                    with m.If(self._index == header.last):
                        m.next = "checksum"
        with m.State("checksum"):
            with self._receive(m):
                m.d.sync += self._part.eq(self._part + 1)
                with m.If(self._part == 1):
                    m.next = "judge"
        with m.State("judge"):
            m.d.sync += [self._index.eq(0), self._part.eq(0)]
            m.next = "start"
            with m.If(self._crc.match_detected & (header.op.as_value() >= 1) & (header.op.as_value() <= len(Op))):
                m.next = "begin"

    def _send(self, m, byte, following, *, summed=True):
        """Send ``byte``; when it has been taken, ``following``."""
        output = self._transmitter.i
        m.d.comb += [output.payload.eq(byte), output.valid.eq(1)]
        if summed:
            m.d.comb += [self._crc.data.eq(byte), self._crc.valid.eq(output.ready)]
        with m.If(output.ready):
            m.next = following

    def _next_word(self, m):
        """Go on to the next word of the request, or to the end of the answer."""
        m.d.sync += [self._index.eq(self._index + 1), self._header.address.eq(self._header.address + 4)]
        m.next = "access"
        with m.If(self._index == self._header.last):
            m.next = "response"

    def _build_accesses(self, m):
        axil, header = self.axil, self._header
        port = self._buffer.read_port()
        m.d.comb += [port.addr.eq(self._index), axil.wdata.eq(port.data)]
        sent = Signal(2)
        with m.State("access"):
            with m.Switch(header.op):
                with m.Case(Op.READ):
                    m.d.comb += axil.arvalid.eq(1)
                    with m.If(axil.arready):
                        m.next = "read"
                with m.Case(Op.WRITE):
                    # The buffer shows its word a cycle later.
                    m.next = "write"
                with m.Case(Op.WAIT):
                    m.d.sync += self._word.eq(self.i_irq)
                    with m.If(self._tick):
                        m.d.sync += header.address.eq(header.address - 1)
                    with m.If(self.i_irq | (header.address == 0)):
                        m.next = "word"
                with m.Case(Op.DESCRIBE):
                    m.d.sync += self._word.eq(Mux(self._index == 0, self.memory_base, self.memory_size))
                    m.next = "word"
        with m.State("read"):
            m.d.comb += axil.rready.eq(1)
            m.d.sync += self._word.eq(axil.rdata)
            with m.If(axil.rvalid):
                m.d.sync += self._response.eq(self._response | axil.rresp)
                m.next = "word"
        with m.State("write"):
            m.d.comb += [axil.awvalid.eq(~sent[0]), axil.wvalid.eq(~sent[1]), axil.bready.eq(1)]
            m.d.sync += sent.eq(sent | Cat(axil.awready, axil.wready))
            with m.If(axil.bvalid):
                m.d.sync += [self._response.eq(self._response | axil.bresp), sent.eq(0)]
                self._next_word(m)

    def _build_answer(self, m):
        with m.State("begin"):
            m.d.comb += self._crc.start.eq(1)
            self._send(m, START, "access", summed=False)
        with m.State("word"):
            self._send(m, self._word[:8], "word")
            with m.If(self._transmitter.i.ready):
                m.d.sync += [self._word.eq(self._word >> 8), self._part.eq(self._part + 1)]
                with m.If(self._part == 3):
                    m.d.sync += self._part.eq(0)
                    self._next_word(m)
        with m.State("response"):
            self._send(m, self._response, "checksum high")
        with m.State("checksum high"):
            self._send(m, self._crc.crc[8:], "checksum low", summed=False)
        with m.State("checksum low"):
            self._send(m, self._crc.crc[:8], "start", summed=False)

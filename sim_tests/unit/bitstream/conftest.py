"""A small family of tile types in Project X-Ray's format, with every case that the real one has."""
import json
import struct

import pytest

from boards.bitstream.database import Database

FILES = {
    "mapping/parts.yaml": 'tinyclg1-1:\n  device: tiny\n  package: clg1\n  speedgrade: \'1\'\n'
                          'tinyclg1-2:\n  device: tiny\n  package: clg1\n  speedgrade: \'2\'\n',
    "mapping/devices.yaml": '# device to fabric\n"tiny":\n  fabric: "fabric"\n',
    # Multi-bit and negated bits; X and Y want bit 33 of frame 1 differently, PART's bits are a part of WHOLE's.
    "segbits_int_l.db": "INT_L.A.X 00_03 01_33\nINT_L.A.Y 00_03 !01_33 02_05\nINT_L.B.Z !00_07 02_06\n"
                        "INT_L.PART 00_10\nINT_L.WHOLE 00_10 02_63\n",
    "ppips_int_l.db": "INT_L.WIRE.OTHER always\nINT_L.WIRE.DEFAULT default\n",
    # The same words as INT_L, other bits of them.
    "segbits_clb.db": "".join(f"CLB.SLICE.INIT[{n:02}] 0{n % 4}_{40 + n // 4:02}\n" for n in range(16))
                      + "CLB.SLICE.NOCLK !03_30\n",
    "segbits_bram.db": "BRAM.WIDTH.W1 00_319\nBRAM.WIDTH.W2 00_319 01_000\nBRAM.ZERO[0] 01_100\nBRAM.ZERO[1] 01_101\n",
    "segbits_bram.block_ram.db": "".join(f"BRAM.RAMB_Y0.INIT_00[{n:03}] {n // 64:02}_{n % 64 * 5:03}\n"
                                         for n in range(256)),
    "segbits_iob33.db": "IOB33.IOB_Y0.IN 00_70 !01_71\nIOB33.IOB_Y0.OUT 01_71\nIOB33.IOB_Y1.IN 00_02 !01_03\n"
                        "IOB33.IOB_Y0.LVCMOS18.STEPDOWN 00_127\nIOB33.IOB_Y1.LVCMOS18.STEPDOWN 00_31\n"
                        "IOB33.IOB_Y0.PULLDOWN !00_80 !00_81\nIOB33.IOB_Y0.PULLUP 00_80 00_81\n"
                        "IOB33.DIFF 00_40 00_90\n",
    "ppips_iob33_sing.db": "IOB33_SING.WIRE.SING always\n",
    "segbits_cfg.db": "CFG.ALWAYS_ON 00_1613\n",
    "tinyclg1-1/required_features.fasm": "CFG_X1Y0.ALWAYS_ON\n",
}


def tile(kind, sites=(), **buses):
    bits = {bus: {"baseaddr": f"0x{address:08X}", "frames": frames, "offset": offset, "words": words}
            for bus, (address, frames, offset, words) in buses.items()}
    return {"type": kind, "bits": bits, "sites": {site: "SITE" for site in sites}, "grid_x": 0, "grid_y": 0}


def half(first, site):
    entry = tile("IOB33_SING", [site], CLB_IO_CLK=(0x80, 2, 99 if first == 0 else 0, 2))
    entry["bits"]["CLB_IO_CLK"]["alias"] = {"type": "IOB33", "start_offset": first, "sites": {}}
    return entry


TILEGRID = {
    "INT_L_X0Y0": tile("INT_L", CLB_IO_CLK=(0x0, 3, 0, 2)),
    "INT_L_X0Y1": tile("INT_L", CLB_IO_CLK=(0x0, 3, 2, 2)),
    "CLB_X0Y0": tile("CLB", ["SLICE_X0Y0"], CLB_IO_CLK=(0x0, 4, 0, 2)),
    "CLB_X0Y1": tile("CLB", ["SLICE_X0Y1"], CLB_IO_CLK=(0x0, 4, 2, 2)),
    "BRAM_X2Y0": tile("BRAM", ["RAMB_X0Y0"], CLB_IO_CLK=(0x400000, 2, 5, 10), BLOCK_RAM=(0xC00000, 4, 5, 10)),
    "IOB33_X1Y1": tile("IOB33", ["IOB_X0Y1", "IOB_X0Y2"], CLB_IO_CLK=(0x80, 2, 2, 4)),
    "IOB33_X1Y3": tile("IOB33", ["IOB_X0Y3", "IOB_X0Y4"], CLB_IO_CLK=(0x80, 2, 6, 4)),
    "IOB33_X1Y51": tile("IOB33", ["IOB_X0Y51", "IOB_X0Y52"], CLB_IO_CLK=(0x400080, 2, 2, 4)),
    "IOB33_SING_X1Y0": half(2, "IOB_X0Y0"),
    "IOB33_SING_X1Y49": half(0, "IOB_X0Y49"),
    "CFG_X1Y0": tile("CFG", CLB_IO_CLK=(0x400000, 1, 0, 101)),
    "VOID_X3Y0": tile("VOID"),
}


def bus(*frame_counts):
    columns = {str(n): {"frame_count": count} for n, count in enumerate(frame_counts)}
    return {"configuration_columns": dict(reversed(columns.items()))}


PART = {"idcode": 0x3727093, "iobanks": {}, "global_clock_regions": {
    "bottom": {"rows": {"0": {"configuration_buses": {"BLOCK_RAM": bus(4), "CLB_IO_CLK": bus(2, 2)}}}},
    "top": {"rows": {"0": {"configuration_buses": {"CLB_IO_CLK": bus(4, 2)}}}}}}
PINS = "pin,bank,site,tile,pin_function\nA1,34,IOB_X0Y0,IOB33_SING_X1Y0,IO\nA2,34,IOB_X0Y1,IOB33_X1Y1,IO\n" \
       "A3,34,IOB_X0Y2,IOB33_X1Y1,IO\nA4,34,IOB_X0Y3,IOB33_X1Y3,IO\nA5,34,IOB_X0Y49,IOB33_SING_X1Y49,IO\n" \
       "B1,35,IOB_X0Y51,IOB33_X1Y51,IO\n"
PARTS = ("tinyclg1-1", "tinyclg1-2")


@pytest.fixture(scope="session")
def family(tmp_path_factory):
    """The folder of the family."""
    folder = tmp_path_factory.mktemp("family")
    files = FILES | {"fabric/tilegrid.json": json.dumps(TILEGRID)}
    for part in PARTS:
        files |= {f"{part}/part.json": json.dumps(PART), f"{part}/package_pins.csv": PINS}
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="session")
def database(family):
    """The part without required features, so that a design's frames hold the design alone."""
    return Database(family, "tinyclg1-2")


def device_crc(crc, register, word):
    """The CRC after a write, bit by bit: CRC-32C over 32 bits of data, then 5 of the register, lowest first."""
    value = register << 32 | word
    for n in range(37):
        crc = crc >> 1 ^ (0x82F63B78 if (crc ^ value >> n) & 1 else 0)
    return crc


class Writer:
    """Writes a .bit by hand."""

    def __init__(self):
        self.words = [0xFFFFFFFF, 0x000000BB, 0x11220044, 0xFFFFFFFF, 0xAA995566, 0x20000000]
        self.crc = 0

    def write(self, register, *words, long=False):
        """A packet of type 1, or one of type 2 after an empty one of type 1."""
        count = 0 if long else len(words)
        self.words += [1 << 29 | 2 << 27 | register << 13 | count] + [2 << 29 | 2 << 27 | len(words)] * long + [*words]
        for word in words:
            self.crc = device_crc(self.crc, register, word)
        if (register, words[-1]) == (4, 7):
            self.crc = 0
        return self

    def check(self, error=0):
        """A check of the CRC, wrong where ``error`` is not 0."""
        self.words += [0x30000001, self.crc ^ error]
        self.crc = 0
        return self

    def content(self, idcode, frames, error=0):
        """A whole bitstream: IDCODE, frames from address 0, CRC, DESYNC and what the device ignores after it."""
        self.write(4, 7).write(12, idcode).write(1, 0).write(4, 1).write(2, *frames, long=True).check(error)
        self.write(1, 0x3BE0000).write(4, 13).words += [0x20000000, 0xDEADBEEF]
        return self

    def file(self):
        """The bytes of the .bit."""
        def text(key, value):
            return key + struct.pack(">H", len(value) + 1) + value + b"\0"
        data = struct.pack(f">{len(self.words)}I", *self.words)
        return (bytes.fromhex("00090ff00ff00ff00ff0000001") + text(b"a", b"top;Generator=hand")
                + text(b"b", b"tinyclg1-1") + text(b"c", b"2024/02/29") + text(b"d", b"12:34:56")
                + b"e" + struct.pack(">I", len(data)) + data)


@pytest.fixture
def writer():
    """A new :class:`Writer`."""
    return Writer()


@pytest.fixture(scope="session")
def make_writer():
    """The class, for tests that need more than one."""
    return Writer

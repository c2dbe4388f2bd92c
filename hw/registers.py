"""The register description: the one source of the register bank, the C header and docs/registers.md. Plain data.

Access words: ``ro`` read only, ``rw`` read and write, ``wo`` write only (reads 0, a write is a pulse of the written
bits), ``rw1c`` set by hardware, cleared by writing 1.
"""
from dataclasses import dataclass

#: "ZSKP", and major.minor.patch of the register map in one byte each.
IDENTITY = 0x5A534B50
VERSION = 0x000200


@dataclass(frozen=True)
class Field:
    """Bits ``high..low`` of a register."""
    name: str
    high: int
    low: int
    access: str
    text: str

    @property
    def width(self) -> int:
        return self.high - self.low + 1

    @property
    def mask(self) -> int:
        return (1 << self.width) - 1 << self.low


@dataclass(frozen=True)
class Register:
    """A 32-bit register at byte ``offset`` of the AXI4-Lite space."""
    name: str
    offset: int
    text: str
    fields: tuple[Field, ...]


def _value(name, offset, access, text):
    return Register(name, offset, text, (Field("value", 31, 0, access, text),))


#: error_code: what stopped a run.
ERRORS = {
    "none": (0, "No error."),
    "read_response": (1, "AXI read answered SLVERR or DECERR; error_address is its burst."),
    "write_response": (2, "AXI write answered SLVERR or DECERR; error_address is its burst."),
    "descriptor_field": (3, "A descriptor field is out of range; error_address is its address in DRAM."),
    "tile_too_large": (4, "A tile does not fit the tile buffer; error_address is the descriptor's address."),
    "chunk_too_large": (5, "A chunk does not fit the weight buffer; error_address is the descriptor's address."),
    "pass_too_large": (6, "The windows of a pass do not fit the partial-sum buffer; error_address as above."),
    "pool_too_wide": (7, "A tile has more pooled columns than the row buffer; error_address as above."),
    "watchdog": (8, "No progress for `watchdog` cycles; error_address is the descriptor's address."),
    "geometry": (9, "Passes, tiles and addresses of a descriptor do not agree; error_address as above."),
    "stopped": (10, "The run was stopped by control.stop."),
}

REGISTERS = (
    _value("identity", 0x00, "ro", "0x5A534B50, \"ZSKP\"."),
    _value("version", 0x04, "ro", "Version of the register map: major, minor, patch in bits 23..16, 15..8, 7..0."),
    Register("capability", 0x08, "What was generated.", (
        Field("groups", 4, 0, "ro", "Groups."),
        Field("lanes", 13, 5, "ro", "Lanes of a group."),
        Field("value_width", 18, 14, "ro", "Bits of a value: 8 or 16."),
        Field("block", 25, 19, "ro", "Channels of a sparsity map word."),
        Field("array", 31, 28, "ro", "Kind of array: 0 broadcast, 1 intersect."),
    )),
    Register("control", 0x0C, "Commands.", (
        Field("start", 0, 0, "wo", "Write 1: run the descriptor list. Ignored while busy."),
        Field("stop", 1, 1, "wo", "Write 1: finish what is on the bus, then reset all of the core but the registers."),
    )),
    Register("status", 0x10, "State of the run.", (
        Field("busy", 0, 0, "ro", "1 from start to done or error."),
        Field("done", 1, 1, "rw1c", "Set at the end of a run without error."),
        Field("error", 2, 2, "rw1c", "Set at the end of a run with an error; see error_code."),
    )),
    Register("interrupt_enable", 0x14, "The interrupt line is (status.done & done) | (status.error & error).", (
        Field("done", 1, 1, "rw", "1: done raises the interrupt."),
        Field("error", 2, 2, "rw", "1: error raises the interrupt."),
    )),
    Register("error_code", 0x18, "What stopped the last run.", (
        Field("value", 7, 0, "ro", "0: none. See the table of errors."),
    )),
    _value("error_address", 0x1C, "ro", "Address that belongs to error_code."),
    _value("descriptor_address", 0x20, "rw", "First descriptor in DRAM, a multiple of 8."),
    Register("layer_count", 0x24, "Descriptors to run.", (
        Field("value", 15, 0, "rw", "1 to 65535; 0 ends at once with done."),)),
    _value("log_address", 0x28, "rw", "Where the counters of each layer are written, 128 bytes a layer; a multiple of "
                                      "128; 0: nowhere."),
    Register("layer", 0x2C, "Progress.", (
        Field("value", 15, 0, "ro", "Layers finished in this run."),)),
    _value("watchdog", 0x30, "rw", "Cycles without progress before a run ends with an error; 0: never. Reset value "
                                   "1,000,000."),
    _value("cycles_low", 0x34, "ro", "Cycles of the run so far, bits 31..0. Latches cycles_high."),
    _value("cycles_high", 0x38, "ro", "Cycles of the run, bits 63..32, as latched."),
    _value("configuration", 0x3C, "ro", "CRC-32 of all parameters of the generated configuration: an image that was "
                                        "compiled for another one does not run."),
)

#: Values of a register at reset, where not 0.
RESET_VALUES = {"watchdog": 1_000_000}

#: The 64-bit counters of a layer in the order of the log record (16 words of 8 bytes, the rest 0).
COUNTERS = (
    ("cycles", "Clock cycles from the start of the layer to its last write response."),
    ("lane_cycles", "Lane-cycles in which a lane multiplied a non-zero activation: non-zero MACs."),
    ("busy", "Group-cycles in which a non-zero value was issued."),
    ("stall_output", "Group-cycles waiting for the drain."),
    ("stall_tile", "Group-cycles waiting for input tiles."),
    ("stall_weights", "Group-cycles waiting for weights."),
    ("stall_find", "Group-cycles with work in which no non-zero was found in time."),
    ("idle", "Group-cycles without a job."),
    ("read_beats", "Beats read from DRAM (8 bytes each)."),
    ("write_beats", "Beats written to DRAM (8 bytes each), this record not included."),
)
LOG_BYTES = 128


def register(name: str) -> Register:
    """The register called ``name``; ``KeyError`` if there is none."""
    return {entry.name: entry for entry in REGISTERS}[name]

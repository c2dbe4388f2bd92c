"""The database: part, tiles, half tiles, rows of frames, and a sentence for what is missing or malformed."""
import shutil

import pytest

from boards.bitstream.database import Bit, Database, DatabaseError, Feature


def test_bits_of_a_feature(database):
    features = database.features(database.tiles["INT_L_X0Y0"])
    assert features["A.Y"] == {0: Feature(0, (Bit(0, 0, 1 << 3), Bit(2, 0, 1 << 5)), (Bit(1, 1, 1 << 1),))}
    assert database.features(database.tiles["CLB_X0Y1"])["SLICE.INIT"][7] == Feature(0, (Bit(3, 1, 1 << 9),), ())


def test_tile_on_two_buses(database):
    tile = database.tiles["BRAM_X2Y0"]
    features = database.features(tile)
    assert tile.segments[features["WIDTH.W1"][0].segment].bus == "CLB_IO_CLK"
    assert tile.segments[features["RAMB_Y0.INIT_00"][255].segment].bus == "BLOCK_RAM"
    assert features["WIDTH.W1"][0].ones == (Bit(0, 9, 1 << 31),)


def test_half_tiles_have_the_features_of_their_half(database):
    lower, upper = (database.features(database.tiles[name]) for name in ("IOB33_SING_X1Y49", "IOB33_SING_X1Y0"))
    assert set(lower) == {"IOB_Y1.IN", "IOB_Y1.LVCMOS18.STEPDOWN"}
    assert set(upper) == {"IOB_Y0.IN", "IOB_Y0.OUT", "IOB_Y0.LVCMOS18.STEPDOWN", "IOB_Y0.PULLDOWN", "IOB_Y0.PULLUP"}
    assert upper["IOB_Y0.IN"][0] == Feature(0, (Bit(0, 0, 1 << 6),), (Bit(1, 0, 1 << 7),))
    assert database.pseudo_pips(database.tiles["IOB33_SING_X1Y0"]) == {"WIRE.SING"}


def test_rows_in_the_order_of_a_bitstream(database):
    assert database.rows == [[0, 1, 2, 3, 0x80, 0x81], [0x400000, 0x400001, 0x400080, 0x400081],
                             [0xC00000, 0xC00001, 0xC00002, 0xC00003]]
    assert database.idcode == 0x3727093


def test_segbits_are_read_when_needed(family):
    database = Database(family, "tinyclg1-1")
    (family / "segbits_void.db").write_text("VOID.A\n")
    try:
        database.features(database.tiles["INT_L_X0Y0"])
        assert database.features(database.tiles["VOID_X3Y0"]) == {}
    finally:
        (family / "segbits_void.db").unlink()


def copy(family, tmp_path, name, text):
    shutil.copytree(family, tmp_path / "family")
    (tmp_path / "family" / name).write_text(text)
    return Database(tmp_path / "family", "tinyclg1-1")


def test_unknown_part_names_the_known(family):
    with pytest.raises(DatabaseError, match="no part 'xc7z045', but tinyclg1-1, tinyclg1-2"):
        Database(family, "xc7z045")


def test_folder_that_is_no_family(tmp_path):
    with pytest.raises(DatabaseError, match="is not the folder of a family"):
        Database(tmp_path, "tinyclg1-1")


def test_device_without_fabric(family, tmp_path):
    with pytest.raises(DatabaseError, match="no entry 'tiny'"):
        copy(family, tmp_path, "mapping/devices.yaml", "")


@pytest.mark.parametrize("line", ["INT_L.A.X 0003", "INT_L.A.X", "INT_L.A.X a_b", "INT_L.A[x] 00_01"])
def test_malformed_segbits(family, tmp_path, line):
    database = copy(family, tmp_path, "segbits_int_l.db", f"INT_L.B 00_00\n{line}\n")
    with pytest.raises(DatabaseError, match="segbits_int_l.db, line 2: not a feature with bits"):
        database.features(database.tiles["INT_L_X0Y0"])


def test_malformed_tilegrid(family, tmp_path):
    database = copy(family, tmp_path, "fabric/tilegrid.json", "{")
    with pytest.raises(DatabaseError, match="tilegrid.json cannot be read: .*Install prjxray-database again"):
        _ = database.tiles

"""Reading .bit files, on files made word by word."""
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards.bitstream.bit import BitError, packets, read_bit, read_configuration, read_frames, to_bin, update_crc

#: Rows of 2 and 1 frames.
ROWS = [[0x0, 0x1], [0x400000]]
#: Those frames, each followed by the padding of two frames at the end of its row.
FRAMES = [word for frame in (1, 2, 0, 0, 3, 0, 0) for word in [frame << 8 | n if frame else 0 for n in range(101)]]


def read(content, tmp_path):
    path = tmp_path / "x.bit"
    path.write_bytes(content)
    return read_bit(path)


def test_header_and_configuration(writer, tmp_path):
    bit = read(writer.content(0x3727093, FRAMES).file(), tmp_path)
    assert (bit.design, bit.part, bit.date, bit.time) == ("top;Generator=hand", "tinyclg1-1", "2024/02/29", "12:34:56")
    assert list(bit.words) == writer.words
    found = read_configuration(bit.words)
    assert found.idcodes == [0x3727093] and found.num_frames == 7
    [(written, computed)] = found.crcs
    assert written == computed != 0


def test_each_crc_is_that_of_the_writes_since_the_last(writer):
    first, second = read_configuration(tuple(writer.write(12, 5).check().write(12, 5).check().words)).crcs
    assert first == second and first[0] == first[1] != 0


def test_frames_without_padding_and_ecc(writer):
    frames = read_frames(read_configuration(tuple(writer.content(0, FRAMES).words)), ROWS)
    expected = {address: [number << 8 | n for n in range(101)] for address, number in ((0, 1), (1, 2), (0x400000, 3))}
    for words in expected.values():
        words[50] &= ~0x1FFF
    assert frames == expected


def test_frames_of_a_part_of_the_device(writer):
    writer.write(1, 0x1).write(2, *FRAMES[101:202], *[0] * 202, *FRAMES[404:505], long=True)
    writer.write(1, 0x0).write(2, *FRAMES[:101])
    frames = read_frames(read_configuration(tuple(writer.words)), ROWS)
    assert {address: words[1] for address, words in frames.items()} == {1: 2 << 8 | 1, 0x400000: 3 << 8 | 1, 0: 257}


def test_crc_that_vivado_ends_with():
    """The last writes of a bitstream are the same in all designs, and so is the CRC after them."""
    crc = 0
    for register, word in ((4, 10), (4, 3), (4, 5), (1, 0x3BE0000), (6, 0x501), (5, 0x501)):
        crc = update_crc(crc, register, (word,))
    assert crc == 0xE3AD7EA5


@given(st.lists(st.tuples(st.integers(1, 31).filter(lambda register: register not in (8, 10)),
                          st.integers(0, (1 << 32) - 1)), min_size=1), st.integers(0, 31), st.data())
def test_crc_finds_a_changed_bit(make_writer, writes, bit, data):
    writer = make_writer()
    positions = []
    for register, word in writes:
        # A write of CMD may reset the CRC or end the bitstream; FDRI takes whole frames.
        if register not in (2, 4):
            writer.write(register, word)
            positions.append(len(writer.words) - 1)
    writer.check()
    [(written, computed)] = read_configuration(tuple(writer.words)).crcs
    assert written == computed
    if positions:
        writer.words[data.draw(st.sampled_from(positions))] ^= 1 << bit
        [(written, computed)] = read_configuration(tuple(writer.words)).crcs
        assert written != computed


def test_every_truncation_is_refused(writer, tmp_path):
    content = writer.write(12, 0x3727093).file()
    for length in range(len(content)):
        with pytest.raises(BitError, match="is truncated|is not a .bit file"):
            read(content[:length], tmp_path)


def test_foreign_files_are_refused(writer, tmp_path):
    content = writer.content(0, FRAMES).file()
    for other, message in ((b"\x7fELF" + bytes(100), "is not a .bit file"), (b"", "is not a .bit file"),
                           (content + b"\0", f"1 bytes follow the end at byte {len(content)}"),
                           (content.replace(b"c\0\x0b", b"x\0\x0b"), "header field 'c' is missing at byte 49"),
                           (content.replace(b"\0e\0", b"\0f\0"), "field 'e', the configuration data, is missing")):
        with pytest.raises(BitError, match=message):
            read(other, tmp_path)


def test_data_of_broken_words_is_refused(tmp_path, writer):
    writer.words = []
    content = writer.file()
    with pytest.raises(BitError, match="configuration data of 3 bytes, not a multiple of 4"):
        read(content[:-1] + b"\3abc", tmp_path)


def test_swapped_bytes_are_named(writer):
    swapped = struct.unpack(f"<{len(writer.words)}I", struct.pack(f">{len(writer.words)}I", *writer.words))
    with pytest.raises(BitError, match="no sync word AA995566"):
        list(packets(swapped))


@pytest.mark.parametrize("words, message", [
    ([0x00000001], "word 6 of the configuration data, 00000001, is not the header of a packet"),
    ([0x50000001, 0], "word 6 of the configuration data, 50000001, is not the header of a packet"),
    ([0x30008002, 0], "the packet at word 6 has 2 words, but 1 follow"),
    ([0x30004000, 0x50000005, 0], "the packet at word 7 has 5 words, but 1 follow"),
])
def test_malformed_packets(writer, words, message):
    # Without the no-operation after the sync word, so that nothing names a register for a packet of type 2.
    with pytest.raises(BitError, match=message):
        list(packets((0xFFFFFFFF, *writer.words[:5], *words)))


def test_packets_end_with_desync(writer):
    words = tuple(writer.write(12, 5).write(4, 13).words) + (0xDEADBEEF,)
    assert list(packets(words)) == [(12, (5,)), (4, (13,))]


def test_compressed_bitstream_is_refused(writer):
    with pytest.raises(BitError, match="compressed"):
        read_configuration(tuple(writer.write(10, 0, 0, 0, 0).words))


def test_partial_frame_is_refused(writer):
    with pytest.raises(BitError, match="100 words of frames are written at frame 0x00000080"):
        read_configuration(tuple(writer.write(1, 0x80).write(2, *[0] * 100).words))


@pytest.mark.parametrize("start, count, message", [
    (0x2, 1, "frames are written from 0x00000002, where the part has none"),
    (0x1, 7, "7 frames are written from 0x00000001, where the part has 6"),
])
def test_frames_of_another_part_are_refused(writer, start, count, message):
    configuration = read_configuration(tuple(writer.write(1, start).write(2, *[0] * 101 * count, long=True).words))
    with pytest.raises(BitError, match=message):
        read_frames(configuration, ROWS)


def test_bin_swaps_the_bytes_of_each_word(writer, tmp_path):
    content = to_bin(read(writer.file(), tmp_path))
    assert content == bytes.fromhex("ffffffff bb000000 44002211 ffffffff 665599aa 00000020")

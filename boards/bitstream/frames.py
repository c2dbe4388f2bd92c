"""Configuration frames of a 7-series device, and the text files that hold them.

Source: Project X-Ray documentation, "Configuration" (frame address, 101 words a frame, ECC in word 50).
"""
from pathlib import Path

#: Words of 32 bits in a frame.
FRAME_WORDS = 101
#: Word and bits that hold a frame's own error correction code. They follow from the others, so they configure nothing.
ECC_WORD, ECC_MASK = 50, 0x1FFF

#: Frame address -> its 101 words. A frame that is absent is all zero.
Frames = dict[int, list[int]]


class FramesError(ValueError):
    """A file of frames cannot be read; the message names file, line and what is wrong."""


def without_ecc(words: list[int]) -> list[int]:
    """The words of a frame with its error correction code set to zero."""
    return [*words[:ECC_WORD], words[ECC_WORD] & ~ECC_MASK, *words[ECC_WORD + 1:]]


def write_frm(frames: Frames, path: Path):
    """Writes a .frm file for ``xc7frames2bit``: a line ``0xADDRESS 0xWORD,0xWORD...`` for each frame, sorted.

    ``xc7frames2bit`` adds the error correction codes and every frame of the part that the file does not have.
    """
    with open(path, "w") as file:
        for address, words in sorted(frames.items()):
            file.write(f"0x{address:08X} {','.join(f'0x{word:08X}' for word in words)}\n")


def read_frames(path: Path) -> Frames:
    """Frames of a .frm file or of the file that ``bitread -o`` writes; error correction codes become zero.

    :class:`FramesError` with the line if the text is neither, a frame has not 101 words or is there twice.
    """
    frames = {}
    address, words, start = None, [], 0

    def finish():
        if address is None:
            return
        if len(words) != FRAME_WORDS or not all(0 <= word < 1 << 32 for word in words):
            raise FramesError(f"{path}, line {start}: frame 0x{address:08X} has {len(words)} words, "
                              f"not {FRAME_WORDS} of 32 bits")
        if address in frames:
            raise FramesError(f"{path}, line {start}: frame 0x{address:08X} is there a second time")
        frames[address] = without_ecc(words)

    number = 0
    try:
        with open(path) as file:
            for number, line in enumerate(file, 1):
                fields = line.replace(",", " ").split()
                # A line of a .frm file is a whole frame; after bitread's ".frame" its words follow in further lines.
                if line.startswith(("0x", ".frame ")):
                    finish()
                    head = int(line[0] == ".")
                    address, words, start = int(fields[head], 16), [], number
                    fields = fields[head + 1:]
                elif fields and address is None:
                    raise ValueError
                words += [int(word, 16) for word in fields]
    except ValueError:
        raise FramesError(f"{path}, line {number}: neither a .frm file nor the output of bitread -o") from None
    finish()
    if not frames:
        raise FramesError(f"{path}: holds no frames")
    return frames

import random

import pytest

from hw.array.intersect.unpack import Unpack
from sim_tests.bench.stream import STALL_GRID, StreamBench

DENSITIES = (0, 1 / 64, 0.1, 0.5, 1)


def unpack(masks, beats):
    """What comes out for ``(mask, last)`` pairs, and how many of the beats that takes."""
    stream, taken, results = [], 0, []
    for mask, last in masks:
        places = []
        for bit in range(8):
            if mask >> bit & 1:
                if not stream:
                    stream = list(beats[taken].to_bytes(8, "little"))
                    taken += 1
                places.append(stream.pop(0))
            else:
                places.append(0)
        if last:
            stream = []
        results.append({"values": int.from_bytes(bytes(places), "little"), "mask": mask})
    return results, taken


def random_masks(chance, count):
    """Runs of masks of one density, each with ``last`` in its last one."""
    masks = []
    while len(masks) < count:
        density, length = chance.choice(DENSITIES), chance.choice((1, 1, 2, 9, 40))
        run = [sum((chance.random() < density) << bit for bit in range(8)) for _ in range(length)]
        masks += [(mask, number == length - 1) for number, mask in enumerate(run)]
    return masks


class Run:
    """Unpack ``masks`` and compare; ``extra`` beats follow those that are needed."""

    def __init__(self, masks, *, seed, stall=(0.0, 0.0), beat_stall=0.0, extra=3):
        chance = random.Random(f"{seed} beats")
        # Enough for a beat for each mask and value of it.
        beats = [chance.randrange(1 << 64) for _ in range(len(masks) + 1)]
        expected, taken = unpack(masks, beats)
        self.dut = dut = Unpack()
        self.bench = StreamBench(dut, seed=seed)
        words = [{"mask": mask, "last": last} for mask, last in masks]
        self.bench.source(dut.i_mask, words, stall=stall[0], noise=True)
        self.bench.source(dut.i_beats, beats[:taken + extra], stall=beat_stall, noise=True)
        self.taken = []
        self.bench.testbench(self._count, background=True)
        received = self.bench.sink(dut.o, count=len(masks), stall=stall[1])
        self.cycles = self.bench.last_cycles
        self.bench.run(deadline=1000 + 60 * len(masks))
        for number, (got, want) in enumerate(zip(received, expected, strict=True)):
            assert got == want, f"word {number} of masks {masks[number]}: {got}, not {want} (seed {seed})"
        assert len(self.taken) == taken, f"{len(self.taken)} beats taken, not {taken} (seed {seed})"

    async def _count(self, ctx):
        cycle = 0
        while True:
            _, _, valid, ready, idle = await ctx.tick().sample(
                self.dut.i_beats.valid, self.dut.i_beats.ready, self.dut.o_idle)
            assert not (idle and ready), f"ready for a beat while idle (cycle {cycle}, seed {self.bench.seed})"
            if valid and ready:
                self.taken.append(cycle)
            cycle += 1


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("beat_stall", (0.0, 0.7))
def test_values_in_their_places_under_stalls(beat_stall, stall):
    seed = f"{stall} {beat_stall}"
    Run(random_masks(random.Random(seed), 200), seed=seed, stall=stall, beat_stall=beat_stall)


def test_every_mask_at_every_place_of_a_beat():
    """Each mask behind 0 to 7 values; in half of the cases it drops the rest of its beat."""
    chance = random.Random(2)
    masks = [pair for mask in range(256) for before in range(8)
             for pair in (((1 << before) - 1, False), (mask, chance.random() < 0.5), (0x81, True))]
    Run(masks, seed=2)


def test_a_mask_a_cycle():
    chance = random.Random(3)
    masks = [(chance.choice((0xFF, 0, chance.randrange(256))), chance.random() < 0.1) for _ in range(300)]
    run = Run(masks, seed=3)
    # The bench counts from 1.
    assert run.cycles == list(range(1 + Unpack.LATENCY, 1 + Unpack.LATENCY + len(masks)))


@pytest.mark.parametrize("last", (False, True))
def test_no_beat_is_waited_for_without_need(last):
    """Masks of 0, and one whose values are the last ones of a beat, pass though no further beat ever comes."""
    masks = [(0, last), (0x0F, False), (0, False), (0xF0, last), (0, last), (0, True)]
    run = Run(masks, seed=4, extra=0)
    assert len(run.taken) == 1

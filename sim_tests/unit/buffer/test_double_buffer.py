# amaranth: UnusedElaboratable=no
import random

import pytest
from amaranth.sim import Simulator

from hw.buffer.double_buffer import DoubleBufferControl


class Model:
    """Fills, takes and releases as plain counters: the half of number n is n % 2."""

    def __init__(self, consumers):
        self.filled = 0
        self.taken, self.released = [0] * consumers, [0] * consumers

    def outputs(self):
        return {"free": self.filled - min(self.released) < 2, "fill_half": self.filled % 2,
                "full": [self.filled > taken for taken in self.taken], "half": [taken % 2 for taken in self.taken]}

    def may_release(self):
        return [taken > released for taken, released in zip(self.taken, self.released, strict=True)]

    def step(self, fill, take, release):
        self.filled += fill
        for n in range(len(self.taken)):
            self.taken[n] += take[n]
            self.released[n] += release[n]

    def state(self):
        """What decides the future; finite, because nothing runs ahead of anything by more than 2."""
        low = min(self.released)
        return self.filled - low, low % 2, tuple(t - low for t in self.taken), tuple(r - low for r in self.released)


def bits(word, consumers):
    return [word >> n & 1 for n in range(consumers)]


def simulate(consumers, testbench):
    dut = DoubleBufferControl(consumers=consumers)
    sim = Simulator(dut)
    sim.add_clock(1e-8)

    async def run(ctx):
        await testbench(ctx, dut)
    sim.add_testbench(run)
    sim.run()


async def step(ctx, dut, model, fill, take, release, where):
    """One cycle with these pulses, and the outputs against the model before and after."""
    word = [sum(bit << n for n, bit in enumerate(pulses)) for pulses in (take, release)]
    ctx.set(dut.i_filled, fill)
    ctx.set(dut.i_take, word[0])
    ctx.set(dut.i_release, word[1])
    check(ctx, dut, model, where)
    await ctx.tick()
    model.step(fill, take, release)
    ctx.set(dut.i_filled, 0)
    ctx.set(dut.i_take, 0)
    ctx.set(dut.i_release, 0)
    check(ctx, dut, model, where)


def check(ctx, dut, model, where):
    consumers = len(model.taken)
    got = {"free": ctx.get(dut.o_free), "fill_half": ctx.get(dut.o_fill_half),
           "full": bits(ctx.get(dut.o_full), consumers), "half": bits(ctx.get(dut.o_half), consumers)}
    assert got == model.outputs(), f"{got}, not {model.outputs()}: {where}"


@pytest.mark.parametrize("eagerness", ((0.9, 0.9, 0.9), (0.9, 0.9, 0.1), (0.1, 0.9, 0.9), (0.9, 0.1, 0.9),
                                       (0.5, 0.5, 0.5)))
@pytest.mark.parametrize("consumers", (1, 2, 6))
def test_random_pulses_against_the_model(consumers, eagerness):
    chance = random.Random(f"{consumers} {eagerness}")
    early = 0

    async def testbench(ctx, dut):
        nonlocal early
        model = Model(consumers)
        for cycle in range(600):
            outputs = model.outputs()
            fill, take, release = (chance.random() < eager for eager in eagerness)
            fill = bool(fill and outputs["free"])
            take = [full and take and chance.random() < 0.8 for full in outputs["full"]]
            release = [may and release and chance.random() < 0.8 for may in model.may_release()]
            early += any(t - r == 2 for t, r in zip(model.taken, model.released, strict=True))
            await step(ctx, dut, model, fill, take, release, f"cycle {cycle}, consumers {consumers}, {eagerness}")
        assert model.filled > 20
    simulate(consumers, testbench)
    if eagerness == (0.9, 0.9, 0.1):
        assert early, "no consumer took the second half before it released the first"


@pytest.mark.parametrize("consumers", (1, 2))
def test_every_legal_move_from_every_state(consumers):
    """All states that legal pulses reach, and all legal pulses in each, along one walk."""
    def moves(model):
        outputs = model.outputs()
        options = [range(1 + outputs["free"]), *(range(1 + full) for full in outputs["full"]),
                   *(range(1 + may) for may in model.may_release())]
        choices = [[]]
        for option in options:
            choices = [[*choice, pulse] for choice in choices for pulse in option]
        return [(c[0], c[1:1 + consumers], c[1 + consumers:]) for c in choices]

    async def testbench(ctx, dut):
        model, todo = Model(consumers), {}
        chance = random.Random(consumers)
        for _ in range(20_000):
            state = model.state()
            todo.setdefault(state, moves(model))
            move = todo[state].pop() if todo[state] else chance.choice(moves(model))
            await step(ctx, dut, model, *move, f"state {state}, move {move}")
            if model.state() in todo and not any(todo.values()):
                break
        else:
            raise AssertionError("the walk did not end")
        print(f"{consumers} consumers: {len(todo)} states")
        assert len(todo) >= 6 * consumers
    simulate(consumers, testbench)


@pytest.mark.parametrize("pulses", ({"i_take": 1}, {"i_release": 1}, {"i_filled": 1}))
def test_illegal_pulses_are_asserted(pulses):
    async def testbench(ctx, dut):
        if "i_filled" in pulses:
            for _ in range(2):
                ctx.set(dut.i_filled, 1)
                await ctx.tick()
        for name, value in pulses.items():
            ctx.set(getattr(dut, name), value)
        await ctx.tick()
    with pytest.raises(AssertionError, match="free|full|release"):
        simulate(2, testbench)


def test_no_consumers_are_refused():
    with pytest.raises(ValueError, match="consumers must be at least 1, not 0"):
        DoubleBufferControl(consumers=0)

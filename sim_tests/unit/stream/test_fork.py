# amaranth: UnusedElaboratable=no
import pytest

from hw.stream.fork import StreamFork
from sim_tests.bench.stream import STALL_GRID, StreamBench


@pytest.mark.parametrize("stall", STALL_GRID)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_every_output_gets_every_word_once(count, stall):
    sent = list(range(80))
    dut = StreamFork(8, count)
    bench = StreamBench(dut, seed=count)
    bench.source(dut.i, sent, stall=stall[0])
    # One output takes everything at once: it must not see a word twice while the others stall.
    received = [bench.sink(dut.o[n], count=len(sent), stall=stall[1] if n else 0.0) for n in range(count)]
    bench.run()
    assert received == [sent] * count, f"seed {count}, stall {stall}"


def test_full_rate_without_latency():
    dut = StreamFork(8, 3)
    bench = StreamBench(dut)
    bench.source(dut.i, range(40))
    cycles = []
    for n in range(3):
        bench.sink(dut.o[n], count=40)
        cycles.append(bench.last_cycles)
    bench.run()
    assert cycles == [[1 + dut.LATENCY + n for n in range(40)]] * 3


def test_refuses_count():
    with pytest.raises(ValueError, match="count must be a positive integer, not 0"):
        StreamFork(8, 0)

"""The simulation of many ranks agrees with results that can be derived without it."""

import pytest
from bench.scaling import BYTES, KV_HEADS, WIDTH, Link, Pieces, simulate

FREE = Link("free", float("inf"), 0.0)
EVEN = Pieces(((128, 128**2 * 1e-9), (4096, 4096**2 * 1e-9)), merge=0.0)  # the same cost for each pair


@pytest.mark.parametrize("ranks", [1, 2, 7, 512])
def test_free_links_and_merges_give_ideal_speed(ranks):
    simulated = simulate(EVEN, 2 * 512 * 7 * 64, ranks, FREE)
    assert simulated.of_ideal == pytest.approx(1.0)
    assert simulated.waiting == 0.0


def test_a_slow_link_determines_the_time():
    length, ranks, link = 65_536, 8, Link("slow", 1e5, 0.0)
    transfer = length / ranks * KV_HEADS * 2 * WIDTH * BYTES / link.bandwidth
    simulated = simulate(EVEN, length, ranks, link)
    assert simulated.seconds == pytest.approx((ranks - 1) * transfer, rel=0.01)
    assert simulated.waiting > 0.98


def test_more_ranks_for_the_same_length_are_less_efficient():
    pieces = Pieces(EVEN.block, merge=1e-7)
    shares = [simulate(pieces.faster(16), 131_072, ranks, Link("10", 1e9, 3e-5)).of_ideal for ranks in (8, 64, 512)]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.5 < shares[0]


def test_the_cost_between_measured_lengths_is_interpolated():
    pieces = Pieces(((128, 128**2 * 4e-9), (512, 512**2 * 2e-9)), merge=0.0)
    assert pieces.seconds(256, 256) / 256**2 == pytest.approx(3e-9)
    assert pieces.seconds(64, 64) / 64**2 == pytest.approx(4e-9)

"""The simulation of many ranks agrees with results that can be derived without it."""

from pathlib import Path

import pytest
from bench.distributed.scaling import BYTES, HEADS, KV_HEADS, LINKS, WIDTH, Link, Pieces, simulate, table

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"

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


def documented() -> tuple[Pieces, str]:
    """The pieces in docs/scaling.md, and its text."""
    text = PAGE.read_text(encoding="utf-8")
    return Pieces.read(text.partition("```json\n")[2].partition("\n```")[0]), text


def test_the_documented_table_is_that_of_the_documented_pieces():
    pieces, text = documented()
    assert "\n".join(table(pieces, [131_072, 1_048_576], [8, 32, 128, 512], [1, 64, 2000])) in text


@pytest.mark.parametrize("link", LINKS, ids=lambda link: link.name)
@pytest.mark.parametrize("speed", [1, 64, 2000])
@pytest.mark.parametrize(("length", "ranks"), [(131_072, 8), (131_072, 512), (1_048_576, 32)])
def test_the_documented_formulas_are_those_of_the_simulation(length: int, ranks: int, speed: int, link: Link):
    pieces, _ = documented()
    run = length // (2 * ranks)
    block, merged = pieces.seconds(run, run) / speed, run * pieces.merge / speed
    own, other = HEADS * (2 * block + merged), 2 * HEADS * (block + merged)
    transfer = link.latency + 2 * run * KV_HEADS * 2 * WIDTH * BYTES / link.bandwidth
    seconds = max(own, transfer) + (ranks - 2) * max(other, transfer) + other
    simulated = simulate(pieces.faster(speed), length, ranks, link)
    assert simulated.seconds == pytest.approx(seconds)
    alone = HEADS * pieces.seconds(length, length) / 2 / speed
    assert simulated.of_ideal == pytest.approx(alone / ranks / seconds)
    busy = own + (ranks - 1) * other
    assert simulated.waiting == pytest.approx(1 - busy / seconds)

"""The bench measures what it says: every way of a piece of work gives the same answer, and the table holds them all."""

import json

import pytest
from bench.measure import Timing, agree, interleaved
from bench.report import Row, as_json, markdown, means
from bench.work import TOLERANCE, all_work

from clearhead.kernels import targets

pytestmark = pytest.mark.skipif(not targets(), reason="the native library was not built on this machine")


def rows() -> list[Row]:
    ours, peer = Timing(0.5, 0.4, 0.1), Timing(1.0, 0.9, 0.1)
    return [
        Row("forward", "a", 1e9, {"ours": ours, "sdpa": peer}, 1e-7),
        Row("forward", "b", 1e9, {"ours": ours, "sdpa": Timing(4.0, 4.0, 0.0)}, 1e-7),
    ]


def test_the_ways_of_each_kind_of_work_agree() -> None:
    kinds = {work.group: work for work in all_work(quick=True)}
    assert len(kinds) >= 9
    for work in kinds.values():
        results = {name: way() for name, way in work.make().items()}
        assert set(results) > {"ours"}
        for name, result in results.items():
            assert agree(results["ours"], result) < TOLERANCE[work.dtype], (work.group, name)


def test_ratios_are_of_medians_and_their_mean_is_geometric() -> None:
    assert rows()[0].ratio("sdpa") == 2.0
    assert means(rows()) == {("forward", "sdpa"): pytest.approx(4.0)}


def test_the_table_and_the_json_hold_every_row() -> None:
    text = markdown(rows(), peak=1e11)
    assert "| forward | a | 500 (400) | 10% | sdpa | 1e+03 (900) | 2.00× |" in text
    assert [row["shape"] for row in json.loads(as_json(rows(), 1e11))["rows"]] == ["a", "b"]


def test_interleaving_runs_every_way_each_round() -> None:
    order: list[str] = []
    timings = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3
    assert timings["a"].best <= timings["a"].median

"""The bench measures what it says: every way of a piece of work gives the same answer, and the table holds them all."""

import json

import pytest
import torch
from bench import lengths, report
from bench.measure import Timing, agree, interleaved
from bench.report import Row, as_json, markdown, means
from bench.work import TOLERANCE, Work, all_work

from clearhead.kernels import targets

pytestmark = pytest.mark.skipif(not targets(), reason="the native library was not built on this machine")


def rows() -> list[Row]:
    ours, peer = Timing(0.5, 0.4, 0.1), Timing(1.0, 0.9, 0.1)
    return [
        Row("forward", "a", 1e9, {"ours": ours, "sdpa": peer}, 1e-7),
        Row("forward", "b", 1e9, {"ours": ours, "sdpa": Timing(4.0, 4.0, 0.0)}, 1e-7, {"JAX": "jax is not installed"}),
    ]


@torch.no_grad()
def test_the_ways_of_each_kind_of_work_agree() -> None:
    kinds = {work.group: work for work in all_work(quick=True)}
    assert len(kinds) >= 20
    for work in kinds.values():
        with torch.enable_grad():
            made = work.make()
        ways = {name: way for name, way in made.items() if not isinstance(way, str)}
        results = {name: way() for name, way in ways.items()}
        assert next(iter(made)) == "ours"
        assert len(made) > 1 or isinstance(made["ours"], str)
        for name, result in results.items():
            if result is not None:
                assert agree(results["ours"], result) < TOLERANCE[work.dtype], (work.group, name)


def test_ratios_are_of_medians_and_their_mean_is_geometric() -> None:
    assert rows()[0].ratio("sdpa") == 2.0
    assert means(rows()) == {("forward", "sdpa"): pytest.approx(4.0)}


def test_the_table_and_the_json_hold_every_row_and_say_which_peer_is_missing() -> None:
    text = markdown(rows(), peak=1e11)
    assert "| forward | a | 500 (400) | 10% | sdpa | 1e+03 (900) | 2.00× |" in text
    assert "| forward | b | – | – | JAX | jax is not installed |" in text
    assert [row["shape"] for row in json.loads(as_json(rows(), 1e11))["rows"]] == ["a", "b"]


def test_interleaving_runs_every_way_each_round() -> None:
    order: list[str] = []
    timings = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3
    assert timings["a"].best <= timings["a"].median


def work(ours: float, theirs: float) -> Work:
    ways = {"ours": lambda: torch.tensor(ours), "peer": lambda: torch.tensor(theirs)}
    return Work("g", f"{ours}", 1.0, torch.float32, lambda: ways)


def test_a_wrong_answer_and_ctrl_c_stop_it_and_keep_what_was_measured() -> None:
    found, ended = report.measured([work(1.0, 1.0), work(2.0, 3.0), work(4.0, 4.0)], seconds=0)
    assert [row.shape for row in found] == ["1.0"]
    assert "differ by 3.3e-01" in ended

    def stop():
        raise KeyboardInterrupt

    found, ended = report.measured([work(1.0, 1.0), Work("g", "x", 1.0, torch.float32, stop)], seconds=0)
    assert [row.shape for row in found] == ["1.0"]
    assert ended == "Stopped after 1 of 2."


def test_time_and_memory_against_length(tmp_path) -> None:
    points = [lengths._measured(way, 512) for way in lengths.WAYS]
    assert all(point.seconds > 0 for point in points)
    text = lengths.table([*points, lengths.Point("Clearhead", 65536, 8.0, 300_000)])
    assert "| 65,536 | 8e+03 | 0.3 | too large | – | too large | – |" in text
    if pytest.importorskip("matplotlib", reason="the views extra is not installed"):
        assert lengths.picture(points, tmp_path)
        assert (tmp_path / "lengths.png").stat().st_size > 10_000


@pytest.mark.stress
def test_one_head_of_65536_takes_under_100_megabytes() -> None:
    point = lengths._in_a_child("Clearhead", 65536)
    if point.memory is None:
        pytest.skip("this system does not say how much memory a process has had")
    assert point.memory < 100e6

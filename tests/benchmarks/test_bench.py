"""The benchmarks: every implementation of a piece of work gives the same result, and the table has all of them."""

import json
import os
import sys

import pytest
import torch

pytest.importorskip("rich", reason="the bench prints with Rich: pip install 'clearhead[cli]'")
from bench.harness import report
from bench.harness.measure import Timing, agree, interleaved, undisturbed
from bench.harness.report import Row, as_json, from_json, markdown, means, merged
from bench.harness.work import TOLERANCE, Work, all_work
from bench.kernels import gpu, lengths, peers
from bench.sweep import costs, run
from bench.sweep.table import Case, CaseResult, table

from clearhead.kernels import targets
from clearhead.kernels.measured.tasks import Cost, share
from clearhead.kernels.portable.torch_sdpa import flash_runs

pytestmark = pytest.mark.skipif(not targets(), reason="the native library was not built on this machine")


def rows() -> list[Row]:
    ours, peer = Timing(0.5, 0.4, 0.1), Timing(1.0, 0.9, 0.1)
    return [
        Row("forward", "a", 1e9, {"ours": ours, "sdpa": peer}, 1e-7),
        Row("forward", "b", 1e9, {"ours": ours, "sdpa": Timing(4.0, 4.0, 0.0)}, 1e-7, {"JAX": "jax is not installed"}),
    ]


@pytest.mark.slow
@torch.no_grad()
def test_the_implementations_of_each_kind_of_work_agree() -> None:
    if not flash_runs(torch.bfloat16):
        pytest.skip("torch's own attention of bfloat16 raises with this ATEN_CPU_CAPABILITY")
    kinds = {work.group: work for work in all_work(quick=True)}
    assert len(kinds) >= 20
    for work in kinds.values():
        with torch.enable_grad():
            made = work.make()
        ways = {name: way for name, way in made.items() if not isinstance(way, str)}
        results = {name: way() for name, way in ways.items()}
        assert next(iter(made)) == "ours"
        assert len(made) > 1 or isinstance(made["ours"], str)
        ours = results.pop("ours")
        differences = {name: agree(ours, result) for name, result in results.items() if result is not None}
        # Each peer's accuracy belongs in the table: oneDNN multiplies float32 in bfloat16 on CPUs with AMX.
        assert not differences or min(differences.values()) < TOLERANCE[work.dtype], (work.group, differences)


def test_ratios_are_of_medians_and_their_mean_is_geometric() -> None:
    assert rows()[0].ratio("sdpa") == 2.0
    assert means(rows()) == {("forward", "sdpa"): pytest.approx(4.0)}


def test_table_and_json_have_every_row_and_the_missing_peers() -> None:
    text = markdown(rows(), peak=1e11)
    assert "| forward | a | 500 (400) | 10% | sdpa | 1e+03 (900) | 2.00× | – | – |" in text
    assert "| forward | b | – | – | JAX | jax is not installed |" in text
    assert [row["shape"] for row in json.loads(as_json(rows(), 1e11))["rows"]] == ["a", "b"]


def test_partial_runs_merge_into_one_table_in_order() -> None:
    plan = [work(1.0, 1.0), work(2.0, 2.0), work(3.0, 3.0)]
    first, _ = report.measured([plan[2], plan[0]], seconds=0, peak=1e9)
    second, _ = report.measured([plan[1], plan[2]], seconds=0, peak=2e9)
    both = merged(from_json(as_json(first, 1e9)), second, [*plan, plan[0]])  # a shorter run repeats the first
    assert [(row.shape, row.peak) for row in both] == [("1.0", 1e9), ("2.0", 2e9), ("3.0", 2e9)]


def test_interleaving_runs_every_implementation_each_round() -> None:
    order: list[str] = []
    timings = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b"] + ["a", "b"] * 3
    assert timings["a"].best <= timings["a"].median


def work(ours: float, theirs: float) -> Work:
    ways = {"ours": lambda: torch.tensor(ours), "peer": lambda: torch.tensor(theirs)}
    return Work("g", f"{ours}", 1.0, torch.float32, lambda: ways)


def test_a_wrong_result_and_ctrl_c_stop_the_run_and_keep_the_rows() -> None:
    actual, ended = report.measured([work(1.0, 1.0), work(2.0, 3.0), work(4.0, 4.0)], seconds=0)
    assert [row.shape for row in actual] == ["1.0"]
    assert "differs by 3.3e-01" in ended

    def stop():
        raise KeyboardInterrupt

    actual, ended = report.measured([work(1.0, 1.0), Work("g", "x", 1.0, torch.float32, stop)], seconds=0)
    assert [row.shape for row in actual] == ["1.0"]
    assert ended == "Stopped after 1 of 2."


def test_the_table_has_the_accuracy_of_each_implementation() -> None:
    eps = torch.finfo(torch.float32).eps
    ways = {"ours": lambda: torch.tensor([8.0, 4 + 16 * eps]), "peer": lambda: torch.tensor([8.0, 4 + 64 * eps])}
    exact = Work("g", "x", 1.0, torch.float32, lambda: ways, lambda: torch.tensor([8.0, 4.0], dtype=torch.float64))
    rows, _ = report.measured([exact], seconds=0)
    assert rows[0].errors == {"ours": 2.0, "peer": 8.0}
    (line,) = [line for line in markdown(rows, peak=1e9).splitlines() if line.startswith("| g | x")]
    assert [cell.strip() for cell in line.split("|")][8:10] == ["2", "8"]
    assert from_json(as_json(rows, 1e9))[0].errors == rows[0].errors


def test_an_unavailable_peer_has_a_reason(monkeypatch) -> None:
    query = torch.zeros(1, 1, 1, 1)
    monkeypatch.setattr(peers, "cpu_vendor", lambda: "GenuineIntel")
    assert peers._zentorch(query, query, query) == "zentorch is for AMD CPUs"
    monkeypatch.setattr(peers, "cpu_vendor", lambda: "AuthenticAMD")
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    assert "not installed" in peers._zentorch(query, query, query)

    def fails(name: str) -> None:
        raise OSError("undefined symbol\nand more")

    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    monkeypatch.setattr(peers, "import_module", fails)
    assert peers._zentorch(query, query, query).endswith("undefined symbol")


def test_fitting_a_sweep_recovers_its_costs() -> None:
    ours, theirs = Cost(5.0, 0.5, 100.0), Cost(9.0, 1.5, 60.0)
    measured = []
    for batch, length, width in ((1, 17, 32), (1, 64, 64), (4, 31, 64), (2, 128, 32), (3, 67, 80)):
        part = share(batch * 8, length, length, width, 2)
        measured.append(CaseResult(Case(batch, 8, length, width, "none", "float32"), ours.at(*part), theirs.at(*part)))
    measured.append(CaseResult(Case(1, 8, 64, 64, "causal", "float32"), 1.0, 1.0))
    measured.append(CaseResult(Case(1, 8, 64, 64, "none", "bfloat16"), 1.0, 1.0))
    fitted = costs.costs(measured, threads=2)
    assert list(fitted) == [("forward", torch.float32)]
    for mine, truth in zip(fitted["forward", torch.float32], (ours, theirs), strict=True):
        assert mine == pytest.approx(truth, rel=1e-2)
    line = costs.line(("forward", torch.float32), (ours, theirs))
    assert line == '("forward", torch.float32): (Cost(5, 0.5, 100), Cost(9, 1.5, 60)),'


def measured_case(ours: float, theirs: float, mask: str = "none") -> CaseResult:
    return CaseResult(Case(1, 8, 67, 64, mask, "float32"), ours, theirs)


def test_the_sweep_counts_the_slower_cases() -> None:
    assert [measured_case(*times).is_slower for times in ((60, 50), (52, 50), (40, 49), (19, 8), (17, 8))] == [
        True, False, False, True, False,
    ]  # fmt: skip
    text = table(
        [measured_case(*times) for times in ((100, 50), (51, 50), (40, 200), (19, 8, "causal"))],
        planned=7,
        about={"cpu": "x"},
    )
    assert "4 of 7 cases" in text
    assert "50 µs or more: 3 cases, 2 below 1×, 1 below 0.95×" in text
    assert "takes less: 1 cases, 1 more than 10 µs over it" in text
    assert "| float32, none | 3 | 2 | 1 | 0.98× | 0.50 | (1, 8, 67, 64) | 0 | 0 | – |" in text
    assert "| float32, none, (1, 8, 67, 64) | 100.0 | 50.0 | 0.50 |" in text


def test_the_sweep_resumes_where_it_stopped(tmp_path, monkeypatch, capsys) -> None:
    measured = []

    def quickly(case: Case, real_time: bool) -> CaseResult:
        measured.append(case)
        return CaseResult(case, 100.0, 200.0)

    plan = [Case(1, 2, length, 8, mask, "float32") for length in (3, 5) for mask in ("none", "causal")]
    monkeypatch.setattr(run, "cases", lambda quick: iter(plan))
    monkeypatch.setattr(run, "measured", quickly)
    command = ["sweep", "--out", str(tmp_path / "sweep.json")]
    for extra, status, count in ((["--seconds", "0"], 1, 1), ([], 0, 4), (["--only", "causal"], 0, 6)):
        monkeypatch.setattr(sys, "argv", [*command, *extra])
        assert run.main() == status
        assert len(measured) == count
    assert measured[:4] == plan
    assert "4 of 4 cases" in (tmp_path / "sweep.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("learns", [False, True])
@pytest.mark.parametrize("mask", ["none", "causal", "padding", "dense bool", "dense float", "one query"])
def test_both_implementations_of_a_swept_case_agree(mask: str, learns: bool) -> None:
    assert run.measured(Case(2, 3, 7, 5, mask, "float32", learns), real_time=False).ours > 0


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="this system has no real-time priority")
def test_real_time_priority_ends_with_its_block() -> None:
    try:
        with undisturbed(True):
            assert os.sched_getscheduler(0) == os.SCHED_RR
    except PermissionError:
        pytest.skip("real-time priority is not allowed here")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER
    with undisturbed(False):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.slow
def test_the_table_and_picture_of_time_and_memory(tmp_path) -> None:
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
        pytest.skip("this system does not report a process's peak memory")
    assert point.memory < 100e6


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("seconds", [3.0, 11.0, 41.0, 97.0])
def test_the_gpu_bench_ends_in_time_on_a_slow_device(seconds: float, monkeypatch) -> None:
    clock = Clock()
    clock.now = 5.0
    budget = gpu.Budget(clock=clock)
    clock.now += gpu.CONTRACT_SECONDS

    def row(*_: object) -> list[gpu.Row]:
        clock.now += seconds
        return [gpu.Row("work", "1×2", 1.0, "triton", "torch", 1.0)]

    monkeypatch.setattr(gpu, "attention_rows", row)
    monkeypatch.setattr(gpu, "statistics_rows", row)
    made = gpu.rows(torch.device("cpu"), gpu.SHAPES, budget)
    assert clock.now - 5.0 <= gpu.SECONDS < 240
    measured = [entry for entry in made if entry.ours == 1.0]
    assert len(made) == 12
    assert len(measured) == min(12, int((gpu.SECONDS - gpu.CONTRACT_SECONDS) / seconds))
    assert {entry.ours for entry in made[len(measured) :]} <= {gpu.NO_TIME}
    assert "no time was left" in gpu.markdown(
        [gpu.Row("a", "1", gpu.NO_TIME, "", "", gpu.NO_TIME)], torch.device("cpu"), ""
    )


def test_the_gpu_bench_repeats_a_step_while_there_is_time() -> None:
    clock, runs = Clock(), []
    budget = gpu.Budget(60.0, clock)

    def step() -> None:
        runs.append(1)
        clock.now += 61.0

    assert isinstance(gpu.timed(step, torch.device("cpu"), budget), float)
    assert gpu.timed(step, torch.device("cpu"), budget) == gpu.NO_TIME
    assert len(runs) == 1


def test_the_gpu_bench_needs_a_gpu_except_for_a_trial(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "none.md")]) == 2
    assert "no CUDA device" in capsys.readouterr().err
    assert not (tmp_path / "none.md").exists()
    assert gpu.main(["--trial", "--out", str(tmp_path / "gpu.md")]) == 0
    written = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "a trial of the script, not a measurement" in written
    table = [line.split(" | ") for line in written.splitlines() if line.startswith("| ")][1:]
    assert len(table) == 11
    assert all(float(cells[2]) > 0 and float(cells[5]) > 0 for cells in table if "ward" in cells[0])
    assert all(float(cells[7].rstrip(" |")) < 1e-5 for cells in table if "forward" in cells[0])

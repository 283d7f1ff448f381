"""The measured costs of a machine: how they are stored, when they are used, and how the plan follows them."""

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from clearhead import kernels
from clearhead.errors import OptionError
from clearhead.kernels import plan, tuning
from clearhead.kernels.measured import costs, cpu_classes, figures, tasks
from clearhead.kernels.measured.tasks import Cost, Costs
from clearhead.kernels.native.library import cpu_family

from ..targets import needs_native

FAST, SLOW = Cost(1.0, 0.1, 10.0), Cost(20.0, 1.0, 1000.0)
MEASURED: Costs = {("forward", torch.float32): (SLOW, FAST), ("gradients", torch.float32): (FAST, SLOW)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder for the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(figures.VARIABLE, raising=False)
    plan.forget()
    yield tmp_path / "cache"
    monkeypatch.undo()
    plan.forget()


def test_saved_costs_are_loaded(cache: Path) -> None:
    path = figures.save(MEASURED)
    assert path.is_relative_to(cache)
    assert figures.load().costs == MEASURED
    assert figures.load().reason is None
    data = json.loads(path.read_text())
    assert data["cpu"] == figures.machine()["cpu"]
    assert data["versions"]["torch"] == torch.__version__


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_only_its_owner_may_read_it(cache: Path) -> None:
    before = os.umask(0)
    try:
        path = figures.save(MEASURED)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_failed_save_keeps_the_old_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = figures.save(MEASURED)
    before = path.read_bytes()

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(json, "dump", stop)
    with pytest.raises(KeyboardInterrupt):
        figures.save({})
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_made_is_an_error(cache: Path) -> None:
    cache.write_text("not a folder")
    with pytest.raises(OptionError, match=r"costs\.json cannot be written"):
        figures.save(MEASURED)


def changed(name: str, value: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    return change


@pytest.mark.parametrize(
    "change",
    [
        changed("cpu", "Another CPU"),
        changed("features", ["abacus"]),
        changed("versions", {"clearhead": "0.0.1", "torch": "1.0"}),
        changed("format", 0),
    ],
    ids=["cpu", "features", "versions", "format"],
)
def test_costs_of_another_machine_are_ignored(change: Callable[[Path], None], caplog: pytest.LogCaptureFixture) -> None:
    change(figures.save(MEASURED))
    with caplog.at_level(logging.DEBUG, logger="clearhead.kernels"):
        actual = figures.load()
    assert actual.costs == {}
    assert not actual.damaged
    assert "was measured with" in str(actual.reason)
    assert [record.levelno for record in caplog.records] == [logging.DEBUG]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"\xff\xfe", b"1e999", b'{"format": 3}', b"[" * 100_000, b" " * (figures.LARGEST + 1),
    ],
    ids=lambda content: repr(content[:12]),
)  # fmt: skip
def test_a_damaged_file_is_ignored_and_reported(content: bytes) -> None:
    figures.save(MEASURED).write_bytes(content)
    actual = figures.load()
    assert actual.costs == {}
    assert actual.damaged
    assert "clearhead tune" in str(actual.reason)


@pytest.mark.parametrize(
    "lines",
    [
        {"flying": {}, "forward": {"float8": {}}},
        {"forward": {"float32": {"native": [1, 1, 1]}}},
        {"forward": {"float32": {"native": [-1, 1, 1], "torch": [1, 1, 1]}}},
        {"forward": {"float32": {"native": [1, 1], "torch": [1, 1, 1]}}},
        {"forward": {"float32": {"native": [1, 1, float("nan")], "torch": [1, 1, 1]}}},
        {"forward": {"float32": {"native": [1, 1, float("inf")], "torch": [1, 1, 1]}}},
        {"forward": {"float32": {"native": ["fast", 1, 1], "torch": [1, 1, 1]}}},
        {"forward": [1]},
        7,
    ],
    ids=str,
)
def test_damaged_lines_are_ignored_and_reported(lines: Any) -> None:
    changed("costs", lines)(figures.save(MEASURED))
    assert figures.load().costs == {}
    assert figures.load().damaged


def test_a_folder_in_its_place_is_reported() -> None:
    figures.file().mkdir(parents=True)
    assert figures.load().damaged


def test_a_missing_file_is_not_damaged() -> None:
    assert figures.load().reason == "this machine was not measured: run `clearhead tune`"
    assert not figures.load().damaged


def test_the_environment_variable_disables_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    figures.save(MEASURED)
    monkeypatch.setenv(figures.VARIABLE, "0")
    plan.forget()
    assert figures.load().costs == {}


@needs_native
def test_a_plan_follows_the_measured_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARHEAD_KERNEL_TARGET", raising=False)
    monkeypatch.setattr(cpu_classes, "CLASSES", ())
    query = torch.zeros(1, 2, 37, 8)
    plan.forget()
    assert kernels.explain(query, query, query).kernel == "native"
    figures.save(MEASURED)
    plan.forget()
    planned = kernels.explain(query, query, query)
    assert (planned.path, planned.kernel) == ("torch function", "torch")
    assert "clearhead tune" in planned.reason
    learns = query.clone().requires_grad_()
    assert kernels.explain(learns, query, query).kernel == "native"
    assert kernels.explain(query[:, :, :1], query, query).kernel == "native"  # a task that was not measured
    assert kernels.explain(query, query, query, softcap=3.0).kernel == "native"  # torch's function has none
    with kernels.target(kernels.targets()[-1].name):
        assert kernels.explain(query, query, query).kernel == "native"


@needs_native
def test_costs_of_this_machine_take_precedence_over_those_of_its_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARHEAD_KERNEL_TARGET", raising=False)
    other: Costs = {("forward", torch.float32): (FAST, SLOW), ("short", torch.float32): (SLOW, FAST)}
    classes = [
        cpu_classes.CpuClass("a class", frozenset(), other),
        cpu_classes.CpuClass("its kind", frozenset(), MEASURED),
    ]
    monkeypatch.setattr(cpu_classes, "CLASSES", classes)
    plan.forget()
    query = torch.zeros(1, 2, 37, 8)
    assert kernels.explain(query, query, query).kernel == "native"
    assert "as measured on a class" in kernels.explain(*query[:, :, :13].expand(3, 1, 2, 13, 8).unbind()).reason
    figures.save(MEASURED)
    plan.forget()
    assert "as `clearhead tune` measured" in kernels.explain(query, query, query).reason
    assert "as measured on a class" in kernels.explain(*query[:, :, :13].expand(3, 1, 2, 13, 8).unbind()).reason


@needs_native
def test_costs_cached_with_a_forced_target_apply_only_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLEARHEAD_KERNEL_TARGET", raising=False)
    monkeypatch.setattr(cpu_classes, "CLASSES", [cpu_classes.CpuClass("a class", frozenset(), MEASURED)])
    plan.forget()
    with kernels.target("generic"):
        assert costs.of("forward", torch.float32) is None
    assert costs.of("forward", torch.float32).source == "as measured on a class"
    with kernels.target("generic"):
        assert costs.of("forward", torch.float32) is None


def test_a_class_applies_if_cpu_and_target_have_its_instructions() -> None:
    def names(needs: tuple[str, ...], features: frozenset[str]) -> list[frozenset[str]]:
        target = kernels.Target(0, "new", 16, needs, (torch.float32,), (), False, True)
        return [each.needs for each in cpu_classes.of(target, features, family=0)]

    amx, avx512, avx2 = (each.needs for each in cpu_classes.CLASSES if each.family is None)
    everything = amx | avx512 | avx2
    assert names((*amx, *avx2), everything) == [amx, avx2]
    assert names(tuple(avx2), everything) == [avx2]
    assert names((*avx512, *avx2), everything) == [avx512, avx2]
    assert names(tuple(everything), avx2) == [avx2]
    assert names((), frozenset()) == []


# As much of /proc/cpuinfo as decides: CPU, family and flags.
RECORDED = {
    "Zen 3": ("25", "fma avx2 f16c"),
    "Zen 4": ("25", "fma avx2 f16c avx512f avx512bw avx512dq avx512vl avx512_bf16"),
    "Zen 5": ("26", "fma avx2 f16c avx512f avx512bw avx512dq avx512vl avx512_bf16 avx512_vp2intersect"),
    "Ice Lake": ("6", "fma avx2 f16c avx512f avx512bw avx512dq avx512vl"),
    "Emerald Rapids": ("6", "fma avx2 f16c avx512f avx512bw avx512dq avx512vl avx512_bf16 amx_bf16 amx_tile"),
}
OF_CPU = {
    "Zen 3": ["AVX2, a Zen 4 held to it (bench/results/sweep-avx2-on-zen4.md)"],
    "Zen 4": [
        "a Zen 4 (bench/results/zen4.md)",
        "AVX-512, a Zen 4",
        "AVX2, a Zen 4 held to it (bench/results/sweep-avx2-on-zen4.md)",
    ],
    "Ice Lake": [
        "a Skylake Xeon (bench/results/skylake.md)",
        "AVX-512, a Zen 4",
        "AVX2, a Zen 4 held to it (bench/results/sweep-avx2-on-zen4.md)",
    ],
    "Zen 5": ["AVX-512, a Zen 4", "AVX2, a Zen 4 held to it (bench/results/sweep-avx2-on-zen4.md)"],
    "Emerald Rapids": [
        "Intel AMX, an Emerald Rapids Xeon",
        "a Skylake Xeon (bench/results/skylake.md)",
        "AVX-512, a Zen 4",
        "AVX2, a Zen 4 held to it (bench/results/sweep-avx2-on-zen4.md)",
    ],
}


@needs_native
@pytest.mark.parametrize("cpu", RECORDED)
def test_the_class_of_a_recorded_cpu(cpu: str) -> None:
    family, flags = RECORDED[cpu]
    features = frozenset(flags.replace("avx512_bf16", "avx512bf16").replace("amx_", "amx-").split())
    runs = (row for row in kernels.targets() if row.needs and not row.for_tests and features.issuperset(row.needs))
    target = next(runs, None)
    if target is None:
        pytest.skip("no target of this CPU was compiled here")
    assert [each.name for each in cpu_classes.of(target, features, int(family))] == OF_CPU[cpu]


@needs_native
def test_the_family_is_that_of_cpuinfo() -> None:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.is_file() else []
    families = {int(line.split(":")[1]) for line in lines if line.startswith("cpu family")}
    assert {cpu_family()} == (families or {cpu_family()})


def test_classes_hold_costs_of_known_tasks() -> None:
    for each in cpu_classes.CLASSES:
        for (task, dtype), pair in each.costs.items():
            assert task in tasks.TASKS
            assert dtype in tasks.DTYPES.values()
            assert all(part >= 0 for cost in pair for part in cost)


@needs_native
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(
    ("ours", "torchs"),
    [
        (Cost(2, 0, 66), Cost(10, 0, 20)),
        (Cost(10, 0, 20), Cost(2, 0, 66)),
        (Cost(20, 3, 1), Cost(2, 1, 9)),
        (Cost(1, 0, 1), Cost(1, 0, 1)),
        (Cost(104, 0, 0), Cost(100, 0, 0)),  # within MARGIN and LOOK
        (Cost(120, 0, 0), Cost(100, 0, 0)),
    ],
    ids=str,
)
def test_torch_saves_the_difference_of_the_costs(
    ours: Cost, torchs: Cost, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLEARHEAD_KERNEL_TARGET", raising=False)
    monkeypatch.setattr(costs, "of", lambda task, dtype: costs.Known(ours, torchs, "the test says so"))
    plan.forget()
    for shape, keys in (((1, 8, 1, 64), 1), ((2, 3, 37, 64), 31), ((8, 131, 64), 131), ((1, 8, 4096, 64), 4096)):
        batch_heads, queries = (8, shape[-2]) if len(shape) == 3 else (shape[0] * shape[1], shape[-2])
        heads, work = -(-batch_heads // threads), 2 * batch_heads * queries * keys * 64 / threads
        difference = ours.at(heads, work) - torchs.at(heads, work)
        saved = costs.torch_saves(torch.float32, False, shape, keys, threads)
        assert saved == pytest.approx(difference - 4 - 0.03 * torchs.at(heads, work))


@needs_native
def test_every_call_is_looked_up_as_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each task saves a number of its own: that of `task_of` comes back, at the edges of every task and beyond."""
    monkeypatch.delenv("CLEARHEAD_KERNEL_TARGET", raising=False)
    number = {task: 100.0 * place for place, task in enumerate(tasks.TASKS, 1)}
    nothing = Cost(0.0, 0.0, 0.0)
    monkeypatch.setattr(
        costs, "of", lambda task, dtype: costs.Known(Cost(number[task] + costs.LOOK, 0.0, 0.0), nothing, "")
    )
    plan.forget()
    for learns in (False, True):
        for queries in (1, 2, 8, 9, 16, 17, 4096, 2**40):
            for keys in (1, 64, 65, 2**40):
                saved = costs.torch_saves(torch.float32, learns, (1, 2, queries, 8), keys, 2)
                assert saved == number[tasks.task_of(queries, keys, learns)]


def test_tasks_of_calls() -> None:
    few = ["one query", "few queries", "few queries", "short", "short", "forward", "forward"]
    assert [tasks.task_of(queries, 5, False) for queries in (1, 2, 8, 9, 16, 17, 4096)] == few
    many = ["one query", "few queries, many keys", "short, many keys", "forward"]
    assert [tasks.task_of(queries, 65, False) for queries in (1, 3, 13, 17)] == many
    learning = ["one query, gradients", "few queries, gradients", "short, gradients", "gradients"]
    assert [tasks.task_of(queries, keys, True) for queries, keys in ((1, 65), (3, 5), (13, 65), (17, 5))] == learning


class Clock:
    """A simulated clock, which each call advances by a fixed time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, each: float) -> None:
        self.now, self.each = 0.0, each
        monkeypatch.setattr(tuning, "clock", lambda: self.now)
        monkeypatch.setattr(tuning, "_calls", lambda *_: (self.call, self.call, (1, 1e6)))

    def call(self) -> None:
        self.now += self.each


@needs_native
@pytest.mark.parametrize("each", [1e-3, 3e-2, 1.0, 7.0])
@pytest.mark.parametrize("seconds", [1.0, 45.0, 100.0])
def test_a_measurement_keeps_its_budget_on_any_machine(
    monkeypatch: pytest.MonkeyPatch, each: float, seconds: float
) -> None:
    clock = Clock(monkeypatch, each)
    measured = tuning.measure(seconds)
    # Two warm-up calls and one round of each kernel may run past the end.
    assert clock.now <= seconds + 6 * each
    sizes = sum(len(tuning.SIZES[task]) for task, _ in tuning.todo())
    if 6 * each * sizes <= seconds:
        assert len(measured) == len(tuning.todo())
    for pair in measured.values():
        assert [cost.at(1, 1e6) for cost in pair] == pytest.approx([each * 1e6] * 2)


@needs_native
def test_spare_time_is_used_for_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch, 1e-3)
    tuning.measure(45.0)
    assert clock.now > 30


@pytest.mark.slow
@needs_native
def test_every_task_of_every_dtype_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "_best", lambda ours, torchs, seconds: (ours(), torchs(), (3.0, 4.0))[-1])
    seen: list[tuple[int, int]] = []
    measured = tuning.measure(600.0, lambda done, total: seen.append((done, total)))
    assert {task for task, _ in measured} == set(tasks.TASKS)
    assert len(measured) == len(seen) == seen[0][1]
    for ours, torchs in measured.values():
        assert ours.at(1, 1e6) > 0
        assert torchs.at(1, 1e6) > 0

"""Costs that choose the faster kernel: every task is measured, and what is chosen is at least as good as the fit."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("rich", reason="the bench prints with Rich: pip install 'clearhead[cli]'")
from bench.sweep import choices
from bench.sweep.choices import Shape, Times, choosing, regret

from clearhead.kernels import targets
from clearhead.kernels.measured.tasks import DTYPES, GRADIENT_TASKS, Cost, task_of

FAR_FROM_LINEAR = [  # the fit gives the first of these to ours, which takes 1.2 times as long there
    Times(1, 0.01e6, 96.0, 80.0),
    Times(4, 0.1e6, 100.0, 140.0),
    Times(24, 0.9e6, 180.0, 400.0),
    Times(48, 12e6, 1800.0, 1500.0),
    Times(48, 1e6, 310.0, 560.0),
]


def fitted(points: list[Times]) -> tuple[Cost, Cost]:
    return choosing(points, steps=0)


def test_the_choice_is_better_than_the_fit() -> None:
    before, after = (
        regret(*fitted(FAR_FROM_LINEAR), FAR_FROM_LINEAR),
        regret(*choosing(FAR_FROM_LINEAR), FAR_FROM_LINEAR),
    )
    assert 0 <= after < before


def test_a_fit_that_chooses_well_is_kept() -> None:
    points = [
        Times(h, w, 20 + 2 * h + w / 1e5, 90 + 3 * h + w / 1e5) for h, w in ((1, 1e5), (4, 3e5), (9, 7e5), (24, 2e6))
    ]
    assert choosing(points) == fitted(points)
    assert regret(*choosing(points), points) == 0


def test_every_task_with_gradients_is_measured_in_every_dtype() -> None:
    found = {(task_of(shape.queries, shape.keys, learns=True), shape.dtype) for shape in choices.shapes()}
    assert found == {(task, dtype) for task in GRADIENT_TASKS for dtype in DTYPES}


@pytest.mark.skipif(not targets(), reason="the native library was not built on this machine")
def test_a_second_run_keeps_the_fastest_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, fast = tmp_path / "times.json", Shape("float32", 1, 5, 7)
    monkeypatch.setattr(choices, "shapes", lambda: iter([fast, Shape("float32", 2, 5, 7)]))
    kept.write_text(json.dumps([(fast, 0.5, 1e9)]))
    monkeypatch.setattr(sys, "argv", ["choices", "--seconds", "0", "--out", str(kept)])
    choices.main()
    times = {Shape(*shape): taken for shape, *taken in json.loads(kept.read_text())}
    assert times[fast][0] == 0.5
    assert 0 < times[fast][1] < 1e9
    assert all(taken > 0 for taken in times[Shape("float32", 2, 5, 7)])
    assert '("few queries, gradients", torch.float32): (Cost(' in capsys.readouterr().out

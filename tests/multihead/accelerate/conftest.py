"""What several tests of accelerate() set up."""

from collections.abc import Callable, Iterator

import pytest

from clearhead.kernels import plan
from clearhead.kernels.measured import cpu_classes
from clearhead.kernels.measured.tasks import DTYPES, GRADIENT_TASKS, Cost
from clearhead.multihead import torch_overrides


@pytest.fixture
def costs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[float | None, float | None], None]]:
    """Sets how long our kernel and torch's take for a call with gradients, in microseconds; None: it is not known."""

    def known(ours: float | None, torchs: float | None) -> None:
        table = {}
        if ours is not None and torchs is not None:
            pair = Cost(ours, 0.0, 0.0), Cost(torchs, 0.0, 0.0)
            table = {(task, dtype): pair for task in GRADIENT_TASKS for dtype in DTYPES.values()}
        monkeypatch.setattr(cpu_classes, "CLASSES", (cpu_classes.CpuClass("a CPU", frozenset(), table),))
        plan.forget()

    yield known
    monkeypatch.undo()
    plan.forget()


@pytest.fixture
def without_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails a call that enters one of the Python overrides."""

    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("a Python override ran")

    for name in ("is_torchs_own", "contiguous_rows"):  # what each of them calls first
        monkeypatch.setattr(torch_overrides, name, refuse)
    monkeypatch.setattr(torch_overrides.Overrides, "_torch", refuse)

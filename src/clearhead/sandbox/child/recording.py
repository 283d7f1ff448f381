"""Record the calls that tests make to a program: their arguments and the attention weights that result.

The tests and the program run in one process here, so the program can forge the record. It is shown and never graded.
"""

import inspect
import json
import sys
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from clearhead.sandbox.child.judging import close, raises, title_of

CALLS, GRIDS = 6, 4  # calls of one test; maps of one call
SMALLEST, LARGEST = 2, 12  # rows and columns of a map that is shown
LONGEST, NUMBERS = 400, 48  # characters of one argument; largest tensor that is shown whole


def recorded(tests: str, file: str, program: Mapping[str, Any]) -> str:
    """Run the tests on this program; return the calls that each test made, as JSON: test -> {failed, calls}."""
    recorder = _Recorder()
    wrapped = {name: recorder.wrap(name, value) for name, value in program.items()}
    names = {**wrapped, "close": close, "raises": raises, "learner": types.SimpleNamespace(**wrapped)}
    result = {}
    with recorder.softmaxes():
        try:
            exec(compile(tests, file, "exec", dont_inherit=True), names)  # noqa: S102 — in a confined process
        except Exception:  # noqa: BLE001 — the verdict says what is wrong
            return json.dumps({"tests": {"failed": True, "calls": recorder.taken()}})
        for name, test in list(names.items()):
            if not name.startswith("test") or not callable(test):
                continue
            recorder.taken()
            try:
                test()
                failed = False
            except Exception:  # noqa: BLE001 — a failing test is what this is for
                failed = True
            result[title_of(name, test)] = {"failed": failed, "calls": recorder.taken()}
    return json.dumps(result)


@dataclass
class _Call:
    """A call, and the tensors that it returned or computed by softmax."""

    name: str
    function: Any
    args: tuple[Any, ...]
    given: Mapping[str, Any]
    tensors: list[Any] = field(default_factory=list)


class _Recorder:
    """Records the calls of the running test."""

    def __init__(self) -> None:
        self._made: list[_Call] = []
        self._softmaxes: list[Any] = []

    def taken(self) -> list[dict[str, Any]]:
        """Return the calls since the last time, as JSON types."""
        made, self._made = self._made, []
        return [
            {
                "name": call.name,
                "args": _arguments(call.function, call.args, call.given),
                "grids": [grid for tensor in call.tensors if (grid := _grid(tensor))][:GRIDS],
            }
            for call in made
        ]

    def wrap(self, name: str, value: Any) -> Any:
        """Return the value of a program's name for the tests, wrapped in a recorder if it is callable."""
        if isinstance(value, type) and value.__module__ == "__main__":
            return lambda *args, **given: _Instance(self, name, value(*args, **given))
        return self.of(name, value) if isinstance(value, types.FunctionType) else value

    def of(self, name: str, function: Any) -> Any:
        """Return the function, recorded."""

        def call(*args: Any, **given: Any) -> Any:
            made = _Call(name, function, args, given)
            if len(self._made) >= CALLS:
                self._made.pop()  # keep the first calls and the last one
            self._made.append(made)
            self._softmaxes = made.tensors = []
            value = function(*args, **given)
            made.tensors = [*_tensors(value), *made.tensors]
            return value

        return call

    @contextmanager
    def softmaxes(self) -> Iterator[None]:
        """Keep what torch's softmax gives, for programs that return no weights."""
        torch = sys.modules.get("torch")
        if torch is None:
            yield
            return
        functional = torch.nn.functional
        places = [(torch, "softmax"), (torch.Tensor, "softmax"), (functional, "softmax")]
        before = [getattr(owner, name) for owner, name in places]

        def keeping(softmax: Any) -> Any:
            def kept(*args: Any, **given: Any) -> Any:
                value = softmax(*args, **given)
                self._softmaxes.append(value)
                return value

            return kept

        for (owner, name), softmax in zip(places, before, strict=True):
            setattr(owner, name, keeping(softmax))
        try:
            yield
        finally:
            for (owner, name), softmax in zip(places, before, strict=True):
                setattr(owner, name, softmax)


class _Instance:
    """An object of a class of the program, as the tests see it: calling it, and its methods, is recorded."""

    def __init__(self, recorder: _Recorder, name: str, value: Any) -> None:
        self._recorder, self._name, self._value = recorder, name.lower(), value

    def __call__(self, *args: Any, **given: Any) -> Any:
        return self._recorder.of(self._name, self._value)(*args, **given)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._value, name)
        if not isinstance(value, types.MethodType) or value.__func__.__module__ != "__main__":
            return value
        return self._recorder.of(f"{self._name}.{name}", value)


def _arguments(function: Any, args: tuple[Any, ...], given: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of a call as text, by name where the function has names for them."""
    called = getattr(function, "forward", function)  # of a module
    try:
        bound = inspect.signature(called).bind(*args, **given).arguments
    except (TypeError, ValueError):
        bound = {**{str(place): value for place, value in enumerate(args)}, **given}
    return {name: _shown(value) for name, value in bound.items()}


def _shown(value: Any) -> str:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.numel() > NUMBERS:
            return f"a tensor of shape {tuple(value.shape)}, {str(value.dtype).removeprefix('torch.')}"
        return str(value.detach().cpu())[:LONGEST]
    return repr(value)[:LONGEST]


def _tensors(value: Any) -> Iterator[Any]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif hasattr(value, "detach"):
        yield value


def _grid(tensor: Any) -> dict[str, Any] | None:
    """Return the matrix of a tensor's first batch entry and head, and whether it holds weights or a mask."""
    torch = sys.modules["torch"]
    if tensor.ndim < 2 or not all(SMALLEST <= size <= LARGEST for size in tensor.shape[-2:]) or not tensor.numel():
        return None
    boolean = tensor.dtype == torch.bool
    rows = tensor.detach().double().reshape(-1, *tensor.shape[-2:])[0]
    weights = boolean or bool((rows >= 0).all() and ((rows.sum(-1) - 1).abs() < 0.01).all())
    finite = torch.nan_to_num(rows, nan=0.0, posinf=1.0, neginf=0.0)
    return {"rows": [[round(x, 3) for x in row] for row in finite.tolist()], "weights": weights}

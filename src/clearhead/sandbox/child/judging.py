"""Test a learner's program in two confined processes: the program in one, the tests in the other.

The tests call the program through `learner`: `learner.attention(q, k, v)` sends a message and waits for the reply. The
program can reply with wrong values, and nothing more. The other process writes the verdict; the program cannot read,
signal or trace that process, which decodes only plain values. So the program cannot forge a verdict.
"""

import builtins
import importlib
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from clearhead.sandbox.child import wire
from clearhead.sandbox.child.execution import CHANNEL, describe, execute

Chunks = Sequence[Mapping[str, Any]]
NEXT = "next"  # the request for the next program of a batch
# Raised inside `all(map(double, numbers))` in a test, these would end the loop as if every number had been right.
_END_OF_A_LOOP = (StopIteration, StopAsyncIteration)


def serve(chunks: Chunks) -> dict[str, Any]:
    """The learner's side: load the program, then answer until the tests close the channel or ask for the next one."""
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    handles: list[Any] = [module]

    def keep(value: object) -> dict[str, Any]:
        handles.append(value)
        return {"handle": len(handles) - 1, "type": type(value).__name__}

    raised = execute(module.__dict__, chunks)
    sys.stdout.flush()
    wire.send(CHANNEL, {"raised": raised})
    while True:
        try:
            request = wire.receive(CHANNEL)
        except wire.WireError:
            return {"raised": raised, "values": {}}
        if request.get("op") == NEXT:
            return {"raised": raised, "values": {}}
        try:
            target = handles[request["handle"]]
            if request["op"] == "get":
                value = getattr(target, request["name"])
            else:
                arguments: Any = wire.decode(request["args"], lambda data: handles[data["handle"]])
                named: Any = wire.decode(request["kwargs"], lambda data: handles[data["handle"]])
                value = target(*arguments, **named)
            reply = {"value": wire.encode(value, keep)}
        except BaseException as error:  # noqa: BLE001 — whatever it raises is the answer
            reply = {"raised": describe(error, chunks, 0)}
        wire.send(CHANNEL, reply)


class LearnerError(Exception):
    """The program raised an exception that the tests do not know, or one that would end a loop in the tests."""


class Proxy:
    """An object in the learner's process: call it or read an attribute. It has no truth value and equals nothing."""

    def __init__(self, link: "Link", handle: int, kind: str) -> None:
        self._link, self._handle, self._kind = link, handle, kind

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._link.ask({"op": "get", "handle": self._handle, "name": name})

    def __call__(self, *args: object, **kwargs: object) -> Any:
        return self._link.call(self._handle, args, kwargs)

    def _unusable(self, *_: object) -> Any:
        raise TypeError(f"the program gave a {self._kind}; a plain value or a tensor was expected")

    __bool__ = __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __len__ = __iter__ = __float__ = __int__ = (
        _unusable
    )
    __hash__ = None  # type: ignore[assignment]


class Link:
    """The tests' end of the channel."""

    def __init__(self, channel: int) -> None:
        self.channel = channel

    def call(self, handle: int, args: Sequence[object], kwargs: Mapping[str, object]) -> Any:
        """Call the object with this handle."""
        packed = {"args": wire.encode(list(args), _own), "kwargs": wire.encode(dict(kwargs), _own)}
        return self.ask({"op": "call", "handle": handle, **packed})

    def ask(self, request: dict[str, Any]) -> Any:
        """Send a request; return its value or raise its exception, as the nearest built-in type."""
        wire.send(self.channel, request)
        return self.read(wire.receive(self.channel))

    def read(self, reply: dict[str, Any]) -> Any:
        """Return the value of a reply, or raise its exception."""
        if reply.get("raised"):
            raise _rebuilt(reply["raised"])
        return wire.decode(reply.get("value"), self._proxy)

    def _proxy(self, data: dict[str, Any]) -> Proxy:
        handle, kind = data.get("handle"), data.get("type")
        if type(handle) is not int or not isinstance(kind, str):
            raise wire.WireError("not a handle")
        return Proxy(self, handle, kind[:80])


class Names(dict[str, Any]):
    """The tests' namespace. A name they do not have is looked up in the program: `attend(q)` is `learner.attend(q)`."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)  # Python looks in builtins next
        if name in ("math", "torch", "numpy"):
            return importlib.import_module(name)  # the tests' own module, never the program's
        try:
            return getattr(self["learner"], name)
        except AttributeError:
            raise KeyError(name) from None


def _own(value: object) -> dict[str, Any]:
    if isinstance(value, Proxy):
        return {"handle": value._handle}
    raise TypeError(f"a {type(value).__name__} cannot be handed to the program; use plain values and tensors")


def _rebuilt(data: Any) -> BaseException:
    if not isinstance(data, dict) or not isinstance(data.get("kinds"), list):
        raise wire.WireError("not an exception")
    message = str(data.get("message", ""))[:2000]
    for name in [str(kind_name) for kind_name in data["kinds"]][:30]:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, _END_OF_A_LOOP):
            continue
        if isinstance(kind, type) and issubclass(kind, Exception) and kind is not Exception:
            try:
                error: Exception = kind(message)
            except TypeError:
                continue
            break
    else:
        error = LearnerError(f"{data.get('type')}: {message}")
    if isinstance(data.get("line"), int):
        error.add_note(f"line {data['line']} of your program")
    return error


def close(actual: object, expected: Any, tolerance: float = 1e-5, what: str = "the result") -> None:
    """Assert a tensor: its type, then its shape, then its dtype, then its values within `tolerance`.

    The messages fit a `what` of one thing or of several: "the outputs at [0, 1]: 0.3; expected 0.5".
    """
    torch = importlib.import_module("torch")
    if not isinstance(expected, torch.Tensor):
        raise TypeError(
            f"close() compares tensors, and the test expects {_kind(expected)}. "
            "Write torch.tensor(…), or assert abs(a - b) < tolerance for a number."
        )
    if not isinstance(actual, torch.Tensor):
        raise AssertionError(f"{what}: {_kind(actual)}; expected a tensor of shape {tuple(expected.shape)}")
    if actual.shape != expected.shape:
        raise AssertionError(f"{what}: shape {tuple(actual.shape)}; expected {tuple(expected.shape)}")
    if actual.dtype != expected.dtype:
        raise AssertionError(f"{what}: dtype {actual.dtype}; expected {expected.dtype}")
    if expected.numel() == 0:
        return
    difference = (actual.double() - expected.double()).abs()
    difference[(actual == expected) | (actual.isnan() & expected.isnan())] = 0  # inf - inf is nan
    worst = int(torch.where(difference.isnan(), torch.inf, difference).argmax())
    if not difference.flatten()[worst] <= tolerance:
        place = [int(index) for index in torch.unravel_index(torch.tensor(worst), expected.shape)]
        got, want = actual.flatten()[worst].item(), expected.flatten()[worst].item()
        raise AssertionError(f"{what} at {place}: {got:.6g}; expected {want:.6g} (within {tolerance:g})")


def _kind(value: object) -> str:
    return f"a {value._kind}" if isinstance(value, Proxy) else "None" if value is None else f"a {type(value).__name__}"


@contextmanager
def raises(kind: type[BaseException], says: str = "") -> Iterator[None]:
    """Assert that the program raises `kind` with `says` (any case) in its message."""
    try:
        yield
    except kind as error:
        if says.lower() not in str(error).lower():
            raise AssertionError(f"{kind.__name__} says {str(error)!r}; expected {says!r} in it") from None
    else:
        raise AssertionError(f"nothing was raised; {kind.__name__} was expected")


def examine(chunks: Chunks) -> dict[str, Any]:
    """The tests' side: run each `test_` function in order, or the whole text as one test, and report."""
    link = Link(CHANNEL)
    names = Names(learner=Proxy(link, 0, "program"), close=close, raises=raises, __name__="__main__")
    try:
        link.read(wire.receive(link.channel))
    except BaseException as error:  # noqa: BLE001 — the program did not load: that is the verdict
        return {"tests": [["The program runs", False, _text(error), None]], "raised": None}
    raised = execute(names, chunks)
    tests = [(name, test) for name, test in names.items() if name.startswith("test") and callable(test)]
    if raised or not tests:
        problem = "" if raised is None else f"{raised['type']}: {raised['message']}"
        return {"tests": [["tests", raised is None, problem, raised and raised["line"]]], "raised": None}
    return {"tests": [_examined(name, test, chunks) for name, test in tests], "raised": None}


def title_of(name: str, test: Any) -> str:
    """Return the title of a test: the first line of its docstring, or else its name in words.

    >>> title_of("test_rows_sum_to_one", lambda: None)
    'rows sum to one'
    """
    title = (test.__doc__ or "").strip() or name.removeprefix("test_").replace("_", " ").strip() or name
    return title.splitlines()[0]


def _examined(name: str, test: Any, chunks: Chunks) -> list[object]:
    title = title_of(name, test)
    try:
        test()
    except BaseException as error:  # noqa: BLE001 — a failing test is an outcome
        return [title, False, _text(error), describe(error, chunks, 0)["line"]]
    return [title, True, "", None]


def _text(error: BaseException) -> str:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", []))
    if isinstance(error, AssertionError):
        return f"{error}{notes}" or "an assertion does not hold"
    return f"{type(error).__name__}: {error}{notes}"[:2000]

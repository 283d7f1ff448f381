"""Parse the report of a confined process, by a schema and within bounds. The process may have written anything.

A malformed report raises `ReportError`, which says what is wrong. Nothing else is raised here.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from clearhead.sandbox.limits import Raised, Tested

_BRACKETS = 1_000_000  # in a report; the parser allocates an object for each
_TEXT, _NAME, _KINDS, _TESTS, _LINE = 200_000, 500, 100, 10_000, 1 << 40


class ReportError(ValueError):
    """The report is not one that the sandbox's own code writes."""


@dataclass(frozen=True, slots=True)
class Report:
    """The report of a process. `each`: the checked reports of several programs that ran in it, for `batch`."""

    raised: Raised | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    tests: tuple[Tested, ...] = ()
    each: tuple[Mapping[str, Any], ...] = ()


def parse(data: bytes, wanted: Collection[str] = (), count: int = 0) -> Report:
    """Return the report in `data`, empty if there is none.

    Args:
        wanted: names of the variables that a single program returns.
        count: how many programs ran; `each` has as many reports, or none.
    Raises:
        ReportError: it is malformed.
    """
    if not data:
        return Report()
    if data.count(b"[") + data.count(b"{") > _BRACKETS:
        raise ReportError("it nests too much")
    try:
        parsed = json.loads(data.decode(), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ReportError(f"it is not JSON: {str(error)[:80]}") from None
    report = _report(parsed, None if count else frozenset(wanted))
    each = _list(parsed.get("each", []), "each", _each, count)
    if not count and "each" in parsed:
        raise ReportError("it reports several programs, and one ran")
    return Report(report.raised, report.values, report.tests, each)


def _report(data: Any, wanted: Collection[str] | None) -> Report:
    if not isinstance(data, dict) or not data.keys() <= {"raised", "values", "tests", "each"}:
        raise ReportError(f"expected an object of raised, values, tests and each, not {_shown(data)}")
    values = data.get("values", {})
    if not isinstance(values, dict) or (wanted is not None and not values.keys() <= set(wanted)):
        raise ReportError("`values` is not an object of the names that were asked for")
    raised = data.get("raised")
    return Report(
        None if raised is None else _raised(raised),
        {_text(name, "a name", _NAME): _text(value, "a value") for name, value in values.items()},
        _list(data.get("tests", []), "tests", _tested, _TESTS),
    )


def _each(data: Any) -> dict[str, Any]:
    report = _report(data, None)
    if "each" in data:
        raise ReportError("`each` is nested")
    tests = [[test.title, test.passed, test.message, test.line] for test in report.tests]
    return {"raised": report.raised and asdict(report.raised), "values": report.values, "tests": tests}


def _raised(data: Any) -> Raised:
    if not isinstance(data, dict) or data.keys() != {"type", "message", "file", "line", "chunk", "kinds"}:
        raise ReportError(f"`raised` is {_shown(data)}")
    return Raised(
        _text(data["type"], "type", _NAME), _text(data["message"], "message"), _text(data["file"], "file"),
        None if data["line"] is None else _whole(data["line"], "line"), _whole(data["chunk"], "chunk"),
        _list(data["kinds"], "kinds", lambda kind: _text(kind, "a kind", _NAME), _KINDS),
    )  # fmt: skip


def _tested(data: Any) -> Tested:
    if not isinstance(data, list) or len(data) != 4 or not isinstance(data[1], bool):
        raise ReportError(f"a test is {_shown(data)}")
    line = None if data[3] is None else _whole(data[3], "line")
    return Tested(_text(data[0], "a title"), data[1], _text(data[2], "message"), line)


def _list(data: Any, name: str, read: Callable[[Any], Any], most: int) -> tuple[Any, ...]:
    if not isinstance(data, list) or len(data) > most:
        raise ReportError(f"`{name}` is {_shown(data)}; expected a list of at most {most:,}")
    return tuple(read(item) for item in data)


def _text(data: Any, name: str, most: int = _TEXT) -> str:
    """Check a text and make it valid UTF-8: a lone surrogate is written as its escape, as in the program's output."""
    if not isinstance(data, str):
        raise ReportError(f"{name} is {_shown(data)}; expected text")
    return data[:most].encode(errors="backslashreplace").decode()


def _whole(data: Any, name: str) -> int:
    if not isinstance(data, int) or isinstance(data, bool) or not 0 <= data < _LINE:
        raise ReportError(f"{name} is {_shown(data)}; expected a whole number")
    return data


def _shown(data: Any) -> str:
    if isinstance(data, (list, dict)):
        return f"a {type(data).__name__} of {len(data):,}"
    return ascii(
        data[:40] if isinstance(data, str) else data if isinstance(data, (bool, float, type(None))) else "a number"
    )


def _no_constant(name: str) -> NoReturn:
    raise ReportError(f"{name} is not a number of JSON")

"""How much of the suite a run takes: `--tier fast`, `full` (the default) or `stress`.

- fast: under 90 s on two cores. No browser, nothing marked `slow` or `stress`; of a product marked `pairwise`, each value
  of each parameter appears in some test, and of any other test at most a few cases run.
- full: everything but `stress`; of a product marked `pairwise`, each pair of values appears in some test.
- stress: everything, and the products are whole. `make stress` selects what the other two leave out.

A test named on the command line (`file.py::test`) always runs, in all its cases.
"""

import ast
from collections.abc import Generator, Hashable, Iterator, Mapping, Set
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pairwise import Values, each_value, pairwise

CASES = 2  # of a test with many, in the fast tier
LEFT_OUT: dict[str, frozenset[str]] = {
    "fast": frozenset({"browser", "slow", "stress"}), "full": frozenset({"stress"}), "stress": frozenset(),
}  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--tier", choices=LEFT_OUT, default="full",
        help="fast: no browser, nothing slow, sampled products; full: sampled products; stress: everything",
    )  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: more than about 0.3 s of CPU time; left out of `make test-fast`")
    config.addinivalue_line("markers", "stress: long fuzz and load runs, in `make stress` only")
    config.addinivalue_line(
        "markers",
        "pairwise(**tables): of the product of its parameters, run a sample in which every pair of values appears. "
        "A parameter with a table names a dataclass in it, and each field counts as a parameter of its own.",
    )


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import what the tier leaves out whole: a folder named as a mark, a file all of whose tests have one."""
    left_out = LEFT_OUT[config.getoption("--tier")]
    if _named(config) or not left_out:
        return None
    if collection_path.name in left_out:
        return True
    is_file = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_file and is_left_out(collection_path, left_out) else None


def is_left_out(file: Path, left_out: Set[str]) -> bool:
    """Whether the file itself, or each test in it, has one of these marks; read from its text, for imports cost."""
    text = file.read_text(encoding="utf-8")
    marks = tuple(f"pytest.mark.{name}" for name in left_out)
    if not any(mark in text for mark in marks):
        return False
    body = ast.parse(text).body
    tests = []
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
            tests.append(any(ast.unparse(decorator).startswith(marks) for decorator in node.decorator_list))
        elif isinstance(node, ast.Assign):
            name = ast.unparse(node.targets[0])
            value = node.value.elts if isinstance(node.value, ast.List) else [node.value]
            if name == "pytestmark" and any(ast.unparse(mark).startswith(marks) for mark in value):
                return True
            tests += [False] if name.startswith("Test") else []  # hypothesis makes such classes
    return bool(tests) and all(tests)


def _named(config: pytest.Config) -> bool:
    return any("::" in argument for argument in config.args)


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Make only the chosen tests of a product: 20,000 tests take a worker 10 s to make and then leave out."""
    yield
    tier = metafunc.config.getoption("--tier")
    if metafunc._calls and tier != "stress" and not _named(metafunc.config):
        kept = [call for call in metafunc._calls if not LEFT_OUT[tier] & {mark.name for mark in call.marks}]
        marker = metafunc.definition.get_closest_marker("pairwise")
        # Without any it would be one test without parameters; the mark of the first leaves that one out.
        metafunc._calls = chosen(tier, kept, marker) or metafunc._calls[:1]


@pytest.hookimpl(trylast=True)  # after the folders have marked their tests
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if _named(config):
        return
    left_out = [item for item in items if any(map(item.get_closest_marker, LEFT_OUT[config.getoption("--tier")]))]
    config.hook.pytest_deselected(items=left_out)
    leave = set(left_out)
    items[:] = [item for item in items if item not in leave]


def chosen(tier: str, calls: list[Any], marker: pytest.Mark | None) -> list[Any]:
    """What the tier runs of a test's calls, in their order: each a set of parameters."""
    if marker is None:
        return evenly(calls, CASES) if tier == "fast" else calls
    rows = [_row(call.params, marker.kwargs) for call in calls]
    values = [values for values, _ in rows]
    indices = each_value(values) if tier == "fast" else pairwise(values, [names for _, names in rows])
    return [calls[index] for index in indices]


def evenly(calls: list[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    count = min(len(calls), most)
    return [calls[place * len(calls) // count] for place in range(count)]


def _row(params: Mapping[str, Any], tables: Mapping[str, Any]) -> tuple[list[Values], tuple[Hashable, ...]]:
    """The values of each parameter, and the names of those that have a table."""
    row: list[Values] = []
    names = []
    for parameter, value in sorted(params.items()):
        if parameter in tables:
            entry = tables[parameter][value]
            row.append(tuple((field.name, repr(getattr(entry, field.name))) for field in fields(entry)))
            names.append(value)
        else:
            row.append((id(value),))  # the same object in each test of a product, where it may not be hashable
    return row, tuple(names)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn the skip of a file of tests that cannot be imported into an error.

    Doctests come first: with `--doctest-ignore-import-errors` they skip such a file, and leave it half imported, in which
    pytest then finds no test.
    """
    report = yield
    if report.skipped and collector.path.name.startswith("test_") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if "unable to import module" in reason:
            report.outcome, report.longrepr = "failed", f"{reason}. Run it without --doctest-modules to see the error."
    return report

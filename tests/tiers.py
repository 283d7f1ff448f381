"""How much of the suite a run takes: `--tier fast`, `full` (the default) or `stress`.

- fast: under 90 s on two cores. No browser, nothing marked `slow` or `stress`; of a product marked `pairwise`, each value
  of each parameter appears in some test, and of any other test at most a few cases run.
- full: everything but `stress`; of a product marked `pairwise`, each pair of values appears in some test.
- stress: everything, and the products are whole. `make stress` selects what the other two leave out.

A test named on the command line (`file.py::test`) always runs, in all its cases.
"""

import ast
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from pairwise import Values, each_value, pairwise

CASES = 4  # of a test with many, in the fast tier
Sample = Callable[[Sequence[Sequence[Values]], Sequence[Hashable]], list[int]]  # rows and their names to indices
LEFT_OUT = {"fast": ("browser", "slow", "stress"), "full": ("stress",), "stress": ()}


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


def is_left_out(file: Path, left_out: Sequence[str]) -> bool:
    """Whether the file itself, or each test in it, has one of these marks; read from its text, for imports cost."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    marks = tuple(f"pytest.mark.{name}" for name in left_out)
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


@pytest.hookimpl(trylast=True)  # after the folders have marked their tests
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tier = config.getoption("--tier")
    if _named(config):
        return
    kept = [item for item in items if not any(map(item.get_closest_marker, LEFT_OUT[tier]))]
    if tier == "full":
        kept = sampled(kept, pairwise)
    if tier == "fast":
        kept = few(sampled(kept, lambda rows, _: each_value(rows)))
    chosen = set(kept)
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = kept


def sampled(items: Iterable[pytest.Item], sample: Sample) -> list[pytest.Item]:
    """The items in their order, of each test marked `pairwise` only a sample."""
    items = list(items)
    products: dict[Hashable, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        if item.get_closest_marker("pairwise") is not None and hasattr(item, "callspec"):
            products[item.nodeid.partition("[")[0]].append(place)
    kept = set(range(len(items)))
    for places in products.values():
        rows = [_row(items[place]) for place in places]
        chosen = sample([row for row, _ in rows], [name for _, name in rows])
        kept -= set(places) - {places[index] for index in chosen}
    return [items[place] for place in sorted(kept)]


def few(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """The items in their order, at most CASES of each test that is not marked `pairwise`, evenly spaced."""
    items = list(items)
    tests: dict[Hashable, list[pytest.Item]] = defaultdict(list)
    for item in items:
        tests[item if item.get_closest_marker("pairwise") else item.nodeid.partition("[")[0]].append(item)
    chosen = {
        cases[place * len(cases) // min(CASES, len(cases))]
        for cases in tests.values()
        for place in range(min(CASES, len(cases)))
    }
    return [item for item in items if item in chosen]


def _row(item: Any) -> tuple[list[Values], tuple[Hashable, ...]]:
    """The values of each parameter of this item, and the names of those that have a table."""
    tables = item.get_closest_marker("pairwise").kwargs
    row: list[Values] = []
    names = []
    for parameter, value in sorted(item.callspec.params.items()):
        if parameter in tables:
            entry = tables[parameter][value]
            row.append(tuple((field.name, repr(getattr(entry, field.name))) for field in fields(entry)))
            names.append(value)
        else:
            row.append((id(value),))  # the same object in each item of a product, where it may not be hashable
    return row, tuple(names)

"""The tiers choose what they say, and the sample of a product has every pair of its values."""

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pairwise import Values, each_value, pairwise
from processor_time import LIST, listed
from tiers import CASES, LEFT_OUT, is_left_out

TESTS = Path(__file__).parents[1]


def pairs(rows: Sequence[Sequence[Values]]) -> set[object]:
    return {
        ((one, x), (other, y))
        for row in rows
        for one, other in combinations(range(len(row)), 2)
        for x, y in product(row[one], row[other])
    }


@given(st.sets(st.tuples(*[st.integers(0, 4)] * 4), min_size=1, max_size=60))
def test_a_sample_has_every_pair_that_the_rows_have(given: set[tuple[int, ...]]) -> None:
    rows = [[(value,) for value in row] for row in sorted(given)]
    sample = pairwise(rows)
    assert pairs([rows[index] for index in sample]) == pairs(rows)
    assert sample == sorted(set(sample)) == pairwise(rows)


@given(st.sets(st.tuples(*[st.integers(0, 4)] * 4), min_size=1, max_size=60))
def test_each_value_has_every_value_that_the_rows_have_in_few_rows(given: set[tuple[int, ...]]) -> None:
    rows = [[(value,) for value in row] for row in sorted(given)]
    sample = each_value(rows)
    for place in range(4):
        assert {rows[index][place] for index in sample} == {row[place] for row in rows}
    assert sample == sorted(set(sample)) == each_value(rows)
    assert len(sample) <= sum(len({row[place] for row in rows}) for place in range(4))


def test_each_value_of_a_product_takes_as_many_rows_as_its_longest_parameter() -> None:
    assert len(each_value([[(a,), (b,), (c,)] for a, b, c in product(range(8), range(13), range(4))])) == 13
    assert len(each_value([[(a, b), (c,)] for a, b, c in product("abcde", "xy", range(3))])) == 5, "fields count alone"


def test_a_sample_of_a_product_is_near_the_least_size_and_even() -> None:
    rows = [[(a,), (b,), (c,)] for a, b, c in product(range(8), range(13), range(4))]
    sample = [rows[index] for index in pairwise(rows)]
    assert len(sample) <= 1.2 * 8 * 13
    for b, c in product(range(13), range(4)):
        assert 1 <= sum(row[1:] == [(b,), (c,)] for row in sample) <= 3, "a pair with one value of the third alone"


def test_one_or_two_parameters_keep_their_whole_product() -> None:
    assert pairwise([]) == []
    assert pairwise([[(value,)] for value in range(5)]) == [0, 1, 2, 3, 4]
    assert len(pairwise([[(a,), (b,)] for a, b in product(range(5), range(3))])) == 15


def test_a_value_with_fields_is_paired_by_its_fields_and_each_is_named_once() -> None:
    cases = {f"{x}{y}": ("x", x, "y", y) for x, y in product(range(3), range(3))}
    rows = [[((*case[:2],), (*case[2:],)), (other,)] for case in cases.values() for other in range(5)]
    names = [name for name in cases for _ in range(5)]
    sample = pairwise(rows, names)
    assert len(sample) < 25 < len(rows)
    assert pairs([rows[index] for index in sample]) == pairs(rows)
    assert {names[index] for index in sample} == set(cases)


FILE = """
import pytest
from dataclasses import dataclass

@dataclass
class Case:
    length: int
    causal: bool

CASES = {f"{n}{c}": Case(n, c) for n in range(5) for c in (False, True)}

@pytest.mark.slow
def test_slow(): pass

@pytest.mark.stress
def test_stress(): pass

@pytest.mark.browser
def test_browser(): pass

@pytest.mark.pairwise
@pytest.mark.parametrize("a", range(3))
@pytest.mark.parametrize("b", range(3))
@pytest.mark.parametrize("c", range(3))
def test_sampled(a, b, c): pass

@pytest.mark.pairwise(name=CASES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("other", range(4))
def test_fields(name, other): pass

@pytest.mark.parametrize("a", range(3))
@pytest.mark.parametrize("b", range(3))
@pytest.mark.parametrize("c", range(3))
def test_whole(a, b, c): pass
"""


@pytest.fixture
def collected(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(FILE)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = browser: drives a browser\naddopts = --strict-markers\n")

    def run(*arguments: str) -> dict[str, int]:
        command = [sys.executable, "-m", "pytest", "-p", "tiers", "--collect-only", "-q", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        names = [line.split("::")[1].partition("[")[0] for line in done.stdout.splitlines() if "::" in line]
        return {name: names.count(name) for name in sorted(set(names))}

    return run


@pytest.mark.slow
def test_each_tier_chooses_what_it_says(collected) -> None:
    fast, full, stress = collected("--tier", "fast"), collected(), collected("--tier", "stress")
    assert set(fast) == {"test_fields", "test_sampled", "test_whole"}
    assert set(full) == {*fast, "test_slow", "test_browser"}
    assert 9 <= full["test_sampled"] <= 12
    assert 20 <= full["test_fields"] < 40
    assert fast == {"test_fields": 5, "test_sampled": 3, "test_whole": CASES}
    assert stress == {**full, "test_fields": 40, "test_sampled": 27, "test_stress": 1}
    assert set(collected("--tier", "stress", "-m", "stress or pairwise")) == {
        "test_fields", "test_sampled", "test_stress"
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "pytestmark = pytest.mark.slow\ndef test_a(): pass",
        "pytestmark = [pytest.mark.skipif(False, reason='a'), pytest.mark.browser]\ndef test_a(): pass",
        "@pytest.mark.slow\ndef test_a(): pass\n@pytest.mark.parametrize('a', [1])\n@pytest.mark.stress\ndef test_b(a): pass",
    ],
)
def test_a_file_that_is_left_out_whole_is_not_imported(tmp_path: Path, text: str) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(text)
    assert is_left_out(file, LEFT_OUT["fast"])
    assert not is_left_out(file, {"another"})
    file.write_text(f"{text}\ndef help_tests(): pass")
    assert is_left_out(file, LEFT_OUT["fast"])
    file.write_text(f"def test_fast(): pass\n{text}")
    assert is_left_out(file, LEFT_OUT["fast"]) == ("pytestmark" in text)


@pytest.mark.slow
def test_the_fast_tier_does_not_import_what_it_leaves_out(collected, tmp_path: Path) -> None:
    (tmp_path / "browser").mkdir()
    for name in ("test_left_out.py", "browser/test_a.py"):
        (tmp_path / name).write_text("import pytest\npytestmark = pytest.mark.slow\nraise RuntimeError")
    assert "test_whole" in collected("--tier", "fast")


def test_a_file_whose_tests_are_made_is_imported(tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text("TestMachine = Machine.TestCase\n@pytest.mark.slow\ndef test_a(): pass")
    assert not is_left_out(file, LEFT_OUT["fast"])
    file.write_text("from others import *")
    assert not is_left_out(file, LEFT_OUT["fast"])


@pytest.mark.slow
def test_a_test_named_on_the_command_line_runs_whole(collected) -> None:
    assert collected("test_it.py::test_sampled", "test_it.py::test_stress") == {"test_sampled": 27, "test_stress": 1}


def test_every_room_has_fast_tests() -> None:
    for room in TESTS.iterdir():
        files = sorted(room.rglob("test_*.py"))
        if files and room.name != "browser":
            whole = [file.name for file in files if not is_left_out(file, LEFT_OUT["fast"])]
            assert whole, f"{room.name}: everything is marked slow, stress or browser"


def test_every_long_test_that_is_listed_is_there() -> None:
    for name, reason in listed().items():
        file, _, test = name.partition("::")
        assert f"\ndef {test}(" in (TESTS / file).read_text(encoding="utf-8"), name
        assert reason
    assert LIST.name in (TESTS.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(("tier", "said"), [("full", "not in long_tests.toml"), ("fast", "in the fast tier")])
def test_a_long_test_that_is_not_listed_is_reported(tmp_path: Path, tier: str, said: str) -> None:
    busy = "import processor_time as it\nit.LONG = it.FAST = 0.05\nit.MANY = 1\n"
    (tmp_path / "conftest.py").write_text(f"{busy}from processor_time import *  # noqa: F403\n")
    loop = "    end = time.process_time() + 0.2\n    while time.process_time() < end: pass\n"
    (tmp_path / "test_it.py").write_text(f"import time\ndef test_long():\n{loop}def test_short(): pass\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tiers", "-p", "no:cacheprovider", "--rootdir", tmp_path]
    environment = {**os.environ, "PYTHONPATH": str(TESTS), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run([*command, "--tier", tier], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert said in done.stdout
    assert "test_it.py::test_long" in done.stdout
    assert "test_short" not in done.stdout

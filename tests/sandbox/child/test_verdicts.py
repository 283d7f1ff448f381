"""No wrong program is judged right, whatever it sends to the process that judges it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from clearhead import sandbox
from clearhead.sandbox import Limits
from sandbox.child.attacks_verdicts import FORGERIES

NAMES = [one.name for one in sandbox.available()]
SHORT = Limits(seconds=1.0, memory=128 << 20)
TESTS = """
def test_double():
    "doubles a number"
    assert double(21) == 42, f"double(21) is {double(21)!r}"


def test_again():
    "doubles another number"
    assert double(4) == 8


def test_refuses():
    "refuses a text"
    with raises(TypeError, "number"):
        learner.double("x")
"""
FEW = ["answer before it is asked", "report tests of its own", "an answer that is equal to everything"]


def judged(name: str, backend: str) -> str:
    """ "" if it failed as it should, else what happened."""
    found = sandbox.judge(FORGERIES[name], TESTS, limits=SHORT, name=backend, owner=name)
    if found.passed:
        return "it passed"
    failed = [test for test in found.tests if not test.passed]
    if not failed or not all(test.message for test in failed):
        return f"nothing is said of why: {found.tests}"
    if found.program.stopped == "start":
        return f"it was not run: {found.program.stderr}"
    return ""


def results(names: list[str], backend: str) -> dict[str, str]:
    with ThreadPoolExecutor(6) as threads:
        return dict(zip(names, threads.map(lambda name: judged(name, backend), names), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("backend", NAMES)
def test_no_verdict_is_forged(backend: str) -> None:
    names = sorted({*FEW, *list(FORGERIES)[::3]}) if backend == "landlock" else FEW
    assert results(names, backend) == dict.fromkeys(names, "")


@pytest.mark.stress
@pytest.mark.parametrize("backend", NAMES)
def test_no_verdict_is_forged_by_any_of_them(backend: str) -> None:
    assert results(list(FORGERIES), backend) == dict.fromkeys(FORGERIES, "")


@pytest.mark.skipif(not NAMES, reason=f"no confinement here: {sandbox.explain()}")
def test_a_right_program_passes_the_same_tests() -> None:
    right = "def double(x):\n    if isinstance(x, str): raise TypeError('a number')\n    return 2 * x"
    assert sandbox.judge(right, TESTS, limits=SHORT).passed

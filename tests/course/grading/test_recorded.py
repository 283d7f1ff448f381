"""What is shown of a program in its tests: what it printed, and maps that show a difference."""

from dataclasses import replace

import pytest

from clearhead import course, sandbox
from clearhead.course import Proved, Receipt
from clearhead.course.grading.recorded import Recorded, recorded

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}"),
]
UNSCALED = """
import torch

def dropped(weights, keep, rate):
    print("rate", rate)
    return weights * keep
"""
PROOF = Proved("write-dropout", "code", Receipt("", 7, {}, ""), "", "", "", ())


@pytest.fixture(scope="module")
def pack() -> course.Pack:
    return course.load(next(folder for folder in course.shipped() if folder.name == "attention"))


def shown(pack: course.Pack, id: str, program: str = "") -> Recorded:
    item = pack.items[id]
    solution = item.role("solution")[0].source
    return recorded(item, replace(PROOF, item_id=id, solution=solution), program or solution, pack.preload, "somebody")


def test_maps_that_are_alike_are_not_set_beside_a_program_that_failed(pack: course.Pack) -> None:
    made = shown(pack, "write-dropout", UNSCALED)  # right at a rate of zero, where alone it gives weights
    assert made.right is None
    assert "rate = 0.25" in made.inputs["What is kept is larger"]


def test_what_a_program_prints_in_its_tests_is_shown(pack: course.Pack) -> None:
    assert "rate 0.25" in shown(pack, "write-dropout", UNSCALED).printed


def test_a_right_program_has_its_map_beside_the_right_one(pack: course.Pack) -> None:
    made = shown(pack, "write-dropout")
    assert made.right is not None
    assert made.yours == made.right


@pytest.mark.parametrize(
    "forged",
    [
        '{"t": 1}',
        '{"t": {"failed": true, "calls": [{"name": 1}]}}',
        '{"t": {"failed": false, "calls": [{"name": "f", "args": {}, "grids": [{"rows": [[]], "weights": true}]}]}}',
    ],
)
def test_a_forged_record_is_none(pack: course.Pack, forged: str) -> None:
    forger = f"import clearhead.sandbox.child.recording as r\nr.recorded = lambda *given: {forged!r}\n"
    made = shown(pack, "write-dropout", UNSCALED + forger)
    assert (made.inputs, made.yours) == ({}, None)


def test_of_a_failing_test_the_last_call_is_shown(pack: course.Pack) -> None:
    once = """    got = dropped(weights, keep, 0.25)
    close(got[keep]"""
    item = pack.items["write-dropout"]
    programs = [
        replace(one, source=one.source.replace(once, f"    dropped(weights, keep, 0.75)\n{once}"))
        for one in item.programs
    ]
    made = recorded(replace(item, programs=tuple(programs)), PROOF, UNSCALED, pack.preload, "somebody")
    assert "rate = 0.25" in made.inputs["What is kept is larger"]

"""Prove a debug item: the given program fails its tests, and with exactly one of the patches it passes."""

from typing import Any

from clearhead.course.pack.item import Program
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.messages import STILL_FAILS
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Runner, changes
from clearhead.sandbox import Judged


def prove_debug(runner: Runner) -> dict[str, Any]:
    """Judge the given program and every patched one."""
    item = runner.item
    given, tests = item.role("given")[0], item.role("tests")[0]
    values = runner.values(runner.must_run(*item.role("answer")))
    sources = [patched(runner, given, patch) for patch in item.role("patch")]
    runner.judge_ahead(tests, *((source, given.line) for source in (given.source, *sources)))
    broken = runner.judge(given.source, given.line, tests)
    if broken.passed:
        raise runner.wrong(given.line, "the given program passes its tests; there is nothing to debug")
    options: list[tuple[Option, int]] = []
    for patch, source in zip(item.role("patch"), sources, strict=True):
        judged = runner.judge(source, given.line, tests)
        shown = changes(given.source, source)
        why = runner.rationale(patch.misconception, values)
        if judged.passed and patch.misconception:
            raise runner.wrong(patch.line, f"this patch acts out {patch.misconception!r}, and it passes the tests")
        if not judged.passed and not patch.misconception:
            raise runner.wrong(patch.line, f"this patch should pass and does not: {failure(judged)}")
        counterexample = "" if judged.passed else f"{STILL_FAILS}\n\n{failure(judged)}"
        belief = runner.belief(patch.misconception)
        option = Option("", shown, judged.passed, patch.misconception, belief, counterexample, why, source)
        options.append((option, patch.line - 1))
    right = [option for option, _ in options if option.correct]
    if len(right) != 1:
        raise runner.wrong(item.lines["kind"], f"{len(right)} patches pass; exactly one must")
    return {
        "options": settle(runner, options), "answer": right[0].text, "values": values, "given": given.source,
        "solution": right[0].output, "tests": tests.source, "figure": "", "notes": (failure(broken),),
    }  # fmt: skip


def patched(runner: Runner, given: Program, patch: Program) -> str:
    """Return the given program with the patch's `lines=4` or `lines=4-6` replaced by its text."""
    rows = given.source.splitlines()
    first, _, last = patch.attributes.get("lines", "").partition("-")
    try:
        start, end = int(first), int(last or first)
    except ValueError:
        raise runner.wrong(patch.line - 1, "a patch says which lines it replaces: lines=4 or lines=4-6") from None
    if not 1 <= start <= end <= len(rows):
        raise runner.wrong(patch.line - 1, f"lines={start}-{end}; the given program has lines 1 to {len(rows)}")
    return "\n".join([*rows[: start - 1], *patch.source.splitlines(), *rows[end:]]) + "\n"


def failure(judged: Judged) -> str:
    """Return a sentence about the first test that failed."""
    failed = next((test for test in judged.tests if not test.passed), None)
    return f"{failed.title}: {failed.message}" if failed else ""

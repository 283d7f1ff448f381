"""Prove a code item: the solution passes its tests, the starter fails, and the tests catch every mutant."""

import re
from typing import Any

from clearhead.course.proofs.kinds.debug import failure
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Runner, changes
from clearhead.sandbox import Judged


def prove_code(runner: Runner) -> dict[str, Any]:
    """Judge solution, starter and mutants by the tests."""
    item = runner.item
    solution, starter, tests = (item.role(role)[0] for role in ("solution", "starter", "tests"))
    values = runner.values(runner.must_run(*item.role("answer")))
    runner.judge_ahead(
        tests, *((program.source, program.line) for program in (solution, starter, *item.role("mutant")))
    )
    solved = runner.judge(solution.source, solution.line, tests)
    if not solved.passed:
        line = next((test.line for test in solved.tests if not test.passed and test.line), solution.line)
        raise runner.wrong(line, f"the solution fails its tests: {failure(solved)}")
    begun = runner.judge(starter.source, starter.line, tests)
    if begun.passed:
        raise runner.wrong(starter.line, "the starter passes the tests already; there is nothing to write")
    options: list[tuple[Option, int]] = []
    for mutant in item.role("mutant"):
        judged = runner.judge(mutant.source, mutant.line, tests)
        if judged.passed:
            raise runner.wrong(mutant.line, f"this mutant survives: the tests do not catch {mutant.misconception!r}")
        belief, why = runner.belief(mutant.misconception), runner.rationale(mutant.misconception, values)
        counterexample = f"{changes(solution.source, mutant.source)}\n\nfails: {failure(judged)}"
        option = Option("", mutant.source, False, mutant.misconception, belief, counterexample, why, signature(judged))
        options.append((option, mutant.line - 1))
    return {
        "options": settle(runner, options), "answer": solution.source, "values": values, "starter": starter.source,
        "solution": solution.source, "tests": tests.source,
    }  # fmt: skip


def signature(judged: Judged) -> str:
    """Return how a program fails. The tests cannot tell two programs with the same signature apart."""
    rows = (f"{test.title}: {'ok' if test.passed else test.message}" for test in judged.tests)
    return "\n".join(re.sub(r" \(line \d+ of your program\)$", "", row) for row in rows)

"""Code to write: the solution passes, the starter fails, and every mutant of the solution is caught by the tests."""

import re
from typing import Any

from clearhead.course.proofs.kinds.debug import failure
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Bench, changes
from clearhead.sandbox import Judged


def prove_code(bench: Bench) -> dict[str, Any]:
    """Judge solution, starter and mutants by the tests."""
    item = bench.item
    solution, starter, tests = (item.role(role)[0] for role in ("solution", "starter", "tests"))
    values = bench.values(bench.must_run(*item.role("answer")))
    bench.judge_ahead(tests, *((program.source, program.line) for program in (solution, starter, *item.role("mutant"))))
    solved = bench.judge(solution.source, solution.line, tests)
    if not solved.passed:
        line = next((test.line for test in solved.tests if not test.passed and test.line), solution.line)
        raise bench.wrong(line, f"the solution fails its tests: {failure(solved)}")
    begun = bench.judge(starter.source, starter.line, tests)
    if begun.passed:
        raise bench.wrong(starter.line, "the starter passes the tests already; there is nothing to write")
    options: list[tuple[Option, int]] = []
    for mutant in item.role("mutant"):
        judged = bench.judge(mutant.source, mutant.line, tests)
        if judged.passed:
            raise bench.wrong(mutant.line, f"this mutant survives: the tests do not catch {mutant.misconception!r}")
        belief, why = bench.belief(mutant.misconception), bench.rationale(mutant.misconception, values)
        counterexample = f"{changes(solution.source, mutant.source)}\n\nfails: {failure(judged)}"
        option = Option("", mutant.source, False, mutant.misconception, belief, counterexample, why, signature(judged))
        options.append((option, mutant.line - 1))
    return {
        "options": settle(bench, options), "answer": solution.source, "values": values, "starter": starter.source,
        "solution": solution.source, "tests": tests.source,
    }  # fmt: skip


def signature(judged: Judged) -> str:
    """How a program fails: two programs with the same signature made the same mistake, as far as the tests see."""
    rows = (f"{test.title}: {'ok' if test.passed else test.message}" for test in judged.tests)
    return "\n".join(re.sub(r" \(line \d+ of your program\)$", "", row) for row in rows)

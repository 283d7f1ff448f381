"""Prove a predict item: the answer is what `given` prints or raises, a distractor is what a mutant of it prints."""

from typing import Any

from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.messages import NOTHING, PRINTS, WOULD_PRINT
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Job, Runner, changes, fence, shown


def prove_predict(runner: Runner) -> dict[str, Any]:
    """Run the given program and each distractor; all must show different things."""
    item = runner.item
    given = item.role("given")[0]
    programs = (given, *item.role("distractor"))
    runner.ahead(
        Job(item.role("answer")),
        *(Job((program,)) for program in programs),
        *(job for program in programs for job in drawing(runner, program)),
    )
    run = runner.run(given)
    values = runner.values(runner.must_run(*item.role("answer")), run)
    answer = shown(run)
    if not answer:
        raise runner.wrong(given.line, "the program prints nothing and raises nothing; there is nothing to predict")
    figure = "" if run.raised else draw(runner, given)
    why = runner.rationale(None, values)
    right = Option("", fence(answer), True, rationale=why, output=answer, figure=figure)
    candidates = [(right, given.line - 1)]
    for mutant in item.role("distractor"):
        outcome = runner.run(mutant)
        if (
            outcome.raised
            and "SyntaxError" in outcome.raised.kinds
            and not (run.raised and "SyntaxError" in run.raised.kinds)
        ):
            raise runner.wrong(mutant.line, f"the distractor is not valid Python: {outcome.raised.message}")
        output = shown(outcome)
        text = fence(output) if output else NOTHING
        patch = changes(given.source, mutant.source)
        counterexample = "\n\n".join([patch, WOULD_PRINT, text, PRINTS, fence(answer)])
        why = runner.rationale(mutant.misconception, {**values, **outcome.values})
        picture = "" if outcome.raised else draw(runner, mutant)
        option = Option("", fence(output) if output else "", False, mutant.misconception,
                        runner.belief(mutant.misconception), counterexample, why, output, picture)  # fmt: skip
        candidates.append((option, mutant.line - 1))
    options = settle(runner, candidates)
    return {"options": options, "answer": answer, "values": values, "given": given.source, "figure": figure}

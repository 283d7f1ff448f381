"""Prove a card: its back is a claim that its `proof` asserts, or a definition with a source."""

from typing import Any

from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.placeholders import fill
from clearhead.course.proofs.runner import Job, Runner


def prove_card(runner: Runner) -> dict[str, Any]:
    """Run the proof; fill the back."""
    item = runner.item
    programs = [*item.role("answer"), *item.role("proof")]
    runner.ahead(Job(tuple(programs)), *drawing(runner, *programs))
    values = runner.values(runner.must_run(*programs))
    for proof in item.role("proof"):
        if "assert" not in proof.source:
            raise runner.wrong(proof.line, "this proof asserts nothing; write `assert` and the claim")
    back = fill(item.back, values)
    return {"answer": back, "back": back, "values": values, "figure": draw(runner, *programs)}

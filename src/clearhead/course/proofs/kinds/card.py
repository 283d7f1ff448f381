"""A card's back is a claim: its `proof` asserts it, or it is a definition with a source."""

from typing import Any

from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.placeholders import fill
from clearhead.course.proofs.runner import Bench, Job


def prove_card(bench: Bench) -> dict[str, Any]:
    """Run the proof; fill the back."""
    item = bench.item
    programs = [*item.role("answer"), *item.role("proof")]
    bench.ahead(Job(tuple(programs)), *drawing(bench, *programs))
    values = bench.values(bench.must_run(*programs))
    for proof in item.role("proof"):
        if "assert" not in proof.source:
            raise bench.wrong(proof.line, "this proof asserts nothing; write `assert` and the claim")
    back = fill(item.back, values)
    return {"answer": back, "back": back, "values": values, "figure": draw(bench, *programs)}

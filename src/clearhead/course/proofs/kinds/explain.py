"""Prove an explain item: prove the claim where possible, and test the rubric on four answers."""

from typing import Any

from clearhead.course.pack.item import Section
from clearhead.course.proofs.placeholders import fill
from clearhead.course.proofs.runner import Runner
from clearhead.course.rubric import Criterion, ticks

# role -> (must it meet every criterion?, what is wrong if not)
_TRIALS = {
    "exemplar": (True, "the exemplar does not meet"),
    "paraphrase": (True, "the paraphrase does not meet"),
    "negated": (False, "the negated answer meets every criterion; name what its denial says under `not:`"),
    "keywords": (False, "a dump of keywords meets every criterion; ask for longer phrases, or for their order"),
}


def prove_explain(runner: Runner) -> dict[str, Any]:
    """Run the proofs; try the rubric on the exemplar, a paraphrase, a negated answer and a dump of keywords."""
    item = runner.item
    values = runner.values(runner.must_run(*item.role("answer"), *item.role("proof")))
    criteria = tuple(_criterion(runner, section, values) for section in item.named("Criterion"))
    for role, (must, problem) in _TRIALS.items():
        for program in item.role(role):
            unmet = [tick for tick in ticks(fill(program.source, values), criteria) if not tick.met]
            if must and unmet:
                raise runner.wrong(program.line, f"{problem} {unmet[0].criterion!r}: {unmet[0].why}")
            if not must and not unmet:
                raise runner.wrong(program.line, problem)
    exemplar = fill(item.role("exemplar")[0].source.strip(), values)
    notes = () if item.first("proof") else ("not executable: the claim is argued, not measured",)
    return {"criteria": criteria, "answer": exemplar, "values": values, "notes": notes}


def _criterion(runner: Runner, section: Section, values: dict[str, str]) -> Criterion:
    """Parse a criterion: prose, then lines `any: a, b` (one phrase of each must occur), `not: …`, and `order: yes`."""
    prose: list[str] = []
    terms: list[tuple[str, ...]] = []
    without: list[str] = []
    ordered = False
    for row in section.text.splitlines():
        key, colon, rest = row.partition(":")
        phrases = tuple(phrase.strip() for phrase in rest.split(",") if phrase.strip())
        if colon and key.strip() == "any":
            terms.append(phrases)
        elif colon and key.strip() == "not":
            without += phrases
        elif colon and key.strip() == "order":
            ordered = rest.strip() == "yes"
        else:
            prose.append(row)
    if not section.argument or not terms or not all(terms):
        raise runner.wrong(section.line, "a criterion needs an id and at least one line `any: phrase, phrase`")
    text = fill("\n".join(prose).strip(), values)
    return Criterion(section.argument, text, tuple(terms), ordered, tuple(without))

"""Prove a match item: compute the right-hand side of each pair; no two may be the same."""

from dataclasses import replace
from typing import Any

from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.proved import Option, Step
from clearhead.course.proofs.runner import Job, Runner

_WANT = (("result", ""),)


def prove_match(runner: Runner) -> dict[str, Any]:
    """Run the program of each pair; it prints or sets `result`."""
    item = runner.item
    sections = item.named("Pair")
    if not 3 <= len(sections) <= 8:
        raise runner.wrong(item.lines["kind"], f"{len(sections)} pairs; a match item has 3 to 8")
    pairs = [program for section in sections for program in section.programs]
    runner.ahead(Job(item.role("answer")), *(Job((*item.role("answer"), pair), _WANT) for pair in pairs))
    values = runner.values(runner.must_run(*item.role("answer")))
    candidates: list[tuple[Option, int]] = []
    lefts: list[str] = []
    for section in sections:
        if not section.argument or section.argument in lefts:
            raise runner.wrong(section.line, "`## Pair <left side>` needs a left side that no other pair has")
        pairs = [program for program in section.programs if program.role == "pair"]
        if len(pairs) != 1:
            raise runner.wrong(section.line, "a pair needs one ```python pair program")
        run = runner.must_run(*item.role("answer"), pairs[0], want=_WANT)
        result = run.values.get("result") or run.stdout.strip()
        candidates.append((Option("", result, True, output=section.argument), pairs[0].line - 1))
        lefts.append(section.argument)
    options = settle(runner, candidates)
    by_left = {option.output: option for option in options}
    steps = tuple(Step(str(at + 1), left, "", by_left[left].text, by_left[left].key) for at, left in enumerate(lefts))
    shown = tuple(replace(option, output="", correct=False) for option in options)
    answer = "\n".join(f"- {step.text}: {step.result}" for step in steps)
    return {"options": shown, "steps": steps, "answer": answer, "values": values}

"""Prove a choice item: run each option's check; the declared number must hold, the others need counterexamples."""

from typing import Any

from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.placeholders import fill, unset
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Job, Runner

_WANT = (("holds", ""), ("counterexample", ""))


def prove_choice(runner: Runner) -> dict[str, Any]:
    """Run the check of each option."""
    item = runner.item
    checks = [program for section in item.named("Option") for program in section.programs]
    runner.ahead(
        Job(item.role("answer")),
        *(Job((*item.role("answer"), check), _WANT) for check in checks),
        *drawing(runner, *item.role("answer")),
    )
    base = runner.must_run(*item.role("answer"))
    values = runner.values(base)
    candidates: list[tuple[Option, int]] = []
    for section in item.named("Option"):
        if len(section.programs) != 1 or section.programs[0].role != "check":
            raise runner.wrong(section.line, "an option needs one ```python check program")
        check = section.programs[0]
        run = runner.must_run(*item.role("answer"), check, want=_WANT)
        holds = run.values.get("holds")
        if holds not in ("True", "False"):
            raise runner.wrong(check.line, f"a check sets `holds` to True or False; it is {holds}")
        own = {**values, **run.values}
        if lacking := unset(section.text, own):
            name, row = lacking
            raise runner.wrong(section.text_line + row, f"no program sets `{name}`")
        text = fill(section.text, own)
        if holds == "True":
            if check.misconception:
                raise runner.wrong(check.line - 1, f"this option acts out {check.misconception!r}, and its check holds")
            candidates.append((Option("", text, True, rationale=runner.rationale(None, own)), section.line))
            continue
        if not check.misconception:
            raise runner.wrong(check.line - 1, "this option's check does not hold, and it names no misconception")
        counterexample = run.values.get("counterexample", "").strip()
        if not counterexample:
            raise runner.wrong(
                check.line, "a wrong option's check sets `counterexample`: a text that shows it is wrong"
            )
        belief, why = runner.belief(check.misconception), runner.rationale(check.misconception, own)
        candidates.append((Option("", text, False, check.misconception, belief, counterexample, why), section.line))
    right = sum(option.correct for option, _ in candidates)
    if right != item.right:
        line = item.lines.get("right", item.lines.get("kind", 1))
        raise runner.wrong(line, f"{right} options hold; `right` says {item.right}")
    if right == len(candidates):
        raise runner.wrong(item.lines.get("kind", 1), "every option holds; there is nothing to choose")
    options = settle(runner, candidates)
    answer = "\n\n".join(option.text for option in options if option.correct)
    figure = draw(runner, *item.role("answer"))
    return {"options": options, "answer": answer, "values": values, "figure": figure}

"""Prove a worked example: each step runs after the ones before it and sets `result`; the prose shows the values."""

from typing import Any

from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.placeholders import fill, unset
from clearhead.course.proofs.proved import Step
from clearhead.course.proofs.runner import Job, Runner
from clearhead.sandbox import Chunk


def prove_worked(runner: Runner) -> dict[str, Any]:
    """Run the steps in one namespace; keep each one's result."""
    item = runner.item
    sections = item.named("Step")
    programs: list[Any] = [*item.role("answer")]
    for at, section in enumerate(sections):
        own = [program for program in section.programs if program.role == "step"]
        if len(own) != 1:
            raise runner.wrong(section.line, "a step needs one ```python step program that sets `result`")
        keep = f"_step_{at} = result\ndel result\n"
        programs += [own[0], Chunk(keep, item.file, own[0].line + own[0].source.count("\n") - 1)]
    want = tuple((f"_step_{at}", "") for at in range(len(sections)))
    runner.ahead(Job(tuple(programs), want), *drawing(runner, *programs))
    run = runner.must_run(*programs, want=want)
    values = runner.values(run)
    steps = []
    for at, section in enumerate(sections):
        if lacking := unset(section.text, values):
            name, row = lacking
            raise runner.wrong(section.text_line + row, f"no program sets `{name}`")
        code = next(program.source for program in section.programs if program.role == "step")
        text = fill(section.text, values)
        steps.append(Step(str(at + 1), f"**{section.argument}**\n\n{text}" if section.argument else text, code,
                          run.values[f"_step_{at}"]))  # fmt: skip
    figure = draw(runner, *programs)
    return {"steps": tuple(steps), "answer": steps[-1].result, "values": values, "figure": figure}

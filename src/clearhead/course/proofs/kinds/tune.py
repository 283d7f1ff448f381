"""Prove a tune item: `sweep` computes a table, `answer` picks a setting from it, and so does each misconception."""

import json
from typing import Any

from clearhead.course.pack.item import Program
from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.messages import SWEPT
from clearhead.course.proofs.placeholders import names
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Job, Runner
from clearhead.sandbox import Chunk

# Turns the table into JSON: every cell as text, floats with six digits. The names begin with two underscores.
_DUMP = Chunk(
    """import json as __json
__rows = [{str(k): f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in table]
__table = __json.dumps(__rows)
""",
    "table",
)

_WANT = (("answer", ""), ("__table", ""))
# A sweep may train models, so it runs once for the answer and all distractors. Each picks from a copy of the table, and
# sees the names that the sweep left but none that another pick has set.
_KEEP = Chunk(
    "import copy as __copy\n__names, __rows, __picked = dict(globals()), __copy.deepcopy(table), []\n", "kept"
)
_NEXT = Chunk(
    """for __name in [name for name in globals() if name not in __names and not name.startswith("__")]:
    del globals()[__name]
globals().update(__names)
table, answer = __copy.deepcopy(__rows), None
""",
    "next",
)
_PICKED = Chunk('__picked.append(f"{answer:.6g}" if isinstance(answer, float) else str(answer))\n', "picked")
_DUMP_PICKED = Chunk("import json as __json\n__picked = __json.dumps(__picked)\n", "picked")


def prove_tune(runner: Runner) -> dict[str, Any]:
    """Run the sweep; the answer and every distractor are values of the table's first column."""
    item = runner.item
    sweep, program = item.role("sweep")[0], item.role("answer")[0]
    together = [mutant for mutant in item.role("distractor") if not _shows(runner, mutant)]
    picks = [chunk for mutant in together for chunk in (_NEXT, mutant, _PICKED)]
    whole = Job((sweep, _KEEP, *picks, _DUMP_PICKED, _NEXT, program, _DUMP), (*_WANT, ("__picked", "")))
    runner.ahead(
        whole,
        *(Job((sweep, mutant), _WANT[:1]) for mutant in item.role("distractor") if mutant not in together),
        *(job for part in (program, *item.role("distractor")) for job in drawing(runner, sweep, part)),
    )
    run = runner.run(*whole.programs, want=whole.want)
    if not run.ok:  # alone it says which of them is wrong
        run, together = runner.run(sweep, program, _DUMP, want=_WANT), []
    if not run.ok:
        raise runner.raised(run, sweep.line)
    table = json.loads(run.values.get("__table", "[]"))
    if len(table) < 2:
        raise runner.wrong(sweep.line, "a sweep sets `table`, a list of at least two dicts: one per setting")
    column = next(iter(table[0]))
    rows = {row[column]: row for row in table if column in row}
    if len(rows) != len(table):
        raise runner.wrong(sweep.line, f"two rows of the table have the same {column}")
    values = runner.values(run)
    figure = draw(runner, sweep, program)
    right = _value_of(runner, run.values.get("answer"), rows, program.line, column)
    options = [
        (
            Option("", f"`{right}`", True, rationale=runner.rationale(None, values), output=right, figure=figure),
            program.line - 1,
        )
    ]
    answers = json.loads(run.values.get("__picked", "[]"))
    picked = {mutant.line: answer for mutant, answer in zip(together, answers, strict=False)}
    for mutant in item.role("distractor"):
        outcome = run if mutant.line in picked else runner.must_run(sweep, mutant, want=_WANT[:1])
        wrong = _value_of(runner, picked.get(mutant.line, outcome.values.get("answer")), rows, mutant.line, column)
        counterexample = f"{SWEPT}\n\n{as_table([rows[right], rows[wrong]])}"
        why = runner.rationale(mutant.misconception, {**values, **outcome.values})
        belief = runner.belief(mutant.misconception)
        picture = draw(runner, sweep, mutant)
        option = Option("", f"`{wrong}`", False, mutant.misconception, belief, counterexample, why, wrong, picture)
        options.append((option, mutant.line - 1))
    return {
        "options": settle(runner, options),
        "answer": right,
        "values": values,
        "given": sweep.source,
        "table": tuple(table),
        "figure": figure,
    }


def _shows(runner: Runner, mutant: Program) -> bool:
    """Whether the rationale of a distractor shows values, which its own program may set."""
    return any(names(runner.item.rationales.get(mutant.misconception or "", "")))


def _value_of(runner: Runner, answer: str | None, rows: dict[str, Any], line: int, column: str) -> str:
    if answer is None or answer not in rows:
        known = ", ".join(rows)
        raise runner.wrong(line, f"sets `answer` to {answer}; expected one value of the column {column!r}: {known}")
    return answer


def as_table(rows: list[dict[str, str]]) -> str:
    """Return rows as a Markdown table."""
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.get(head, '') for head in heads)} |" for row in rows)])

"""A sweep decides: `sweep` computes a table, `answer` picks from it, and so does each misconception."""

import json
from typing import Any

from clearhead.course.proofs.figure import draw, drawing
from clearhead.course.proofs.kinds.options import settle
from clearhead.course.proofs.messages import SWEPT
from clearhead.course.proofs.proved import Option
from clearhead.course.proofs.runner import Job, Runner
from clearhead.sandbox import Chunk

# The table as JSON text: every cell as text, floats with six digits. Its own names begin with two underscores.
_DUMP = Chunk(
    """import json as __json
__rows = [{str(k): f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()} for row in table]
__table = __json.dumps(__rows)
""",
    "table",
)

_WANT = (("answer", ""), ("__table", ""))


def prove_tune(runner: Runner) -> dict[str, Any]:
    """Run the sweep; the answer and every distractor are values of the table's first column."""
    item = runner.item
    sweep, program = item.role("sweep")[0], item.role("answer")[0]
    runner.ahead(
        Job((sweep, program, _DUMP), _WANT),
        *(Job((sweep, mutant), _WANT[:1]) for mutant in item.role("distractor")),
        *(job for part in (program, *item.role("distractor")) for job in drawing(runner, sweep, part)),
    )
    run = runner.run(sweep, program, _DUMP, want=_WANT)
    if not run.ok:
        raise runner.raised(run, sweep.line)
    table = json.loads(run.values.get("__table", "[]"))
    if len(table) < 2:
        raise runner.wrong(sweep.line, "a sweep sets `table`, a list of at least two dicts: one a setting")
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
    for mutant in item.role("distractor"):
        outcome = runner.must_run(sweep, mutant, want=_WANT[:1])
        wrong = _value_of(runner, outcome.values.get("answer"), rows, mutant.line, column)
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


def _value_of(runner: Runner, answer: str | None, rows: dict[str, Any], line: int, column: str) -> str:
    if answer is None or answer not in rows:
        known = ", ".join(rows)
        raise runner.wrong(line, f"sets `answer` to {answer}; expected one value of the column {column!r}: {known}")
    return answer


def as_table(rows: list[dict[str, str]]) -> str:
    """Rows as a Markdown table."""
    heads = list(rows[0])
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row.get(head, '') for head in heads)} |" for row in rows)])

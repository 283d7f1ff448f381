"""Write CSV for a spreadsheet, one row per item, and read back the tables written here."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from clearhead.course.exchange.draft import Draft, pair_row
from clearhead.course.exchange.question import Question
from clearhead.course.exchange.report import Report
from clearhead.spreadsheet import as_written, inert

COLUMNS = (
    "item", "kind", "topic", "concepts", "difficulty", "title", "question", "options", "answer", "why", "rule",
    "right", "lefts", "feedback", "hints", "pitfalls", "figures",
)  # fmt: skip


def write_csv(questions: Sequence[Question], _title: str, place: Path) -> None:
    """Write the table. Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    with place.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for question in questions:
            rows.writerow(map(inert, _cells(question)))


def _cells(question: Question) -> list[str]:
    right = {
        "options": [option.key for option in question.choices if option.correct],
        "pairs": [key for _, key in question.pairs],
        "order": list(question.order),
    }.get(question.form, [])
    lefts = _listed((str(number), left) for number, (left, _) in enumerate(question.pairs, 1))
    feedback = _listed((option.key, option.feedback) for option in question.choices)
    hints = _listed((str(number), hint) for number, hint in enumerate(question.hints, 1))
    figures = _listed([("answer", question.figure), *((option.key, option.figure) for option in question.choices)])
    options = _listed((option.key, option.text) for option in question.choices)
    return [
        question.id, question.kind, question.topic, " ".join(question.concepts), str(question.difficulty),
        question.title, question.stem, options, question.answer, question.feedback, question.rule, " ".join(right),
        lefts, feedback, hints, question.pitfalls, figures,
    ]  # fmt: skip


def _listed(entries: Iterable[tuple[str, str]]) -> str:
    """Return a line `key) text` for each entry. Further lines of a text are indented, unlike the next key."""
    return "\n".join(f"{key}) {text}".replace("\n", "\n   ") for key, text in entries if text)


def is_table(text: str) -> bool:
    """Return whether this is the text of a table that `write_csv` wrote."""
    return text.startswith(",".join(COLUMNS[:5]))


def read_csv(text: str, file: str, report: Report) -> list[Draft]:
    """Read a table that `write_csv` wrote; report a row that cannot be read."""
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    drafts: list[Draft] = []
    while True:
        line = rows.reader.line_num + 1
        try:
            row = next(rows)
        except StopIteration:
            return drafts
        except csv.Error as error:
            report.add(f"{file}:{line}", f"a row that cannot be read: {error}")
            continue
        cells = {name: as_written(row.get(name) or "") for name in COLUMNS}
        drafts.append(_draft(cells, f"{file}, item {cells['item']}"))


def _draft(cells: dict[str, str], place: str) -> Draft:
    options, lefts, hints = (_entries(cells[name]) for name in ("options", "lefts", "hints"))
    right, feedback = cells["right"].split(), dict(_entries(cells["feedback"]))
    explanation = [cells["why"], cells["pitfalls"], cells["rule"]]
    origin = {"imported from": place, "kind": cells["kind"], "topic": cells["topic"], "concepts": cells["concepts"]}
    back = note = ""
    chosen: tuple[tuple[str, bool, str], ...] = ()
    if lefts:
        texts = dict(options)
        pairs = zip(lefts, right, strict=False)
        back = "\n".join(pair_row(left, texts.get(key, "")) for (_, left), key in pairs)
        note = "pairs; make it a match item"
    elif cells["kind"] == "order":
        back, note = cells["answer"], "steps; make it an order item"
    elif options:
        chosen = tuple((text, key in right, feedback.get(key, "")) for key, text in options)
    else:
        back, explanation = _joined([cells["answer"], *explanation]), []
    return Draft(
        cells["title"], cells["question"], back, chosen, note, _joined(explanation), tuple(text for _, text in hints),
        tuple((key, value) for key, value in origin.items() if value),
    )  # fmt: skip


def _joined(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part)


def _entries(text: str) -> list[tuple[str, str]]:
    """Parse what `_listed` wrote: (key, text) of each entry."""
    entries: list[list[str]] = []
    for row in text.split("\n"):
        begun = re.match(r"(\w+)\) ", row)
        if begun:
            entries.append([begun[1], row[begun.end() :]])
        elif entries:
            entries[-1].append(row.removeprefix("   "))
    return [(key, "\n".join(rows)) for key, *rows in entries]

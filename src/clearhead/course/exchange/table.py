"""CSV: one row an item, for a spreadsheet."""

import csv
from collections.abc import Sequence
from pathlib import Path

from clearhead.course.exchange.question import Question

COLUMNS = ("item", "kind", "topic", "concepts", "difficulty", "title", "question", "options", "answer", "why", "rule")


def write_csv(found: Sequence[Question], _title: str, place: Path) -> None:
    """Write the table. Text that a spreadsheet would take for a formula gets an apostrophe in front."""
    with place.open("w", encoding="utf-8-sig", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for one in found:
            options = "\n".join(f"{choice.key}) {choice.text}" for choice in one.choices)
            cells = [one.id, one.kind, one.topic, " ".join(one.concepts), str(one.difficulty), one.title, one.stem,
                     options, one.answer, one.feedback, one.rule]  # fmt: skip
            rows.writerow([f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell for cell in cells])

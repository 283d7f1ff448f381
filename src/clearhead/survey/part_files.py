"""The files of a part: the moments of every head, and tables of its texts if they are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from clearhead.survey.measuring.layout import Layout
from clearhead.survey.measuring.moments import Moments
from clearhead.survey.measuring.worker import Measured
from clearhead.survey.parquet import read_table, table_bytes

WHOLE = ("count", "above", "histogram", "example_texts")  # columns of integers


def name_of(part: int) -> str:
    """Return the file name of a part.

    >>> name_of(7)
    '000007.parquet'
    """
    return f"{part:06}.parquet"


def contents(measured: Measured, layout: Layout, digest: str) -> dict[str, bytes]:
    """Return the files of a part by their path in the survey's folder. The last one marks the part as done.

    Args:
        digest: the digest of the survey's settings, kept in the file.
    """
    number = measured.part.number
    files = {}
    if measured.values:
        for layer, heads in enumerate(layout.heads):
            span = layout.span(layer)
            columns: dict[str, Any] = {
                "text": np.repeat(measured.texts, heads),
                "tokens": np.repeat(measured.lengths, heads).astype(np.int32),
                "head": np.tile(np.arange(heads, dtype=np.int16), len(measured.texts)),
            }
            columns |= {name: table[:, span].astype(np.float32).ravel() for name, table in measured.values.items()}
            files[f"texts/layer={layer}/{name_of(number)}"] = table_bytes(columns)
    missed = [[name, reason, texts] for (name, reason), texts in sorted(measured.missed.items())]
    notes = {
        "survey": digest,
        "part": str(number),
        "counts": json.dumps(measured.counts, sort_keys=True),
        "missed": json.dumps(missed),
        "statistics": json.dumps(list(measured.moments)),
    }
    parts = [moments.columns() for moments in measured.moments.values()]
    joined = {name: _joined([columns[name] for columns in parts]) for name in parts[0]}
    files[f"parts/{name_of(number)}"] = table_bytes(joined, notes)
    return files


def _joined(columns: list[Any]) -> Any:
    return np.concatenate(columns) if isinstance(columns[0], np.ndarray) else [row for rows in columns for row in rows]


def read_part(path: Path) -> tuple[dict[str, Moments], dict[str, str]]:
    """Return the moments of a part by statistic, and its notes."""
    columns, notes = read_table(path)
    names = json.loads(notes["statistics"])
    heads = len(columns["count"]) // max(len(names), 1)
    arrays: dict[str, Any] = {
        name: np.array(values, dtype=np.int64 if name in WHOLE else np.float64) for name, values in columns.items()
    }
    whole = Moments(**arrays)
    places = np.arange(len(names) * heads).reshape(len(names), heads)
    return {name: whole.rows(places[number]) for number, name in enumerate(names)}, notes


def is_part_of(path: Path, digest: str) -> bool:
    """Whether a file is a complete part of a survey with these settings."""
    try:
        _, notes = read_table(path)
    except (OSError, ValueError):
        return False
    return notes.get("survey") == digest

"""Read plain text and JSON lines. Opening scans the file for its digest and the offset of every 64th text."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import ModelError
from clearhead.files import unreadable

STRIDE = 64  # texts between two remembered offsets
Raw = tuple[int, int, bytes]  # offset of a text, number of its first line from 1, its bytes
BOM = b"\xef\xbb\xbf"
HALF = re.compile("[\ud800-\udfff]")  # JSON can escape half of a surrogate pair, which no tokenizer takes


@dataclass(frozen=True, slots=True)
class LineFile:
    """A file of texts, each a line, a paragraph or a JSON object on a line. Blank lines are not texts.

    Attributes:
        path, texts, digest: as in `parts.TextFile`.
        form: what a text is.
        column: the key of the text in JSON objects.
        starts: (ceil(texts / STRIDE),), the byte at which each STRIDE-th text begins.
    """

    path: str
    form: Literal["line", "paragraph", "json"]
    column: str
    texts: int
    digest: str
    starts: NDArray[np.int64]

    @classmethod
    def opened(
        cls,
        path: Path,
        form: Literal["line", "paragraph", "json"],
        column: str,
        progress: Callable[[int], None] = lambda _bytes: None,
    ) -> LineFile:
        """Scan a file.

        Args:
            progress: called now and then with the number of bytes read since the last call.

        Raises:
            ModelError: it cannot be read, or a line is not UTF-8 or not a JSON object with text; the message names it.
        """
        made, starts, texts, reported = hashlib.blake2b(digest_size=16), [], 0, 0
        with _reading(path) as file:
            place = 0
            for start, line, raw in _texts(file, form, 0):
                _decoded(raw, form, column, path, line)
                made.update(raw)
                made.update(b"\0")
                if texts % STRIDE == 0:
                    starts.append(start)
                    progress(start - reported)
                    reported = start
                texts += 1
                place = start + len(raw)
            progress(place - reported)
        return cls(str(path), form, column, texts, made.hexdigest(), np.array(starts, dtype=np.int64))

    def read(self, first: int, count: int) -> list[str | None]:
        """Return `count` consecutive texts from number `first` on."""
        with _reading(Path(self.path)) as file:
            file.seek(int(self.starts[first // STRIDE]))
            raws = islice(_texts(file, self.form, 1), first % STRIDE, first % STRIDE + count)
            return [_decoded(raw, self.form, self.column, Path(self.path), line) for _, line, raw in raws]


def _reading(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _texts(file: IO[bytes], form: str, line: int) -> Iterator[Raw]:
    """Yield each text of a file, from its current position."""
    start, begin = file.tell(), 0
    parts: list[bytes] = []
    for raw in file:
        line += 1
        stripped = raw.strip().removeprefix(BOM if start == 0 else b"")
        if form != "paragraph":
            if stripped:
                yield start, line, stripped
        elif stripped:
            if not parts:
                begin, first_line = start, line
            parts.append(stripped)
        elif parts:
            yield begin, first_line, b" ".join(parts)
            parts = []
        start += len(raw)
    if parts:
        yield begin, first_line, b" ".join(parts)


def _decoded(raw: bytes, form: str, column: str, path: Path, line: int) -> str | None:
    """Return the text in some bytes; None for a JSON null.

    Raises:
        ModelError: the bytes are not UTF-8, or not a JSON object with text.
    """
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}, line {line}, is not text in UTF-8 ({error.reason}). Save it as UTF-8.") from error
    if form != "json":
        return text
    try:
        row: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(
            f"{path}, line {line}, is not JSON ({_fault(error)}). Give a file with one JSON object on each line."
        ) from error
    if not isinstance(row, dict):
        raise ModelError(
            f"{path}, line {line}, holds {_kind(row)}, expected an object such as "
            f'{{"{column}": "the text"}}. Give a file with one JSON object on each line.'
        )
    if column not in row:
        raise ModelError(
            f"{path}, line {line}, has no {column!r}; its keys are {', '.join(map(repr, row)) or 'none'}. "
            "Name the one that holds the text: --column."
        )
    value = row[column]
    if value is not None and not isinstance(value, str):
        raise ModelError(f"{path}, line {line}: {column!r} holds {_kind(value)}, not text. Name another: --column.")
    if value is not None and (half := HALF.search(value)):
        raise ModelError(
            f"{path}, line {line}: {column!r} has half of a character in it (\\u{ord(half[0]):x}, half of a surrogate "
            "pair). Replace it, for example by \\ufffd."
        )
    return value


def _kind(value: Any) -> str:
    """Return what a JSON value is, in the words of JSON."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, (int, float)):
        return "a number"
    return "a string" if isinstance(value, str) else "an array" if isinstance(value, list) else "an object"


def _fault(error: ValueError | RecursionError) -> str:
    """What is wrong with a line of JSON; the parser counts columns from 1 and calls each of our lines line 1."""
    return f"column {error.colno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)

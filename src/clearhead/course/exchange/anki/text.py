"""Read Anki's text export: `#key:value` lines, then one note per record. A quoted field may span several lines."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from clearhead.course.exchange.anki.cards import NoteType, basic, cards, cloze, has_gaps
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.limits import Budget
from clearhead.course.exchange.markup.convert import from_html, from_text, with_newlines
from clearhead.course.exchange.markup.html_tree import BLOCKS
from clearhead.course.exchange.report import Report
from clearhead.errors import PackError

_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";", "space": " ", "pipe": "|", "colon": ":", "\\t": "\t"}
_COLUMNS = {"guid column": "guid", "notetype column": "note type", "deck column": "deck", "tags column": "tags"}
_WHOLE_FILE = {"notetype": "note type", "deck": "deck", "tags": "tags"}
_TAGS = "|".join(
    sorted(BLOCKS | {"b", "i", "u", "br", "span", "a", "img", "code", "em", "strong", "sub", "sup", "font"})
)
_HTML = re.compile(rf"</?(?:{_TAGS})\b[^<>\n]*>|&(?:#\d+|#x[0-9a-f]+|nbsp|lt|gt|amp|quot);", re.IGNORECASE)
_HEADINGS = frozenset(("question", "answer", "front", "back", "term", "definition", "tags"))
_EXCEL = re.compile(r"\s*sep=(.)\s*", re.IGNORECASE)  # the first line of a .csv, which tells Excel its separator
_QUOTED = re.compile(r'"[^"]*"')


@dataclass(slots=True)
class _Header:
    """The header lines before the notes. `columns`: index -> what that column holds if it is not a field."""

    separator: str = ""
    html: bool | None = None
    columns: dict[int, str] = field(default_factory=dict)
    names: Sequence[str] = ()
    origin: dict[str, str] = field(default_factory=dict)


def read_notes(text: str, file: str, report: Report) -> list[Draft]:
    """Read the notes; each card of a note becomes a draft.

    Raises:
        PackError: a header line makes no sense; at its line.
    """
    rows = with_newlines(text).split("\n")
    header, first = _header(rows, file)
    body = "\n".join(rows[first:])
    separator = header.separator or _usual_separator(body, file)
    html = header.html if header.html is not None else bool(_HTML.search(body))
    is_spreadsheet = file.lower().endswith(".csv") and not text.startswith("#")  # Anki's own files begin with #
    drafts: list[Draft] = []
    budget = Budget()
    for line, record in _records(body, separator, first, file, report):
        if is_spreadsheet and {cell.strip().lower() for cell in record} <= _HEADINGS:
            continue  # the names of a spreadsheet's columns
        origin = {
            **header.origin,
            **{header.columns[at]: cell for at, cell in enumerate(record) if at in header.columns},
        }
        fields = [cell for at, cell in enumerate(record) if at not in header.columns]
        while len(fields) > 2 and not fields[-1].strip():
            fields.pop()
        if not any(cell.strip() for cell in fields):
            continue
        if len(fields) < 2 and not has_gaps(fields[0]):
            report.add(f"{file}:{line}", f"a line with one field only: {fields[0].strip()[:60]!r}")
            continue
        drafts += _note(fields, origin, html, f"{file}:{line}", report, budget)
    return drafts


def _note(
    fields: list[str], origin: dict[str, str], html: bool, place: str, report: Report, budget: Budget
) -> Iterator[Draft]:
    lost = report.at(place)
    name = origin.get("note type", "")
    gapped = has_gaps(fields[0]) and (not name or "cloze" in name.lower() or len(fields) < 2)
    note: NoteType = cloze(len(fields), name) if gapped or "cloze" in name.lower() else basic(len(fields), name)
    meta = (("imported from", place), *((key, value) for key, value in origin.items() if value.strip()))
    if not html and not note.cloze and len(note.templates) == 1:
        yield Draft("", from_text(fields[0]), "\n\n".join(map(from_text, fields[1:])), origin=meta)
        return
    values = fields if html else [_as_html(cell) for cell in fields]
    for _, question, answer in cards(note, values, budget.at(place)):
        hints: list[str] = []
        stem = from_html(question, lost, hints)
        yield Draft("", stem, from_html(answer, lost, hints), hints=tuple(hints), origin=meta)


def _as_html(text: str) -> str:
    text = text.strip("\n").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text.replace("\n", "<br>")


def _header(rows: Sequence[str], file: str) -> tuple[_Header, int]:
    """Return the header, and the index of the first row after it."""
    header = _Header()
    at = 0
    excel = _EXCEL.fullmatch(rows[0]) if file.lower().endswith((".csv", ".tsv")) else None
    if excel is not None:
        header.separator = excel[1]
        return header, 1
    for at, row in enumerate(rows):
        if not row.startswith("#"):
            break
        name, _, value = row[1:].partition(":")
        key = name.strip().lower()
        if key == "separator":
            header.separator = _separator(value, file, at + 1)
        elif key == "html":
            header.html = value.strip().lower() == "true"
        elif key in _COLUMNS:
            if not re.fullmatch(r"0*[1-9][0-9]{0,3}", value.strip()[:100]):
                raise PackError(
                    f"{value.strip()[:40]!r} is not a column; they count from 1 to 9999", file=file, line=at + 1
                )
            header.columns[int(value) - 1] = _COLUMNS[key]
        elif key in _WHOLE_FILE:
            header.origin[_WHOLE_FILE[key]] = value.strip()
    else:
        at = len(rows)
    return header, at


def _usual_separator(body: str, file: str) -> str:
    """Return what separates fields where no header says: a tab; in a .csv without tabs a semicolon or comma."""
    if not file.lower().endswith(".csv"):
        return "\t"
    unquoted = _QUOTED.sub("", body)
    return next((mark for mark in "\t;," if mark in unquoted), "\t")


def _separator(value: str, file: str, line: int) -> str:
    word = value.strip(" ").lower() if value.strip() else value
    separator = _SEPARATORS.get(word.strip(), word)
    if len(separator) != 1 or separator in '"\n':
        known = ", ".join(name for name in _SEPARATORS if name.isalpha())
        raise PackError(
            f"{value.strip()[:40]!r} is not a separator; expected {known}, or one character", file=file, line=line
        )
    return separator


def _records(body: str, separator: str, before: int, file: str, report: Report) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, fields) of each record; report those that cannot be read.

    Empty lines and lines with # are skipped, except inside quotes.
    """
    line, start, fresh, cut = before, before + 1, True, False

    def lines() -> Iterator[str]:
        nonlocal line, start, fresh, cut
        for row in io.StringIO(body, newline="\n"):
            line += 1
            if fresh and (not row.strip() or row.startswith("#")):
                continue
            if fresh:
                start, fresh = line, False
            yield row
        cut = not fresh  # the reader asks for more: a quoted field is open

    reader = csv.reader(lines(), delimiter=separator)
    while True:
        fresh = True
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            report.add(f"{file}:{start}", f"a note that cannot be read: {error}")
            continue
        if cut:
            why = 'the field that a " opens here is not closed, so nothing after it is read; end it with "'
            report.add(f"{file}:{start}", why)
            return
        yield start, record

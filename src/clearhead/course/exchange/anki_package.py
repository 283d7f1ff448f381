"""Read Anki's .apkg and .colpkg, old and new: the notes of their SQLite file. Nothing in it is run."""

import json
import re
import sqlite3
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from clearhead.course.exchange.cards import NoteType, basic, cards, cloze, has_gaps
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.markup import from_html
from clearhead.course.exchange.report import Report
from clearhead.errors import PackError

LARGEST = 64 << 20  # bytes of the collection
_COLLECTIONS = ("collection.anki21b", "collection.anki21", "collection.anki2")  # the newest first; others are stand-ins
_HOW = "in Anki, export it with `Support older Anki versions`"
_SHORT = 200  # characters of a field that no card shows, to be kept as a comment


def read_package(place: Path, report: Report) -> list[Draft]:
    """Read the notes of a package; each card becomes a draft.

    Raises:
        PackError: it is no package, or its collection cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "collection"
        copy.write_bytes(_collection(place))
        try:
            with closing(sqlite3.connect(f"file:{copy}?mode=ro&immutable=1", uri=True)) as connection:
                connection.create_collation("unicase", lambda a, b: (a.lower() > b.lower()) - (a.lower() < b.lower()))
                return list(_drafts(connection, place.name, report))
        except (sqlite3.DatabaseError, json.JSONDecodeError, UnicodeDecodeError) as error:
            raise PackError(f"its collection cannot be read: {error}", file=place.name) from None


def _collection(place: Path) -> bytes:
    """The bytes of the SQLite file."""
    try:
        with zipfile.ZipFile(place) as package:
            name = next((name for name in _COLLECTIONS if name in package.namelist()), None)
            if name is None:
                raise PackError(f"holds no collection.anki2; {_HOW}", file=place.name)
            if package.getinfo(name).file_size > LARGEST:
                raise _too_large(place)
            data = package.read(name)
    except zipfile.BadZipFile:
        raise PackError("is not an Anki package (not a zip file)", file=place.name) from None
    return _decompressed(data, place) if name.endswith("b") else data


def _decompressed(data: bytes, place: Path) -> bytes:
    try:
        import zstandard
    except ModuleNotFoundError:
        message = f"is in Anki's newer format, which the `zstandard` package reads; {_HOW}, or `pip install zstandard`"
        raise PackError(message, file=place.name) from None
    try:
        with zstandard.ZstdDecompressor(max_window_size=LARGEST * 2).stream_reader(data) as stream:
            text = stream.read(LARGEST + 1)
    except zstandard.ZstdError as error:
        raise PackError(f"its collection is damaged ({error}); {_HOW}", file=place.name) from None
    if len(text) > LARGEST:
        raise _too_large(place)
    return text


def _too_large(place: Path) -> PackError:
    return PackError(f"its collection is more than {LARGEST:,} bytes; export a smaller deck", file=place.name)


def _drafts(connection: sqlite3.Connection, file: str, report: Report) -> Iterator[Draft]:
    known = _columns(connection, "notes")
    wanted = [name if name in known else "''" for name in ("id", "guid", "mid", "tags", "flds")]
    types, decks = _types(connection), _decks(connection)
    rows = connection.execute(f"SELECT {', '.join(wanted)} FROM notes ORDER BY id")  # noqa: S608 — our own names
    for number, (ident, guid, mid, tags, flds) in enumerate(rows, 1):
        values = str(flds).split("\x1f")
        note = types.get(mid) or (cloze if has_gaps(values[0]) else basic)(len(values))
        origin = {
            "imported from": f"{file}, note {number}", "deck": decks.get(ident, ""), "note type": note.name,
            "guid": str(guid), "tags": str(tags).strip(),
        }  # fmt: skip
        yield from _note(note, values, origin, report)


def _note(note: NoteType, values: list[str], origin: dict[str, str], report: Report) -> Iterator[Draft]:
    place = origin["imported from"]
    for name, value in zip(note.fields, values, strict=False):
        if name in note.shown or not value.strip():
            continue
        if len(value) <= _SHORT and "<" not in value:
            origin[name] = value
        else:
            report.add(place, f"field {name}, which no card shows")
    made = False
    for name, question, answer in cards(note, values):
        lost = report.at(place if len(note.templates) == 1 else f"{place}, {name}")
        hints: list[str] = []
        stem, back = from_html(question, lost, hints), from_html(answer, lost, hints)
        if stem:
            made = True
            kept = tuple((key, text) for key, text in origin.items() if text)
            yield Draft("", stem, back, hints=tuple(hints), origin=kept)
    if not made:
        report.add(place, "a note whose cards ask nothing")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _types(connection: sqlite3.Connection) -> Mapping[Any, NoteType]:
    """Note types by id: rows of their own since Anki 2.1.28, JSON in the `col` table before."""
    if _columns(connection, "notetypes"):
        return dict(_typed_rows(connection))
    row = connection.execute("SELECT models FROM col").fetchone() if "models" in _columns(connection, "col") else None
    models: Any = json.loads(row[0]) if row and row[0] else {}
    return {int(key): _from_json(model) for key, model in models.items() if str(key).isdecimal()}


def _from_json(model: Mapping[str, Any]) -> NoteType:
    fields = tuple(str(field["name"]) for field in model.get("flds", []))
    templates = tuple((str(card["name"]), str(card["qfmt"]), str(card["afmt"])) for card in model.get("tmpls", []))
    return NoteType(str(model.get("name", "")), fields, templates, cloze=model.get("type") == 1)


def _typed_rows(connection: sqlite3.Connection) -> Iterator[tuple[int, NoteType]]:
    fields: dict[int, list[str]] = {}
    templates: dict[int, list[tuple[str, str, str]]] = {}
    for ident, name in connection.execute("SELECT ntid, name FROM fields ORDER BY ntid, ord"):
        fields.setdefault(ident, []).append(name)
    for ident, name, config in connection.execute("SELECT ntid, name, config FROM templates ORDER BY ntid, ord"):
        settings = message(config)
        question, answer = (_decoded(settings.get(number, b"")) for number in (1, 2))
        templates.setdefault(ident, []).append((name, question, answer))
    for ident, name, config in connection.execute("SELECT id, name, config FROM notetypes"):
        shown = tuple(templates.get(ident, ()))
        yield ident, NoteType(name, tuple(fields.get(ident, ())), shown, cloze=message(config).get(1, 0) == 1)


def _decoded(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _decks(connection: sqlite3.Connection) -> Mapping[int, str]:
    """Note id -> the deck of its first card."""
    if not {"nid", "did"} <= _columns(connection, "cards"):
        return {}
    names: dict[int, str] = {}
    if _columns(connection, "decks"):
        names = dict(connection.execute("SELECT id, name FROM decks"))
    elif "decks" in _columns(connection, "col"):
        row = connection.execute("SELECT decks FROM col").fetchone()
        names = {int(key): str(deck.get("name", "")) for key, deck in json.loads(row[0] or "{}").items()} if row else {}
    rows = connection.execute("SELECT nid, did FROM cards ORDER BY nid, ord DESC")
    return {note: re.sub("\x1f", "::", names.get(deck, "")) for note, deck in rows}


def message(data: bytes) -> dict[int, int | bytes]:
    """The fields of a protobuf message, by number: integers and bytes, the last where one is there twice."""
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            fields[key >> 3], at = _varint(data, at)
            continue
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data)), at)
        fields[key >> 3] = data[at : at + size]
        at += size
    return fields


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            break
    return value, at

"""Read Anki's .apkg and .colpkg, old and new: the notes of their SQLite file. Nothing in it is run."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearhead.course.exchange.anki.cards import NoteType, basic, cards, cloze, has_gaps
from clearhead.course.exchange.anki.collection import Collection, opened
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.limits import Budget, read_member, read_stream
from clearhead.course.exchange.markup.convert import from_html
from clearhead.course.exchange.report import Report
from clearhead.errors import PackError

LARGEST = 64 << 20  # bytes of the collection
_COLLECTIONS = ("collection.anki21b", "collection.anki21", "collection.anki2")  # the newest first; others are stand-ins
_HOW = "in Anki, export it with `Support older Anki versions`"
_WINDOW = 8 << 20  # zstd window in bytes; the format requires every reader to support this size
_LONGEST_TEMPLATE = 100_000  # characters
_MOST_TEMPLATES = 100  # of a note type
_SHORT_FIELD = 200  # characters of a field that no card shows, to be kept as a comment


def read_package(place: Path, report: Report) -> list[Draft]:
    """Read the notes of a package; each card becomes a draft.

    Raises:
        PackError: it is not a package, or its collection cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "collection"
        copy.write_bytes(_collection(place))
        try:
            with opened(copy, place.name) as collection:
                return list(_drafts(collection, place.name, report))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, PackError):
                raise
            message = f"its collection is not as Anki writes it ({type(error).__name__}); {_HOW}"
            raise PackError(message, file=place.name) from None


def _collection(place: Path) -> bytes:
    """Return the bytes of the SQLite file."""
    member = read_member(place, _COLLECTIONS, LARGEST)
    if member is None:
        raise PackError(f"holds no collection.anki2; {_HOW}", file=place.name)
    name, data = member
    if data is None:
        raise _too_large(place)
    return _decompressed(data, place) if name.endswith("b") else data


def _decompressed(data: bytes, place: Path) -> bytes:
    try:
        import zstandard
    except ModuleNotFoundError:
        message = (
            f"is in Anki's newer format, which the `zstandard` package reads; {_HOW}, "
            "or `pip install 'clearhead[course]'`"
        )
        raise PackError(message, file=place.name) from None
    try:
        with zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(data) as stream:
            text = read_stream(stream, LARGEST)
    except zstandard.ZstdError as error:
        raise PackError(f"its collection is damaged ({error}); {_HOW}", file=place.name) from None
    if text is None:
        raise _too_large(place)
    return text


def _too_large(place: Path) -> PackError:
    return PackError(f"its collection is more than {LARGEST:,} bytes; export a smaller deck", file=place.name)


def _drafts(collection: Collection, file: str, report: Report) -> Iterator[Draft]:
    types, decks, budget = _types(collection, file), _decks(collection), Budget()
    rows = sorted(collection.rows("notes", "id", "guid", "mid", "tags", "flds"), key=lambda row: int(row[0] or 0))
    for number, (ident, guid, mid, tags, flds) in enumerate(rows, 1):
        if not isinstance(flds, str):
            report.add(f"{file}, note {number}", "fields that are not text")
            continue
        values = flds.split("\x1f")
        note = types.get(mid) or (cloze if has_gaps(values[0]) else basic)(len(values))
        origin = {
            "imported from": f"{file}, note {number}", "deck": decks.get(ident, ""), "note type": note.name,
            "guid": str(guid), "tags": str(tags).strip(),
        }  # fmt: skip
        yield from _note(note, values, origin, report, budget)


def _note(note: NoteType, values: list[str], origin: dict[str, str], report: Report, budget: Budget) -> Iterator[Draft]:
    place, shown = origin["imported from"], note.shown
    for name, value in zip(note.fields, values, strict=False):
        if name in shown or not value.strip():
            continue
        if len(value) <= _SHORT_FIELD and "<" not in value:
            origin[name] = value
        else:
            report.add(place, f"field {name}, which no card shows")
    if note.fields and any(value.strip() for value in values[len(note.fields) :]):
        report.add(place, f"fields after the {len(note.fields)} that its note type {note.name!r} has")
    made = False
    for name, question, answer in cards(note, values, budget.at(place)):
        lost = report.at(place if len(note.templates) == 1 else f"{place}, {name}")
        hints: list[str] = []
        stem, back = from_html(question, lost, hints), from_html(answer, lost, hints)
        if stem:
            made = True
            kept = tuple((key, text) for key, text in origin.items() if text)
            yield Draft("", stem, back, hints=tuple(hints), origin=kept)
    if not made:
        report.add(place, "a note whose cards ask nothing")


def _types(collection: Collection, file: str) -> Mapping[Any, NoteType]:
    """Note types by id: rows of their own since Anki 2.1.28, JSON in the `col` table before."""
    if collection.columns("notetypes"):
        types = dict(_typed_rows(collection))
    else:
        models: Any = next((json.loads(text) for (text,) in collection.rows("col", "models") if text), {})
        types = {int(key): _from_json(model) for key, model in models.items() if str(key).isdecimal()}
    for note in types.values():
        longest = max((max(len(question), len(answer)) for _, question, answer in note.templates), default=0)
        if longest > _LONGEST_TEMPLATE or len(note.templates) > _MOST_TEMPLATES:
            message = f"its note type {note.name[:80]!r} has a template of more than {_LONGEST_TEMPLATE:,} characters"
            raise PackError(f"{message}, or more than {_MOST_TEMPLATES} templates; make them shorter", file=file)
    return types


def _from_json(model: Mapping[str, Any]) -> NoteType:
    fields = tuple(str(field["name"]) for field in model.get("flds", []))
    templates = tuple((str(card["name"]), str(card["qfmt"]), str(card["afmt"])) for card in model.get("tmpls", []))
    return NoteType(str(model.get("name", "")), fields, templates, cloze=model.get("type") == 1)


def _typed_rows(collection: Collection) -> Iterator[tuple[int, NoteType]]:
    fields: dict[int, list[str]] = {}
    templates: dict[int, list[tuple[str, str, str]]] = {}
    for ident, _, name in _ordered(collection, "fields", "ntid", "ord", "name"):
        fields.setdefault(ident, []).append(str(name))
    for ident, _, name, config in _ordered(collection, "templates", "ntid", "ord", "name", "config"):
        settings = message(config)
        question, answer = (_decoded(settings.get(number, b"")) for number in (1, 2))
        templates.setdefault(ident, []).append((str(name), question, answer))
    for ident, name, config in collection.rows("notetypes", "id", "name", "config"):
        shown = tuple(templates.get(ident, ()))
        yield ident, NoteType(str(name), tuple(fields.get(ident, ())), shown, cloze=message(config).get(1, 0) == 1)


def _ordered(collection: Collection, table: str, *columns: str) -> list[tuple[Any, ...]]:
    """Return the rows, in the order of their first two columns."""
    return sorted(collection.rows(table, *columns), key=lambda row: (int(row[0]), int(row[1])))


def _decoded(value: int | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else ""


def _decks(collection: Collection) -> Mapping[int, str]:
    """Note id -> the deck of its first card."""
    if not {"nid", "did"} <= collection.columns("cards"):
        return {}
    if collection.columns("decks"):
        names = {ident: str(name) for ident, name in collection.rows("decks", "id", "name")}
    else:
        decks: Any = next((json.loads(text) for (text,) in collection.rows("col", "decks") if text), {})
        names = {int(key): str(deck.get("name", "")) for key, deck in decks.items()}
    rows = sorted(collection.rows("cards", "nid", "ord", "did"), key=lambda row: -int(row[1] or 0))
    return {note: names.get(deck, "").replace("\x1f", "::") for note, _, deck in rows}


def message(data: bytes) -> dict[int, int | bytes]:
    """Return the fields of a protobuf message by number: integers and bytes, the last if a number occurs twice."""
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

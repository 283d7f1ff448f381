"""Write Anki's .apkg, one note per item. The guid comes from pack and item, so a second import updates the first."""

import hashlib
import itertools
import sqlite3
import time
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import genanki

from clearhead.course.exchange.markup.markdown import html, picture
from clearhead.course.exchange.question import Question

_STYLE = (
    ".card { font: 18px/1.5 Georgia, serif; max-width: 42em; margin: auto; text-align: left; } "
    "pre, code { font: 15px/1.4 monospace; } pre { overflow: auto; padding: .6em; border: 1px solid #8884; } "
    "th, td { padding: .1em .8em .1em 0; text-align: left; } h4 p { display: inline; }"
)
_MODEL = genanki.Model(
    1_706_211_543,  # fixed: Anki knows a note type by it
    "Clearhead",
    fields=[{"name": name} for name in ("Front", "Back", "Rule", "Id")],
    templates=[{"name": "Card", "qfmt": "{{Front}}", "afmt": "{{FrontSide}}<hr id=answer>{{Back}}<p>{{Rule}}</p>"}],
    css=_STYLE,
)


def number(text: str) -> int:
    """Return a stable deck number for a name."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1 | 1 << 30


def write_anki(questions: Sequence[Question], title: str, place: Path, *, timestamp: float | None = None) -> None:
    """Write the deck. `timestamp` (now, if None) stamps the notes: Anki imports notes that are newer than its own."""
    deck = genanki.Deck(number(questions[0].pack if questions else title), title)
    for question in questions:
        fields = [_front(question), _back(question), html(question.rule), f"{question.pack}/{question.id}"]
        tags = [
            f"clearhead::{question.pack}::{question.topic}",
            *(f"concept::{concept}" for concept in question.concepts),
        ]
        deck.add_note(
            genanki.Note(_MODEL, fields, guid=genanki.guid_for("clearhead", question.pack, question.id), tags=tags)
        )
    stamp = time.time() if timestamp is None else timestamp
    with zipfile.ZipFile(place, "w") as package:
        package.writestr("collection.anki2", _collection(deck, stamp))
        package.writestr("media", "{}")


def _collection(deck: genanki.Deck, stamp: float) -> bytes:
    """Return the SQLite file of a deck. genanki's own `write_to_file` leaves it in the folder for temporary files."""
    with closing(sqlite3.connect(":memory:")) as connection:
        genanki.Package(deck).write_to_db(connection.cursor(), stamp, itertools.count(int(stamp * 1000)))
        connection.commit()
        return connection.serialize()


def _front(question: Question) -> str:
    listed = "".join(f"<li>{html(option.text)}</li>" for option in question.choices)
    lefts = "".join(f"<li>{html(left)}</li>" for left, _ in question.pairs)
    return (
        question.asked_html + (f"<ul>{lefts}</ul>" if lefts else "") + (f'<ol type="a">{listed}</ol>' if listed else "")
    )


def _back(question: Question) -> str:
    parts = [html(question.answer), html(question.feedback), html(question.pitfalls), picture(question.figure)]
    for option in question.choices:
        if option.feedback_html and not option.correct:
            parts.append(f"<h4>Not {html(option.text)}</h4>{option.feedback_html}")
    return "".join(parts)

"""Anki's .apkg: one note an item. Its guid comes from pack and item, so that a second import updates the first."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import genanki

from clearhead.course.exchange.question import Question, html, picture

_STYLE = (
    ".card { font: 18px/1.5 Georgia, serif; max-width: 42em; margin: auto; text-align: left; } "
    "pre, code { font: 15px/1.4 monospace; } pre { overflow: auto; padding: .6em; border: 1px solid #8884; }"
)
_MODEL = genanki.Model(
    1_706_211_543,  # fixed: Anki knows a note type by it
    "Clearhead",
    fields=[{"name": name} for name in ("Front", "Back", "Rule", "Id")],
    templates=[{"name": "Card", "qfmt": "{{Front}}", "afmt": "{{FrontSide}}<hr id=answer>{{Back}}<p>{{Rule}}</p>"}],
    css=_STYLE,
)


def number(text: str) -> int:
    """A stable deck number for a name."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) >> 1 | 1 << 30


def write_anki(found: Sequence[Question], title: str, place: Path, *, timestamp: float | None = None) -> None:
    """Write the deck. Notes are stamped with `timestamp` (now, if None): Anki takes over those newer than its own."""
    deck = genanki.Deck(number(found[0].pack if found else title), title)
    for one in found:
        fields = [_front(one), _back(one), html(one.rule), f"{one.pack}/{one.id}"]
        tags = [f"clearhead::{one.pack}::{one.topic}", *(f"concept::{concept}" for concept in one.concepts)]
        deck.add_note(genanki.Note(_MODEL, fields, guid=genanki.guid_for("clearhead", one.pack, one.id), tags=tags))
    genanki.Package(deck).write_to_file(str(place), timestamp=timestamp)


def _front(one: Question) -> str:
    listed = "".join(f"<li>{html(choice.text)}</li>" for choice in one.choices)
    lefts = "".join(f"<li>{html(left)}</li>" for left, _ in one.pairs)
    return one.asked_html + (f"<ul>{lefts}</ul>" if lefts else "") + (f'<ol type="a">{listed}</ol>' if listed else "")


def _back(one: Question) -> str:
    parts = [html(one.answer), html(one.feedback), html(one.pitfalls), picture(one.figure)]
    for choice in one.choices:
        if choice.told_html and not choice.correct:
            parts.append(f"<h4>Not {html(choice.text)}</h4>{choice.told_html}")
    return "".join(parts)

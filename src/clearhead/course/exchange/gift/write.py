"""Moodle's GIFT text format, written and read. Every special character is escaped."""

import re
from collections.abc import Sequence
from pathlib import Path

from clearhead.course.exchange.gift.parse import GiftQuestion, read_gift
from clearhead.course.exchange.markup.inert import category, one_line
from clearhead.course.exchange.question import Question, html

_SPECIAL = re.compile(r"([~=#{}:\\])")


def write_gift(found: Sequence[Question], title: str, place: Path) -> None:
    """Write the questions; one category a topic. Orders become texts to write: GIFT has none."""
    parts, topic = [], None
    for one in found:
        if one.topic != topic:
            topic = one.topic
            parts.append(f"$CATEGORY: {category(title, topic)}\n")
        parts.append(
            f"// [id:{one.pack}/{one.id}]\n::{_safe(one_line(one.title))}::[html]{_safe(_stem(one))}{_answers(one)}\n"
        )
    place.write_text("\n".join(parts), encoding="utf-8")


def _stem(one: Question) -> str:
    """The question; an order lists its steps, for somebody to write them down in order."""
    steps = "".join(f"<li>{html(choice.text)}</li>" for choice in one.choices) if one.form == "order" else ""
    return one.asked_html + (f"<ul>{steps}</ul>" if steps else "")


def _answers(one: Question) -> str:
    general = _safe((f"{html(one.answer)}\n" if one.form == "order" else "") + one.told_html)
    end = f"\n####{general}\n}}" if general else "\n}"
    if one.form == "pairs":
        texts = {choice.key: choice.text for choice in one.choices}
        return "{" + "".join(f"\n={_safe(html(left))} -> {_safe(texts[key])}" for left, key in one.pairs) + end
    if one.form != "options":
        return "{" + end
    right = sum(choice.correct for choice in one.choices)
    rows = []
    for choice in one.choices:
        if right == 1:
            mark = "=" if choice.correct else "~"
        else:
            share = 100 / right if choice.correct else -100 / (len(one.choices) - right)
            mark = f"~%{share:.5f}".rstrip("0").rstrip(".") + "%"
        feedback = f"#{_safe(choice.told_html)}" if choice.told_html else ""
        rows.append(f"\n{mark}{_safe(html(choice.text))}{feedback}")
    return "{" + "".join(rows) + end


def _safe(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "\\n")


__all__ = ["GiftQuestion", "read_gift", "write_gift"]

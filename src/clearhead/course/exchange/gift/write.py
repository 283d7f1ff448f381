"""Write Moodle's GIFT text format. Every special character is escaped."""

import re
from collections.abc import Sequence
from pathlib import Path

from clearhead.course.exchange.markup.inert import category, one_line
from clearhead.course.exchange.markup.markdown import html
from clearhead.course.exchange.question import Question

_SPECIAL = re.compile(r"([~=#{}:\\])")


def write_gift(questions: Sequence[Question], title: str, place: Path) -> None:
    """Write the questions, one category per topic. GIFT has no ordering questions, so orders become texts to write."""
    parts, topic = [], None
    for question in questions:
        if question.topic != topic:
            topic = question.topic
            parts.append(f"$CATEGORY: {category(title, topic)}\n")
        parts.append(
            f"// [id:{question.pack}/{question.id}]\n::{_safe(one_line(question.title))}::"
            f"[html]{_safe(_stem(question))}{_answers(question)}\n"
        )
    place.write_text("\n".join(parts), encoding="utf-8")


def _stem(question: Question) -> str:
    """Return the question. For an order, it lists the steps that the learner writes down in order."""
    steps = "".join(f"<li>{html(option.text)}</li>" for option in question.choices) if question.form == "order" else ""
    return question.asked_html + (f"<ul>{steps}</ul>" if steps else "")


def _answers(question: Question) -> str:
    general = _safe((f"{html(question.answer)}\n" if question.form == "order" else "") + question.feedback_html)
    end = f"\n####{general}\n}}" if general else "\n}"
    if question.form == "pairs":
        texts = {option.key: option.text for option in question.choices}
        return "{" + "".join(f"\n={_safe(html(left))} -> {_safe(texts[key])}" for left, key in question.pairs) + end
    if question.form != "options":
        return "{" + end
    right = sum(option.correct for option in question.choices)
    rows = []
    for option in question.choices:
        if right == 1:
            mark = "=" if option.correct else "~"
        else:
            share = 100 / right if option.correct else -100 / (len(question.choices) - right)
            mark = f"~%{share:.5f}".rstrip("0").rstrip(".") + "%"
        feedback = f"#{_safe(option.feedback_html)}" if option.feedback_html else ""
        rows.append(f"\n{mark}{_safe(html(option.text))}{feedback}")
    return "{" + "".join(rows) + end


def _safe(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "\\n")

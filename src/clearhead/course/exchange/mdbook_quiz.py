"""Read mdbook-quiz: `[[questions]]` of type MultipleChoice, ShortAnswer or Tracing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.markup.convert import from_markdown
from clearhead.course.exchange.report import Lost, Report
from clearhead.course.pack.blocks import toml
from clearhead.course.proofs.runner import fence
from clearhead.errors import PackError


def read_quiz(text: str, file: str, report: Report) -> list[Draft]:
    """Read the questions.

    Raises:
        PackError: not TOML, or a question without a prompt and an answer.
    """
    data, _ = toml(text, file)
    listed = data.get("questions", [])
    if not isinstance(listed, list):
        raise PackError("questions is not a list; write [[questions]] above each", file=file)
    drafts = []
    for number, entry in enumerate(listed, 1):
        place = f"{file}, question {number}"
        known = isinstance(entry, dict) and all(isinstance(entry.get(key, {}), dict) for key in ("prompt", "answer"))
        if not known or str(entry.get("type")) not in _KINDS:
            kind = entry.get("type") if isinstance(entry, dict) else entry
            report.add(place, f"a question of type {str(kind)[:40]!r}; expected one of {', '.join(_KINDS)}")
            continue
        lost = report.at(place)
        why = from_markdown(str(entry.get("context", "")), lost)
        draft = _KINDS[entry["type"]](entry.get("prompt", {}), entry.get("answer", {}), why, lost)
        origin = (("imported from", place), ("id", str(entry.get("id", ""))))
        drafts.append(replace(draft, origin=tuple((key, value) for key, value in origin if value)))
    return drafts


def _multiple_choice(prompt: Mapping[str, Any], answer: Mapping[str, Any], why: str, lost: Lost) -> Draft:
    right = answer.get("answer", [])
    rights = [from_markdown(str(each), lost) for each in _list(right)]
    wrong = [from_markdown(str(each), lost) for each in _list(prompt.get("distractors", []))]
    options = [(each, True, why) for each in rights] + [(each, False, "") for each in wrong]
    return Draft("", from_markdown(str(prompt.get("prompt", "")), lost), "", tuple(options))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _short_answer(prompt: Mapping[str, Any], answer: Mapping[str, Any], why: str, lost: Lost) -> Draft:
    accepted = [answer.get("answer", ""), *_list(answer.get("alternatives", []))]
    back = "\n\n".join([*(from_markdown(str(each), lost) for each in accepted), why]).strip()
    return Draft("", from_markdown(str(prompt.get("prompt", "")), lost), back)


def _tracing(prompt: Mapping[str, Any], answer: Mapping[str, Any], why: str, lost: Lost) -> Draft:
    program = fence(str(prompt.get("program", "")), "rust")
    line = answer.get("lineNumber")
    fails = f"It does not compile: line {line}." if line else "It does not compile."
    prints = str(answer.get("stdout", "")) if answer.get("doesCompile") else fails
    return Draft("", f"What does this print?\n\n{program}", f"{prints}\n\n{why}".strip())


_KINDS = {"MultipleChoice": _multiple_choice, "ShortAnswer": _short_answer, "Tracing": _tracing}

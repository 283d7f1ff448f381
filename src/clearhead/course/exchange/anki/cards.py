"""Anki's note types: the question and the answer of each card of a note."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from clearhead.course.exchange.limits import LARGEST_IMPORT, LARGEST_SIDE, Spend

MOST_GAPS = 499  # Anki's own limit
_DEEPEST = 20  # nested gaps; deeper ones stay text
_PLACE = re.compile(r"\{\{([^{}]*)\}\}")
_RULE = re.compile(r"<hr\b[^<>]*>", re.IGNORECASE)
_IS_ANSWER = re.compile(r"\bid\s*=\s*['\"]?answer\b", re.IGNORECASE)
_CLOZE = re.compile(r"\{\{c([\d,]{1,40})::|::|\}\}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class NoteType:
    """Templates are (name, question, answer), HTML with `{{Field}}` where a field goes. A cloze type has one."""

    name: str
    fields: tuple[str, ...]
    templates: tuple[tuple[str, str, str], ...]
    cloze: bool = False

    @property
    def shown(self) -> frozenset[str]:
        """The fields that a template shows."""
        texts = "".join(question + answer for _, question, answer in self.templates)
        return frozenset(_field(_place(match[1])[1]) for match in _PLACE.finditer(texts))


def basic(count: int, name: str = "") -> NoteType:
    """Return a type for notes without one: the first field is the question, the others the answer."""
    fields = tuple(f"Field {number}" for number in range(1, count + 1))
    answer = "".join(f"<div>{{{{{field}}}}}</div>" for field in fields[1:])
    question = f"{{{{{fields[0]}}}}}"
    if "reversed" in name.lower() and count > 1:
        back = "{{#Field 3}}{{Field 2}}{{/Field 3}}" if "optional" in name.lower() else "{{Field 2}}"
        templates = (("Card 1", question, "{{Field 2}}"), ("Card 2", back, question))
        return NoteType(name, fields, templates)
    return NoteType(name, fields, (("Card 1", question, answer),))


def cloze(count: int, name: str = "") -> NoteType:
    """Return a type for cloze notes without one: the first field has the gaps, the others go to the back."""
    fields = tuple(f"Field {number}" for number in range(1, count + 1))
    extra = "".join(f"<div>{{{{{field}}}}}</div>" for field in fields[1:])
    text = f"{{{{cloze:{fields[0]}}}}}"
    return NoteType(name, fields, (("Cloze", text, text + extra),), cloze=True)


def has_gaps(text: str) -> bool:
    """Whether a field is a cloze text."""
    return bool(re.search(r"\{\{c\d{1,9}(?:,\d{1,9})*::", text, re.IGNORECASE))


def cards(note: NoteType, values: Sequence[str], spend: Spend) -> Iterator[tuple[str, str, str]]:
    """Yield (name, question, answer) of each card of a note, as HTML. Skip cards whose question shows no field.

    `spend` receives the cost of each card before the card is made.
    """
    size = sum(map(len, values))
    named = dict(zip(note.fields, values, strict=False))
    for name, question, answer in note.templates:
        back = _after_rule(answer)
        cost = 2 * (len(question) + len(answer)) + size
        if not note.cloze:
            spend(cost)
            front, filled = _render(question, named, 0, False, spend)
            if filled:
                yield name, front, _render(back, named, 0, True, spend)[0]
            continue
        numbers = sorted({number for text in values for number in _numbers(text)}) or [0]
        for number in numbers:
            spend(cost)
            front = _render(question, named, number, False, spend)[0]
            back_side = _render(back, named, number, True, spend)[0]
            yield f"{name} {number}" if len(numbers) > 1 else name, front, back_side


def _after_rule(answer: str) -> str:
    """Return what follows the line between question and answer, or the whole side if there is no line."""
    for rule in _RULE.finditer(answer):
        if _IS_ANSWER.search(rule[0]):
            return answer[rule.end() :]
    return answer


def _place(inside: str) -> tuple[str, str]:
    """Return (mark, field) of the text between braces."""
    inside = inside.strip()
    return (inside[0], inside[1:].strip()) if inside[:1] in ("#", "^", "/") else ("", inside)


def _field(place: str) -> str:
    return place.rpartition(":")[2].strip()


def _render(template: str, values: Mapping[str, str], number: int, answered: bool, spend: Spend) -> tuple[str, bool]:
    """Return the template with its fields filled in, and whether any of them has content."""
    parts: list[str] = []
    sections: list[bool] = []  # whether each section that is open is hidden
    hides = 0  # how many of them are hidden
    at, filled_any = 0, False
    for match in _PLACE.finditer(template):
        if not hides:
            parts.append(template[at : match.start()])
        at = match.end()
        mark, place = _place(match[1])
        value = values.get(_field(place), "")
        spend(len(value))
        if mark == "/":
            hides -= sections.pop() if sections else 0
        elif mark:
            sections.append(_says(value) == (mark == "^"))
            hides += sections[-1]
        elif not hides and place != "FrontSide":
            filled_any = filled_any or _says(value)
            filled = gaps(value, number, answered) if place.startswith("cloze") or ":cloze:" in place else value
            parts.append(filled)
    parts.append("" if hides else template[at:])
    side = "".join(parts)
    if len(side) > LARGEST_SIDE:
        spend(LARGEST_IMPORT)
    return side, filled_any


def _says(value: str) -> bool:
    return "<img" in value or bool(re.sub(r"<[^<>]*>|&nbsp;|\s", "", value))


def _numbers(text: str) -> list[int]:
    numbers = (int(part) for gap in _CLOZE.finditer(text) if gap[1] for part in gap[1].split(",") if part)
    return [number for number in numbers if number <= MOST_GAPS]


@dataclass(slots=True)
class _Gap:
    """An open gap: its numbers, its text so far, and its hint (None before the second `::`)."""

    numbers: tuple[int, ...]
    text: list[str] = field(default_factory=list)
    hint: list[str] | None = None

    @property
    def last(self) -> list[str]:
        """Where the next piece goes: the hint if it has begun, otherwise the text."""
        return self.text if self.hint is None else self.hint


def gaps(text: str, number: int, answered: bool) -> str:
    """Return a cloze text with gap `number` hidden (its hint, or […]) or answered; the other gaps show their text."""
    outer = _Gap(())
    open_gaps = [outer]
    at = 0
    for match in _CLOZE.finditer(text):
        gap = open_gaps[-1]
        gap.last.append(text[at : match.start()])
        at = match.end()
        if match[1] and len(open_gaps) <= _DEEPEST:
            open_gaps.append(_Gap(tuple(int(part) for part in match[1].split(",") if part)))
        elif match[0] == "::" and gap is not outer and gap.hint is None:
            gap.hint = []
        elif match[0] == "}}" and gap is not outer:
            open_gaps.pop()
            open_gaps[-1].last.append(_shown(gap, number, answered))
        else:
            gap.last.append(match[0])
    open_gaps[-1].last.append(text[at:])
    while len(open_gaps) > 1:  # not closed: it stays as it was written
        gap = open_gaps.pop()
        hint = ["::", *gap.hint] if gap.hint is not None else []
        open_gaps[-1].last.append(f"{{{{c{','.join(map(str, gap.numbers))}::{''.join(gap.text + hint)}")
    return "".join(outer.text)


def _shown(gap: _Gap, number: int, answered: bool) -> str:
    text = "".join(gap.text)
    if number not in gap.numbers:
        return text
    return f"<b>{text}</b>" if answered else f"[{''.join(gap.hint) if gap.hint else '…'}]"

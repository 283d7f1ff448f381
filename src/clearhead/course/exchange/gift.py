"""Moodle's GIFT text format, written and read. Every special character is escaped."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearhead.course.exchange.question import Question, html
from clearhead.errors import PackError

_SPECIAL = re.compile(r"([~=#{}:\\])")


def write_gift(found: Sequence[Question], title: str, place: Path) -> None:
    """Write the questions; one category a topic. Orders become texts to write: GIFT has none."""
    parts, topic = [], None
    for one in found:
        if one.topic != topic:
            topic = one.topic
            parts.append(f"$CATEGORY: $course$/top/{title}/{topic}\n")
        parts.append(
            f"// [id:{one.pack}/{one.id}]\n::{_safe(one.title)}::[html]{_safe(html(one.stem))}{_answers(one)}\n"
        )
    place.write_text("\n".join(parts), encoding="utf-8")


def _answers(one: Question) -> str:
    general = _safe(html(one.told))
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
        feedback = f"#{_safe(html(choice.feedback))}" if choice.feedback else ""
        rows.append(f"\n{mark}{_safe(html(choice.text))}{feedback}")
    return "{" + "".join(rows) + end


def _safe(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", text).replace("\n", "\\n")


@dataclass(frozen=True, slots=True)
class GiftQuestion:
    """A question as read: `options` are (text, is right, feedback); empty for essays and descriptions."""

    title: str
    stem: str
    options: tuple[tuple[str, bool, str], ...]
    pairs: tuple[tuple[str, str], ...]
    line: int


def read_gift(text: str, file: str = "questions.gift") -> list[GiftQuestion]:
    """Read GIFT: choices, true/false, short answers, numbers (as short answers), pairs, essays.

    Raises:
        PackError: an answer block is not closed; at its line.
    """
    return [_read(block, line, file) for block, line in _blocks(text)]


def _blocks(text: str) -> Iterator[tuple[str, int]]:
    """(text, first line) of each question: they are parted by blank lines; comments and categories go."""
    block: list[str] = []
    first = 1
    for number, row in enumerate([*text.splitlines(), ""], 1):
        if row.strip() and not row.lstrip().startswith(("//", "$CATEGORY:")):
            first = first if block else number
            block.append(row)
        elif not row.strip() and block and _closed("\n".join(block)):
            yield "\n".join(block), first
            block = []
    if block:
        yield "\n".join(block), first


def _closed(text: str) -> bool:
    bare = re.sub(r"\\.", "", text)
    return bare.count("{") <= bare.count("}")


def _read(block: str, line: int, file: str) -> GiftQuestion:
    title = ""
    named = re.match(r"\s*::((?:\\.|[^\\])*?)::", block)
    if named:
        title, block = _plain(named[1]), block[named.end() :]
    start = re.search(r"(?<!\\)\{", block)
    if not start:
        return GiftQuestion(title, _plain(block), (), (), line)
    stop = re.search(r"(?<!\\)\}", block[start.end() :])
    if not stop:
        raise PackError("the answer block opened here is not closed; end it with }", file=file, line=line)
    inside = block[start.end() : start.end() + stop.start()]
    rest = block[start.end() + stop.end() :].strip()
    stem = _plain(block[: start.start()].strip() + (f" ____ {rest}" if rest else ""))
    inside = re.split(r"(?<!\\)####", inside)[0].strip()
    whole = re.fullmatch(r"(T|TRUE|F|FALSE)((?<!\\)#.*)?", inside, re.DOTALL | re.IGNORECASE)
    if whole:
        true = whole[1].upper().startswith("T")
        return GiftQuestion(title, stem, (("True", true, ""), ("False", not true, "")), (), line)
    if inside.startswith("#"):
        return GiftQuestion(title, stem, ((_plain(inside[1:].lstrip("=").strip()), True, ""),), (), line)
    options, pairs = [], []
    for mark, body in re.findall(r"(?<!\\)([=~])((?:\\.|[^\\=~])*)", inside, re.DOTALL):
        answer, _, feedback = _cut(body, "#")
        weight = re.match(r"\s*%(-?[\d.]+)%", answer)
        right = float(weight[1]) > 0 if weight else mark == "="
        answer = answer[weight.end() :] if weight else answer
        left, arrow, other = _cut(answer, "->")
        if arrow:
            pairs.append((_plain(left), _plain(other)))
        else:
            options.append((_plain(answer), right, _plain(feedback)))
    return GiftQuestion(title, stem, tuple(options), tuple(pairs), line)


def _cut(text: str, mark: str) -> tuple[str, str, str]:
    found = re.search(rf"(?<!\\){re.escape(mark)}", text)
    return (text[: found.start()], mark, text[found.end() :]) if found else (text, "", "")


def _plain(text: str) -> str:
    text = re.sub(r"^\s*\[(html|markdown|plain|moodle)\]", "", text)
    text = text.replace("\\n", "\n")
    return re.sub(r"\\([~=#{}:\\])", r"\1", text).strip()

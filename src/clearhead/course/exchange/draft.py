"""A question imported from another program: an item without a proof."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clearhead.course.exchange.markup.markdown import html
from clearhead.course.proofs.runner import fence
from clearhead.errors import PackError
from clearhead.files import discard, unwritable, write_new

_FENCE = re.compile(r"^( {0,3}(?:`{3,}|~{3,}))[ \t]*(\S*)[^\n]*$")
_DOLLAR = re.compile(r"(?<!\\)\$")
_TRIED = 20  # dollar signs of a text, from its end, of which one may be the stray one
_LONG = 5_000  # characters; in a longer text all of them are escaped
_CLOSE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*$")


@dataclass(frozen=True, slots=True)
class Draft:
    """A question without a proof; its texts are Markdown.

    Attributes:
        options: (text, is right, feedback); none makes it a card.
        note: what the author must do, such as "pairs; make it a match item".
        why: why the right answer is right.
        hints: one at a time, in order.
        origin: (name, value) pairs of metadata from the file: deck, note type, tags, line.
    """

    title: str
    stem: str
    back: str
    options: tuple[tuple[str, bool, str], ...] = ()
    note: str = ""
    why: str = ""
    hints: tuple[str, ...] = ()
    origin: tuple[tuple[str, str], ...] = field(default=(), compare=False)


def pair_row(left: str, right: str) -> str:
    """Return a pair as an item of a list. On the left, escape what would define a link or open a formula."""
    left = f"\\{left}" if left.startswith("[") and left.endswith("]") else left
    return f"- {_closed(left)}: {right}"


def _closed(text: str) -> str:
    """Escape the dollar sign that opens no formula here, but would open one with a dollar sign of a later text."""
    dollars = [match.start() for match in _DOLLAR.finditer(text)]
    if len(dollars) % 2 == 0:
        return text
    tried = dollars[: -_TRIED - 1 : -1] if len(text) <= _LONG else []
    escaped = (f"{text[:at]}\\{text[at:]}" for at in tried)
    shown = html(text)
    return next((other for other in escaped if html(other) == shown), _DOLLAR.sub(r"\\$", text))


def write(drafts: Sequence[Draft], pack: Path, topic: str) -> list[Path]:
    """Write the drafts into <pack>/drafts; return their files. Names already used get a number."""
    folder = pack / "drafts"
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        message = "is a symbolic link, or not a folder; drafts are written into the pack's own folder. Remove it."
        raise PackError(message, file="drafts")
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    taken = {file.stem for name in ("items", "drafts") for file in (pack / name).glob("*")}
    last: dict[str, int] = {}  # base of a name -> the number given last
    places: list[Path] = []
    try:
        for draft in drafts:
            name = _slug(draft.title or draft.stem, taken, last)
            taken.add(name)
            place = folder / f"{name}.md"
            content = _markdown(draft, name, topic)
            places.append(place)
            write_new(place, content)
    except BaseException as error:  # all drafts or none, so that the import can be repeated
        if isinstance(error.__cause__, FileExistsError):  # another program has just made the last one
            places.pop()
        for place in places:
            discard(place)
        raise
    return places


def _slug(text: str, taken: set[str], last: dict[str, int]) -> str:
    ascii_text = unicodedata.normalize("NFKD", text[:2000]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", ascii_text)[:6] or ["question"]
    base = "-".join(words)[:56].strip("-")
    name, number = base, last.get(base, 1)
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    last[base] = number
    return name


def _markdown(draft: Draft, name: str, topic: str) -> str:
    kind = "choice" if draft.options else "card"
    right = f"right = {sum(ok for _, ok, _ in draft.options)}\n" if draft.options else ""
    origin = "".join(f"# {key}: {_one_line(value)}\n" for key, value in draft.origin)
    front = f'+++\n{origin}id = "{name}"\nkind = "{kind}"\ntopic = "{topic}"\nconcepts = ["unsorted"]\n{right}+++\n'
    parts = [front, f"## Stem\n\n{_shift(draft.stem)}"]
    parts += [f"## Hint\n\n{_shift(hint)}" for hint in draft.hints]
    reasons = [draft.why]
    for number, (text, ok, why) in enumerate(draft.options, 1):
        belief = "" if ok else f" misconception=name-{number}"
        todo = fence(
            'raise NotImplementedError("compute whether this option holds, in `holds`")', f"python check{belief}"
        )
        parts.append(f"## Option\n\n{_shift(text)}\n\n{todo}")
        if ok:
            reasons.insert(-1, why)
        elif why:
            parts.append(f"## Rationale name-{number}\n\n{_shift(why)}")
    if kind == "card":
        parts.append(f"## Back\n\n{_shift(draft.back) or '…'}")
        parts.append(fence('raise NotImplementedError("assert what the back claims")', "python proof"))
    if any(reasons):
        parts.append("## Rationale\n\n" + "\n\n".join(_shift(why) for why in reasons if why))
    if draft.note:
        parts.append(f"## Pitfalls\n\nImported {draft.note}.")
    parts.append("## Rule\n\nSay the point in one sentence.")
    return "\n\n".join(parts) + "\n"


def _one_line(value: str) -> str:
    """Return a value that fits into a TOML comment: one line, no control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in value).split())


def _shift(text: str) -> str:
    """Keep imported text from defining sections or programs: escape headings, keep only the language of a fence."""
    rows, fenced = [], ""
    for row in text.strip().splitlines():  # as the file is read
        opening, closing = _FENCE.match(row), _CLOSE.match(row)
        if fenced:
            fenced = "" if closing and closing[1].startswith(fenced) else fenced
        elif opening and not ("`" in opening[1] and "`" in row[opening.end(1) :]):
            fenced = opening[1].strip()
            row = f"{opening[1]}{opening[2]}"
        else:
            row = re.sub(r"^(#{1,6}\s|\+\+\+)", r"\\\1", row)
        rows.append(row)
    if fenced:
        rows.append(fenced)
    return "\n".join(rows)

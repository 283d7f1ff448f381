"""Read the text of an item: TOML front matter, `## Section` headings, fenced programs. Every part keeps its line."""

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearhead.course.pack.item import Program, Section
from clearhead.course.pack.toml_limits import excess
from clearhead.errors import PackError

# Role -> what it is for. A fenced block with a role is a program; one without is prose.
ROLES: Mapping[str, str] = {
    "setup": "runs before every other program of the item; draws the numbers from `seed`",
    "given": "the program the learner reads (predict, debug)",
    "answer": "computes the answer",
    "distractor": "acts out a misconception",
    "check": "says whether an option holds, in `holds`",
    "proof": "asserts the claim",
    "patch": "replaces lines of the given program (debug)",
    "tests": "asserts what a right program does",
    "sweep": "computes `table`, a list of dicts (tune)",
    "step": "one step (worked, order)",
    "pair": "computes the right-hand side of a pair (match)",
    "starter": "what the learner starts from (code)",
    "solution": "a right program (code)",
    "mutant": "a wrong program that the tests must catch (code)",
    "figure": "draws: sets `svg` to an SVG text, or leaves a matplotlib figure open",
    "exemplar": "a free-text answer that meets every criterion (explain)",
    "paraphrase": "the same in other words (explain)",
    "negated": "says the opposite; must not pass (explain)",
    "keywords": "a dump of keywords; must not pass (explain)",
}
SECTIONS = ("Stem", "Back", "Option", "Step", "Pair", "Criterion", "Hint", "Rationale", "Pitfalls", "Rule", "Programs")

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})\s*+([^`]*+)$")
_HEADING = re.compile(r"^##(?!#)\s*+(\S*+)\s*+(.*)$")
_KEY = re.compile(r"\s*+\[{0,2}\s*+([\w-]++)(?:\.[\w.-]++)?\s*+(?:=|\]{1,2})")
_TOML_PLACE = re.compile(r"\(at line (\d+), (column \d+)\)")  # the line is counted from the front matter's first


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed item file. `lines` maps each top-level key of the front matter to its line."""

    front: Mapping[str, Any]
    lines: Mapping[str, int]
    sections: tuple[Section, ...]

    @property
    def programs(self) -> tuple[Program, ...]:
        """Every program of every section, in file order."""
        return tuple(program for section in self.sections for program in section.programs)


def toml(text: str, file: str, first_line: int = 1) -> tuple[dict[str, Any], dict[str, int]]:
    """Parse TOML; return the data and the line of each top-level key or table. Raises PackError at the bad line."""
    much = excess(text)
    if much:
        raise PackError(f"{much[0]}; write it flat and short", file=file, line=first_line + much[1])
    try:
        data = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, or what int() says of a number
        match = _TOML_PLACE.search(str(error))
        reason = _TOML_PLACE.sub(r"(\2)", str(error))
        line = first_line + (int(match[1]) - 1 if match else max(text.count("\n") - 1, 0))
        raise PackError(
            f'not valid TOML: {reason}. Values are "text", 3, true or ["a", "b"].', file=file, line=line
        ) from None
    lines: dict[str, int] = {}
    for number, row in enumerate(text.splitlines(), first_line):
        match = _KEY.match(row)
        if match:
            lines.setdefault(match[1], number)
    return data, lines


def document(text: str, file: str) -> Document:
    """Parse an item file.

    Raises:
        PackError: no front matter, bad TOML, an unknown section or role, an open fence; at its line.
    """
    rows = text.splitlines()
    if not rows or rows[0].strip() != "+++":
        raise PackError("the first line must be +++, which opens the front matter", file=file, line=1)
    try:
        end = next(i for i, row in enumerate(rows[1:], 1) if row.strip() == "+++")
    except StopIteration:
        raise PackError("the front matter is not closed; end it with a line +++", file=file, line=1) from None
    front, lines = toml("\n".join(rows[1:end]), file, first_line=2)
    return Document(front, lines, tuple(_sections(rows, end + 1, file)))


def _sections(rows: list[str], start: int, file: str) -> list[Section]:
    """Cut rows[start:] at `## ` headings that are outside fences."""
    sections: list[Section] = []
    prose: list[str] = []
    programs: list[Program] = []
    name, argument, opened = "", "", start + 1

    def close() -> None:
        text = "\n".join(prose)
        blank = len(text) - len(text.lstrip("\n"))
        text = text.strip()
        if name:
            sections.append(Section(name, argument, text, opened, opened + 1 + blank, tuple(programs)))
        elif text or programs:
            raise PackError("text before the first section; put it under `## Stem`", file=file, line=opened)

    at = start
    while at < len(rows):
        fence, heading = _FENCE.match(rows[at]), _HEADING.match(rows[at])
        if fence:
            stop = _close_of(rows, at, fence[1], file)
            program = _program(fence[2].strip(), rows[at + 1 : stop], at + 1, file)
            if program:  # blank rows in its place keep the lines of the prose below it
                programs.append(program)
            prose.extend([""] * (stop + 1 - at) if program else rows[at : stop + 1])
            at = stop
        elif heading:
            close()
            name, argument, opened = heading[1], heading[2].rstrip(), at + 1
            prose, programs = [], []
            if name not in SECTIONS:
                expected = ", ".join(SECTIONS)
                raise PackError(f"unknown section {name[:80]!r}; expected one of {expected}", file=file, line=at + 1)
        else:
            if rows[at].strip() and not name and not any(row.strip() for row in prose):
                opened = at + 1
            prose.append(rows[at])
        at += 1
    close()
    return sections


def fences(text: str, file: str) -> list[tuple[str, str, int]]:
    """Return the fenced blocks of a page: (info string, text, file line of its first line)."""
    rows, blocks, at = text.splitlines(), [], 0
    while at < len(rows):
        fence = _FENCE.match(rows[at])
        if fence:
            stop = _close_of(rows, at, fence[1], file)
            blocks.append((fence[2].strip(), "\n".join(rows[at + 1 : stop]) + "\n", at + 2))
            at = stop
        at += 1
    return blocks


def _close_of(rows: list[str], start: int, mark: str, file: str) -> int:
    """Return the index of the line that closes the fence opened at rows[start]."""
    for at in range(start + 1, len(rows)):
        row = rows[at].strip()
        if row.startswith(mark) and not row.strip(mark[0]):
            return at
    raise PackError(f"the fence opened here is not closed; end it with {mark[:40]}", file=file, line=start + 1)


def _program(info: str, body: list[str], fence_line: int, file: str) -> Program | None:
    """Return a Program if the info string gives a role, None for a fence that is prose (```python or ```text alone)."""
    try:
        words = shlex.split(info)
    except ValueError as error:
        raise PackError(f"cannot read the info string {info[:80]!r}: {error}", file=file, line=fence_line) from None
    if len(words) < 2:
        return None
    language, role, *rest = words
    if role not in ROLES:
        raise PackError(
            f"unknown role {role[:80]!r} after the language; expected one of {', '.join(ROLES)}",
            file=file,
            line=fence_line,
        )
    attributes: dict[str, str] = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise PackError(f"{word[:80]!r} is not key=value, as in misconception=no-scale", file=file, line=fence_line)
        attributes[key] = value
    return Program(role, "\n".join(body) + "\n", fence_line + 1, attributes, language)

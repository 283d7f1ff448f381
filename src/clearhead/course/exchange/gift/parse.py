"""Read Moodle's GIFT. As in Moodle, the marks in an answer block decide the kind of question."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from clearhead.course.exchange.markup.convert import with_newlines
from clearhead.course.exchange.report import Report
from clearhead.errors import PackError

_FORMAT = re.compile(r"\s*\[(html|markdown|plain|moodle)\]")
_ESCAPE = re.compile(r"\\([\\~=#{}:n])")
_PIECE = re.compile(r"\\.|[{}]|[^\\{}]+|\\", re.DOTALL)
_MARKED = re.compile(r"\\.|[=~]|[^\\=~]+|\\", re.DOTALL)
_WEIGHT = re.compile(r"\s*%(-?\d+(?:\.\d*)?)%")
_TRUE_FALSE = re.compile(r"(TRUE|T|FALSE|F)", re.IGNORECASE)
_TITLE = re.compile(r"\s*::((?:\\.|[^\\:]|:(?!:))*)::", re.DOTALL)
_KEPT_COMMENT = re.compile(r"\[(id|tag):((?:\\.|[^\]\\]){0,300})\]")


class Text(str):
    """A piece of text with the name of its markup: html, markdown, plain, or moodle (HTML, the default)."""

    markup: str

    def __new__(cls, text: str, markup: str = "moodle") -> "Text":
        made = super().__new__(cls, text)
        made.markup = markup
        return made


@dataclass(frozen=True, slots=True)
class GiftQuestion:
    """A question as read.

    Attributes:
        options: (text, is right, feedback) of choices, true/false, short answers and numbers.
        kind: choice, truefalse, short, number, match, order (Moodle XML alone has it), essay or description.
        general: the feedback that follows `####`.
        weights: the percentage of each option.
        origin: its category, and the id and tags that comments before it give.
    """

    title: str
    stem: str
    options: tuple[tuple[str, bool, str], ...]
    pairs: tuple[tuple[str, str], ...]
    line: int
    kind: str = "choice"
    general: str = ""
    weights: tuple[float, ...] = ()
    hints: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Block:
    """The lines of one question read so far.

    Attributes:
        complete: how many lines there were when its answers ended.
        error: the line of a mistake, and what it is.
    """

    line: int
    origin: Mapping[str, str]
    rows: list[str] = field(default_factory=list)
    complete: int = 0
    error: tuple[int, str] | None = None


def read_gift(text: str, file: str = "questions.gift", report: Report | None = None) -> list[GiftQuestion]:
    """Read GIFT: choices, true/false, short answers, numbers, pairs, essays, descriptions.

    Args:
        report: collects the questions that cannot be read, each with its line; without it, the first is an error.

    Raises:
        PackError: an answer block is not closed, or a question has two; at its line.
    """
    questions = []
    for block in _Cutter().cut(text):
        try:
            if block.error:
                raise _Malformed(*block.error)
            questions.append(_read(block))
        except _Malformed as error:
            if report is None:
                raise PackError(error.why, file=file, line=error.line) from None
            report.add(f"{file}:{error.line}", f"a question that cannot be read: {error.why}")
    return questions


class _Malformed(Exception):
    """A question that cannot be read: the line of the mistake, and what it is."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line, self.why = line, why


@dataclass(slots=True)
class _Cutter:
    """Cuts a file into questions: at blank lines, and where a complete question is followed by a new one."""

    category: str = ""
    origin: dict[str, str] = field(default_factory=dict)
    block: _Block | None = None
    opened: int = 0  # line of the brace that is open
    gap: bool = False  # whether an empty line has come since

    def cut(self, text: str) -> Iterator[_Block]:
        for number, row in enumerate(with_newlines(text).split("\n"), 1):
            bare = row.strip()
            if bare.startswith("//"):
                self.origin.update({name: _unescaped(value) for name, value in _KEPT_COMMENT.findall(bare)})
                continue
            category = bare.startswith("$CATEGORY:")
            titled = self.block is not None and _TITLE.match(bare) is not None
            if self.opened and (category or titled):
                yield from self.end()
            if not self.opened and (category or titled or not bare):
                yield from self.end()
            if category:
                self.category = bare.partition(":")[2].strip()
            elif bare or self.opened:
                self.gap = self.gap or not bare
                yield from self.add(row, number)
        yield from self.end()

    def end(self) -> Iterator[_Block]:
        if self.block:
            if self.opened:
                self.wrong(self.opened, "the answer block opened here is not closed; end it with }")
            yield self.block
        self.block, self.opened = None, 0

    def wrong(self, line: int, why: str) -> None:
        """Mark the question as one that cannot be read; its first mistake counts."""
        if self.block and not self.block.error:
            self.block.error = line, why

    def begin(self, line: int) -> _Block:
        origin = {**({"category": self.category} if self.category else {}), **self.origin}
        self.origin = {}
        self.block = _Block(line, origin)
        return self.block

    def add(self, row: str, number: int) -> Iterator[_Block]:
        block = self.block or self.begin(number)
        if block.complete and not self.opened and "{" in _PIECE.findall(row):  # a question without a title
            rest = block.rows[block.complete :]
            del block.rows[block.complete :]
            yield from self.end()
            block = self.begin(number - len(rest))
            block.rows += rest
        block.rows.append(row)
        for piece in _PIECE.findall(row):
            if piece == "{" and block.complete == len(block.rows):
                self.wrong(number, "a second answer block on this line; put a blank line between questions")
            if piece == "{" and not self.opened:
                self.opened, self.gap = number, False
            elif piece == "{" and self.gap:  # the next question, more likely than a brace in an answer
                yield from self.cut_short(row, number)
                return
            elif piece == "}" and not self.opened:
                self.wrong(number, r"a } that no { opens; write \} for a brace in the text")
            elif piece == "}":
                self.opened, block.complete = 0, len(block.rows)

    def cut_short(self, row: str, number: int) -> Iterator[_Block]:
        """End a question whose answers are still open; the lines since the last empty one begin the next question."""
        rows = self.block.rows if self.block else []
        rest = []
        for earlier in reversed(rows[:-1]):
            if not earlier.strip():
                break
            rest.append(earlier)
        yield from self.end()
        self.begin(number - len(rest)).rows += reversed(rest)
        yield from self.add(row, number)


def _read(block: _Block) -> GiftQuestion:
    text, title = "\n".join(block.rows), ""
    named = _TITLE.match(text)
    if named:
        title, text = _unescaped(named[1]), text[named.end() :]
    before, inside, after = _split(text)
    asked = _text(before.strip(), "moodle")
    stem: str = asked
    markup = asked.markup
    made = {"title": title, "line": block.line, "origin": block.origin}
    if inside is None:
        return GiftQuestion(stem=stem, options=(), pairs=(), kind="description", **made)  # type: ignore[arg-type]
    rest = _unescaped(after.strip())
    stem = Text(f"{stem} ____ {rest}", markup) if rest else stem
    inside, _, general = _cut(inside, "####")
    answers = _answers(inside.strip(), markup, block.line)
    return GiftQuestion(stem=stem, general=_text(general, markup), **answers, **made)  # type: ignore[arg-type]


def _split(text: str) -> tuple[str, str | None, str]:
    """Return the text before the answer block, the block, and the text after it. A brace inside the block is text."""
    at, start = 0, None
    for piece in _PIECE.findall(text):
        if piece == "{" and start is None:
            start = at
        elif piece == "}" and start is not None:
            return text[:start], text[start + 1 : at], text[at + 1 :]
        at += len(piece)
    return text, None, ""


def _answers(inside: str, markup: str, line: int) -> dict[str, object]:
    """Return kind, options, pairs and weights of an answer block."""
    if not inside:
        return {"kind": "essay", "options": (), "pairs": ()}
    if inside[0] == "#":
        return _numbers(inside[1:], markup)
    start, marked = _marks(inside)
    if any(mark == "~" for mark, _ in marked):
        return _options(marked, "choice", markup)
    truth, _, feedback = _cut(inside, "#")
    whole = _TRUE_FALSE.fullmatch(truth.strip())
    if whole:
        true = whole[1].upper().startswith("T")
        wrong, _, right = (_text(part, markup) for part in _cut(feedback, "#"))
        remarks = (right, wrong) if true else (wrong, right)
        options = (("True", true, remarks[0]), ("False", not true, remarks[1]))
        return {"kind": "truefalse", "options": options, "pairs": (), "weights": (100.0 * true, 100.0 * (not true))}
    if len(marked) > 1 and any(_cut(_cut(body, "#")[0], "->")[1] for _, body in marked):
        pairs = []
        for _, body in marked:
            left, arrow, other = _cut(body, "->")
            if not arrow:
                why = f"the pair {_unescaped(body)[:60]!r} has no ->; write =left -> right, or \\= for an equals sign"
                raise _Malformed(line, why)
            pairs.append((_text(left, markup), _unescaped(other)))
        return {"kind": "match", "options": (), "pairs": tuple(pairs)}
    return _options(marked or [("=", start)], "short", markup)


def _options(marked: list[tuple[str, str]], kind: str, markup: str) -> dict[str, object]:
    options, weights = [], []
    single = any(mark == "=" for mark, _ in marked)
    for mark, body in marked:
        answer, _, feedback = _cut(body, "#")
        weight = _WEIGHT.match(answer)
        share = float(weight[1]) if weight else 100.0 * (mark == "=")
        weights.append(share)
        right = share >= 99.9 if single and kind == "choice" else share > 0
        text = _text(answer[weight.end() :] if weight else answer, markup)
        options.append((text, right, _text(feedback, markup)))
    return {"kind": kind, "options": tuple(options), "pairs": (), "weights": tuple(weights)}


def _numbers(inside: str, markup: str) -> dict[str, object]:
    """Parse numeric answers: `3:0.1` is 3 ± 0.1, `1..5` is 1 to 5."""
    _, marked = _marks(inside)
    answers = _options(marked or [("=", inside)], "number", markup)
    options: list[tuple[str, bool, str]] = list(answers["options"])  # type: ignore[call-overload]
    shown = []
    for text, right, why in options:
        low, dots, high = text.partition("..")
        value, _, tolerance = text.partition(":")
        about = f"{value.strip()} ± {tolerance.strip()}" if tolerance.strip() not in ("", "0") else value.strip()
        shown.append((Text(f"{low.strip()} to {high.strip()}" if dots else about, "plain"), right, why))
    return {**answers, "options": tuple(shown)}


def _marks(inside: str) -> tuple[str, list[tuple[str, str]]]:
    """Return the text before the first = or ~, and each (mark, text) from there on."""
    parts: list[tuple[str, list[str]]] = [("", [])]
    for piece in _MARKED.findall(inside):
        if piece in "=~":
            parts.append((piece, []))
        else:
            parts[-1][1].append(piece)
    joined = [(mark, "".join(body)) for mark, body in parts]
    return joined[0][1], joined[1:]


def _cut(text: str, mark: str) -> tuple[str, str, str]:
    """Partition at the first `mark` that is not escaped."""
    for match in re.finditer(rf"\\[\\~=#{{}}:]|{re.escape(mark)}", text):
        if match[0] == mark:
            return text[: match.start()], mark, text[match.end() :]
    return text, "", ""


def _text(raw: str, markup: str) -> Text:
    named = _FORMAT.match(raw)
    return Text(_unescaped(raw[named.end() :] if named else raw), named[1] if named else markup)


def _unescaped(text: str) -> str:
    r"""Read the escapes: \n is a line break, \\ a backslash, \= an equals sign."""
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text).strip()

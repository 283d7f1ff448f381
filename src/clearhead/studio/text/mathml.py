"""Convert the part of LaTeX that attention needs to MathML, which browsers draw without a library or a network.

An unknown command or a formula that does not parse raises ValueError, and the page shows the source; nothing is
guessed. A test converts every formula of the shipped packs. Why not latex2mathml: docs/decisions/0016.
"""

import re
from html import escape
from typing import Final

from clearhead.studio.text.mathml_symbols import (
    ACCENTS,
    BRACES,
    DELIMITERS,
    FENCES,
    FUNCTIONS,
    LIMITS,
    OPERATORS,
    SPACES,
    STYLES,
    SYMBOLS,
    styled,
)  # fmt: skip

TOKEN: Final = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|\s+|.", re.S)
WORDS: Final = ("mathrm", "operatorname", "text", "textrm", "mathtt", "texttt", "textit", "textbf")
DEEPEST: Final = 60  # nested groups
LENGTH: Final = re.compile(r"\s*-?(?:\d+(?:\.\d+)?|\.\d+)\s*(?:pt|em|ex|mm|cm|in|mu)\s*")
IN_TEXT: Final = re.compile(r"\\[A-Za-z]+|\\.|[{}~_^&%#$]|\s+|[^\\{}~_^&%#$\s]+|\\", re.S)
ESCAPED: Final = {**{f"\\{char}": char for char in "_%#$&{}"}, "\\ ": "\xa0", "\\,": "\u2009", "\\;": "\xa0"}
Parts = list[str]  # MathML elements, one a string


def to_mathml(source: str, *, block: bool = False) -> str:
    """Convert a LaTeX formula to a `<math>` element.

    Raises:
        ValueError: an unknown command, unbalanced braces, or too many nested groups.

    >>> to_mathml("x^2")
    '<math><msup><mi>x</mi><mn>2</mn></msup></math>'
    """
    inner = "".join(_Reader(source).row(until=()))
    return f"<math{' display=' + chr(34) + 'block' + chr(34) if block else ''}>{inner}</math>"


class _Reader:
    """Recursive descent over the tokens; the methods return MathML elements."""

    def __init__(self, source: str) -> None:
        matches = [token for token in TOKEN.finditer(source) if not token[0].isspace()]
        self.tokens = [token[0] for token in matches]
        self.starts = [token.start() for token in matches]
        self.source = source
        self.at = self.depth = 0
        self.style = ""  # the alphabet of the letters, such as mathbf
        self.limits = False  # whether the last atom has its scripts above and below

    def wrong(self, problem: str) -> ValueError:
        shown = self.source if len(self.source) <= 60 else f"{self.source[:60]}…"
        return ValueError(f"{problem} in {shown!r}")

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise self.wrong(f"expected {expected or 'more'} and found {token[:20] or 'the end'}")
        self.at += 1
        return token

    def row(self, until: tuple[str, ...]) -> Parts:
        parts: Parts = []
        while self.peek() and self.peek() not in until:
            parts += self.scripted()
        if until and not self.peek():
            raise self.wrong(f"the end comes before {until[0]}")
        return parts

    def group(self) -> str:
        """Return one argument as one element: `{…}` or a single token, which is the first digit of a number."""
        token = self.peek()
        if token.isascii() and token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at] = token[1:]
            return f"<mn>{self.letters(token[0])}</mn>"
        return _single(self.atom())

    def scripted(self) -> Parts:
        base = self.atom()
        around, below, above, primes = self.limits, "", "", 0
        while self.peek() in ("^", "_", "'"):
            mark = self.take()
            if (mark == "_" and below) or (mark != "_" and above):
                raise self.wrong(f"a second {mark} on one base; put the first into braces")
            if mark == "'":
                primes += 1
            elif mark == "^":
                above = self.group()
            else:
                below = self.group()
        if primes:
            signs = ["<mo>′</mo>"] * primes
            above = _single([*signs, above] if above else signs)
        if not (below or above):
            return base
        kind = "msup" if not below else "msub" if not above else "msubsup"
        if around:
            kind = {"msup": "mover", "msub": "munder", "msubsup": "munderover"}[kind]
        return [f"<{kind}>{_single(base)}{below}{above}</{kind}>"]

    def atom(self) -> Parts:
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.wrong(f"more than {DEEPEST} groups within one another")
        self.limits = False
        mark = self.take()
        if mark.startswith("\\"):
            parts = self.command(mark[1:])
        elif mark == "{":
            parts = [_row(self.row(until=("}",)))]
            self.take("}")
        elif mark in "}^_&%$#" or not mark.isprintable():
            raise self.wrong(f"{mark!r} out of place")
        elif mark == "~":
            parts = [f'<mspace width="{SPACES[" "]}"/>']
        elif mark[0].isascii() and mark[0].isdigit():
            parts = [f"<mn>{self.letters(mark)}</mn>"]
        elif mark.isalpha():
            parts = [f"<mi>{self.letters(mark)}</mi>"]
        else:
            parts = [_sign({"-": "−", "*": "∗", "'": "′"}.get(mark, mark))]
        self.depth -= 1
        self.limits = mark[1:] in LIMITS if mark != "\\operatorname" else self.limits
        return parts

    def letters(self, text: str) -> str:
        """Return letters or digits in the current alphabet."""
        if not self.style:
            return escape(text)
        drawn = "".join(char if char == "." else styled(char, self.style) or "\0" for char in text)
        if "\0" in drawn:
            raise self.wrong(f"\\{self.style} has no sign for {text[:20]!r}")
        return drawn

    def command(self, name: str) -> Parts:
        if name in SYMBOLS:
            return [f"<mi>{self.letters(SYMBOLS[name])}</mi>"]
        if name in OPERATORS:
            return [_sign(OPERATORS[name])]
        if name in FUNCTIONS:
            scripted = self.peek() in ("_", "^", "'")
            return [f"<mi>{name}</mi>"] if scripted else [f"<mi>{name}</mi>", "<mo>&#x2061;</mo>"]
        if name in SPACES or name.isspace():
            return [f'<mspace width="{SPACES.get(name, SPACES[" "])}"/>']
        if name in ("frac", "tfrac", "dfrac"):
            return [f"<mfrac>{self.group()}{self.group()}</mfrac>"]
        if name == "sqrt":
            return [self.root()]
        if name in ACCENTS:
            return [f'<mover accent="true">{self.group()}<mo>{ACCENTS[name]}</mo></mover>']
        if name in WORDS:
            return self.words(name)
        if name in STYLES:
            return self.restyled(name)
        if name in BRACES:
            return [self.braced(*BRACES[name])]
        if name == "left":
            return [self.fenced()]
        if name == "begin":
            return [self.table()]
        raise self.wrong(f"\\{name} is not a command this studio draws")

    def root(self) -> str:
        if self.peek() != "[":
            return f"<msqrt>{self.group()}</msqrt>"
        self.take("[")
        degree = _single(self.row(until=("]",)))
        self.take("]")
        return f"<mroot>{self.group()}{degree}</mroot>"

    def restyled(self, name: str) -> Parts:
        outer, self.style = self.style, name
        inside = self.group()
        self.style = outer
        return [inside]

    def braced(self, kind: str, mark: str, brace: str) -> str:
        body = f"<{kind}>{self.group()}<mo>{brace}</mo></{kind}>"
        if self.peek() != mark:
            return body
        self.take(mark)
        return f"<{kind}>{body}{self.group()}</{kind}>"

    def raw(self) -> str:
        """Return an argument verbatim, including spaces."""
        if self.peek() != "{":
            return self.take()
        self.take("{")
        start, depth = self.at, 1
        while depth:
            depth += {"{": 1, "}": -1}.get(self.take(), 0)
        end = self.starts[self.at - 1]
        return self.source[self.starts[start - 1] + 1 : end]

    def words(self, name: str) -> Parts:
        """Words in a formula: `\\text` and its like. Only characters that LaTeX escapes may have a backslash."""
        if name == "operatorname" and self.peek() == "*":
            self.take()
            self.limits = True
        parts: Parts = []
        for piece in IN_TEXT.findall(self.raw()):
            if piece in ESCAPED:
                parts.append(ESCAPED[piece])
            elif piece[0] in "\\_^&%#$":
                raise self.wrong(f"{piece} inside \\{name}")
            elif piece not in "{}":
                parts.append("\xa0" if piece.isspace() or piece == "~" else piece)
        text = "".join(parts)
        if name in STYLES:
            text = "".join(styled(char, name) or char for char in text)
        self.limits = self.limits or (name == "operatorname" and text in LIMITS)
        variant = ' mathvariant="normal"' if name not in STYLES and len(text) == 1 else ""
        kind = "mtext" if name.endswith("tt") or re.search(r"\s", text) else "mi"
        return [f"<{kind}{variant}>{escape(text).replace(chr(0xA0), '&#xa0;')}</{kind}>"]

    def delimiter(self) -> str:
        mark = self.take()
        if mark not in DELIMITERS:
            raise self.wrong(f"{mark[:20]} is not a delimiter")
        sign = DELIMITERS[mark]
        return f'<mo stretchy="true">{escape(sign)}</mo>' if sign else ""

    def fenced(self) -> str:
        parts = [self.delimiter()]
        while True:
            parts += self.row(until=("\\right", "\\middle"))
            end = self.take()
            parts.append(self.delimiter())
            if end == "\\right":
                return _row(parts)

    def table(self) -> str:
        name = self.raw().strip()
        if name not in FENCES:
            raise self.wrong(f"\\begin{{{name[:20]}}} is not an environment this studio draws")
        rows: list[Parts] = [[]]
        while True:
            rows[-1].append(f"<mtd>{''.join(self.row(until=('&', chr(92) * 2, chr(92) + 'end')))}</mtd>")
            end = self.take()
            if end == "\\end":
                break
            if end != "&":
                self.gap()
                rows.append([])
        if self.raw().strip() != name:
            raise self.wrong(f"\\begin{{{name}}} is not closed")
        if rows[-1] == ["<mtd></mtd>"]:  # after a last \\
            rows.pop()
        fence = [f'<mo stretchy="true">{char}</mo>' for char in FENCES[name]]
        body = "".join(f"<mtr>{''.join(cells)}</mtr>" for cells in rows)
        return _row([*fence[:1], f"<mtable>{body}</mtable>", *fence[1:]])

    def gap(self) -> None:
        r"""Read and ignore the space between rows, as in `\\[2pt]`: the browser decides it."""
        end = self.starts[self.at - 1] + 2
        if self.peek() == "[" and self.starts[self.at] == end:
            close = self.source.find("]", end)
            if close < 0 or not LENGTH.fullmatch(self.source[end + 1 : close]):
                raise self.wrong("expected a length such as [2pt] after \\\\")
            while self.take() != "]":
                pass


def _row(parts: Parts) -> str:
    return f"<mrow>{''.join(parts)}</mrow>"


def _single(parts: Parts) -> str:
    """Return the parts as a single element, as arguments must be."""
    return parts[0] if len(parts) == 1 else _row(parts)


def _sign(char: str) -> str:
    stretch = ' stretchy="false"' if char in "()[]{}|‖⟨⟩⌊⌋⌈⌉" else ""
    return f"<mo{stretch}>{escape(char)}</mo>"

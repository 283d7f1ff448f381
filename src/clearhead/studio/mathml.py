"""Formulas without a network: the part of LaTeX that attention needs, to MathML, which browsers draw themselves.

What is not known here is refused, never guessed: `prose.py` then shows the source, and a test converts every formula
of the shipped packs.
"""

import re
from html import escape
from typing import Final

TOKEN: Final = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|\s+|.", re.S)

GREEK: Final = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta kappa lambda mu nu xi pi rho sigma tau phi varphi chi "
    "psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega"
)
SYMBOLS: Final = {
    **dict(zip(GREEK.split(), "αβγδϵεζηθκλμνξπρστφϕχψωΓΔΘΛΣΦΨΩ", strict=True)),
    "ell": "ℓ",
    "top": "⊤",
    "infty": "∞",
    "partial": "∂",
    "nabla": "∇",
    "emptyset": "∅",
    "prime": "′",
}
OPERATORS: Final = {
    "cdot": "·", "times": "×", "odot": "⊙", "oplus": "⊕", "pm": "±", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥",
    "ne": "≠", "neq": "≠", "approx": "≈", "sim": "∼", "propto": "∝", "equiv": "≡", "in": "∈", "notin": "∉",
    "subset": "⊂", "to": "→", "rightarrow": "→", "Rightarrow": "⇒", "mapsto": "↦", "gets": "←", "mid": "|",
    "ldots": "…", "dots": "…", "cdots": "⋯", "vdots": "⋮", "ddots": "⋱", "forall": "∀", "exists": "∃", "ll": "≪",
    "gg": "≫", "langle": "⟨", "rangle": "⟩", "lVert": "‖", "rVert": "‖", "|": "‖", "{": "{", "}": "}", "colon": ":",
    "sum": "∑", "prod": "∏", "int": "∫",
}  # fmt: skip
FUNCTIONS: Final = [
    "exp",
    "log",
    "ln",
    "max",
    "min",
    "sup",
    "inf",
    "lim",
    "sin",
    "cos",
    "tanh",
    "det",
    "dim",
    "arg",
    "argmax",
    "argmin",
    "softmax",
    "Pr",
]
SPACES: Final = {
    ",": "0.17em",
    ":": "0.22em",
    ";": "0.28em",
    " ": "0.3em",
    "quad": "1em",
    "qquad": "2em",
    "!": "-0.17em",
}
ACCENTS: Final = {"hat": "^", "bar": "¯", "overline": "¯", "tilde": "~", "vec": "→", "dot": "˙"}
STYLES: Final = {"mathbf": "𝐀𝐚", "boldsymbol": "𝐀𝐚", "mathbb": "𝔸𝕒", "mathcal": "𝒜𝒶"}
FENCES: Final = {"matrix": "", "bmatrix": "[]", "pmatrix": "()", "vmatrix": "||", "cases": "{", "aligned": ""}
LIMITS: Final = ("∑", "∏", "max", "min", "lim", "argmax", "argmin", "sup", "inf")
# Letters whose styled form was in Unicode before the others' block, which has a hole there.
HOLES: Final = {"𝔺": "ℂ", "𝔿": "ℍ", "𝕅": "ℕ", "𝕇": "ℙ", "𝕈": "ℚ", "𝕉": "ℝ", "𝕑": "ℤ",
                "𝒝": "ℬ", "𝒠": "ℰ", "𝒡": "ℱ", "𝒣": "ℋ", "𝒤": "ℐ", "𝒧": "ℒ", "𝒨": "ℳ", "𝒭": "ℛ"}  # fmt: skip


def to_mathml(source: str, *, block: bool = False) -> str:
    """Convert a LaTeX formula to a `<math>` element that carries its source as its label.

    Raises:
        ValueError: a command that is not known here, or braces that do not pair up.

    >>> to_mathml("x^2")
    '<math><msup><mi>x</mi><mn>2</mn></msup></math>'
    """
    reader = _Reader(source)
    inner = reader.row(until=())
    return f"<math{' display=' + chr(34) + 'block' + chr(34) if block else ''}>{inner}</math>"


class _Reader:
    """Recursive descent over the tokens; every method returns MathML."""

    def __init__(self, source: str) -> None:
        self.tokens = [token for token in TOKEN.findall(source) if not token.isspace()]
        self.texts = source
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, expected: str | None = None) -> str:
        token = self.peek()
        if not token or (expected is not None and token != expected):
            raise ValueError(f"expected {expected or 'more'} at token {self.at} of {self.texts!r}, found {token!r}")
        self.at += 1
        return token

    def row(self, until: tuple[str, ...]) -> str:
        parts = []
        while self.peek() and self.peek() not in until:
            parts.append(self.scripted())
        if until and not self.peek():
            raise ValueError(f"{self.texts!r} ends before {until[0]}")
        return "".join(parts)

    def group(self) -> str:
        """One argument: `{…}` or a single token."""
        if self.peek() != "{":
            return self.atom()
        self.take("{")
        inner = self.row(until=("}",))
        self.take("}")
        return f"<mrow>{inner}</mrow>"

    def scripted(self) -> str:
        base, below, above = self.atom(), "", ""
        while self.peek() in ("^", "_", "'"):
            if self.peek() == "'":
                self.take()
                above += "<mo>′</mo>"
            elif self.take() == "^":
                above += self.group()
            else:
                below += self.group()
        if not (below or above):
            return base
        around = "under" if any(f">{name}<" in base for name in LIMITS) else "sub"
        kind = (
            "msup" if not below else f"m{around}" if not above else f"m{around}{'over' if around == 'under' else 'sup'}"
        )
        return f"<{kind}>{base}{below and _one(below)}{above and _one(above)}</{kind}>"

    def atom(self) -> str:
        mark = self.take()
        if mark.startswith("\\"):
            return self.command(mark[1:])
        if mark == "{":
            self.at -= 1
            return self.group()
        if mark in "}^_&":
            raise ValueError(f"{mark!r} out of place in {self.texts!r}")
        if mark[0].isdigit():
            return f"<mn>{mark}</mn>"
        if mark.isalpha():
            return f"<mi>{mark}</mi>"
        return f"<mo{_stretch(mark)}>{escape({'-': '−', '*': '∗'}.get(mark, mark))}</mo>"

    def command(self, name: str) -> str:
        if name in SYMBOLS:
            return f"<mi>{SYMBOLS[name]}</mi>"
        if name in OPERATORS:
            return f"<mo{_stretch(OPERATORS[name])}>{OPERATORS[name]}</mo>"
        if name in FUNCTIONS:
            return f"<mi>{name}</mi><mo>&#x2061;</mo>" if self.peek() not in ("_", "^") else f"<mi>{name}</mi>"
        if name in SPACES:
            return f'<mspace width="{SPACES[name]}"/>'
        if name in ("frac", "tfrac", "dfrac"):
            return f"<mfrac>{self.group()}{self.group()}</mfrac>"
        if name == "sqrt":
            return f"<msqrt>{self.group()}</msqrt>"
        if name in ACCENTS:
            return f'<mover accent="true">{self.group()}<mo>{ACCENTS[name]}</mo></mover>'
        if name in ("mathrm", "operatorname", "text", "textrm", "mathtt", "texttt", "mathit", "textit"):
            return self.words(upright=name not in ("mathit", "textit"), code=name.endswith("tt"))
        if name in STYLES:
            return f"<mi>{_styled(self.plain(), STYLES[name])}</mi>"
        if name == "underbrace":
            body = f"<munder>{self.group()}<mo>⏟</mo></munder>"
            if self.peek() != "_":
                return body
            self.take("_")
            return f"<munder>{body}{self.group()}</munder>"
        if name == "left":
            return self.fenced()
        if name == "begin":
            return self.table()
        raise ValueError(f"\\{name} is not a command this studio draws")

    def plain(self) -> str:
        """The text of an argument, as written."""
        if self.peek() != "{":
            return self.take()
        self.take("{")
        words = []
        while self.peek() != "}":
            words.append(self.take().replace("\\_", "_"))
        self.take("}")
        return "".join(words)

    def words(self, *, upright: bool, code: bool) -> str:
        start = self.at
        text = self.plain()
        if self.tokens[start] == "{":  # spaces matter in words; the tokens have lost them
            found = re.search(
                r"\{(" + r"\s*".join(map(re.escape, self.tokens[start + 1 : self.at - 1])) + r")\}", self.texts
            )
            text = found.group(1).replace("\\_", "_") if found else text
        variant = ' mathvariant="normal"' if upright and len(text) == 1 else ""
        kind = "mtext" if code or " " in text else "mi"
        return f"<{kind}{variant}>{escape(text).replace(' ', '&#xa0;')}</{kind}>"

    def fence(self) -> str:
        mark = self.take()
        return "" if mark == "." else escape(OPERATORS.get(mark.lstrip("\\"), mark.lstrip("\\")))

    def fenced(self) -> str:
        left = self.fence()
        inner = self.row(until=("\\right",))
        self.take("\\right")
        right = self.fence()
        return f'<mrow><mo stretchy="true">{left}</mo>{inner}<mo stretchy="true">{right}</mo></mrow>'

    def table(self) -> str:
        name = self.plain()
        if name not in FENCES:
            raise ValueError(f"\\begin{{{name}}} is not an environment this studio draws")
        rows, cells = [], []
        while True:
            cells.append(f"<mtd>{self.row(until=('&', chr(92) * 2, chr(92) + 'end'))}</mtd>")
            end = self.take()
            if end != "&":
                rows.append(f"<mtr>{''.join(cells)}</mtr>")
                cells = []
            if end == "\\end":
                break
        if self.plain() != name:
            raise ValueError(f"\\begin{{{name}}} is not closed in {self.texts!r}")
        fence = FENCES[name]
        left = f'<mo stretchy="true">{fence[0]}</mo>' if fence else ""
        right = f'<mo stretchy="true">{fence[1]}</mo>' if len(fence) > 1 else ""
        body = "".join(row for row in rows if row != "<mtr><mtd></mtd></mtr>")
        return f"<mrow>{left}<mtable>{body}</mtable>{right}</mrow>"


def _one(parts: str) -> str:
    """The parts as a single element, which scripts must be."""
    return parts if parts.count("</") == 1 else f"<mrow>{parts}</mrow>"


def _stretch(char: str) -> str:
    return ' stretchy="false"' if char in "()[]{}|‖⟨⟩" else ""


def _styled(text: str, alphabet: str) -> str:
    upper, lower = map(ord, alphabet)
    styled = (
        chr(upper + ord(c) - 65) if "A" <= c <= "Z" else chr(lower + ord(c) - 97) if "a" <= c <= "z" else c
        for c in text
    )
    return "".join(HOLES.get(char, char) for char in styled)

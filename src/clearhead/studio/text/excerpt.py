"""Convert Markdown to plain text for one-line excerpts: no programs, no markup, formulas as characters."""

import re

from clearhead.studio.text.mathml_symbols import FUNCTIONS, OPERATORS, SYMBOLS

_PROGRAM = re.compile(r"```.*?```|~~~.*?~~~", re.DOTALL)
_FORMULA = re.compile(r"(?<!\$)\$++([^$]++)\$++")
_MARKS = re.compile(r"[`*#\[\]]|\(/[^()]*\)|^[ \t]*(?:[-+]|\d+\.)\s", re.MULTILINE)
_LONGEST = 2_000  # characters of the longest formula that is converted
_ROW = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)  # of a table
_CELLS = re.compile(r"(?<!\\)\|")
_RULE = re.compile(r"\||:?-{3,}:?")
_HEADING = re.compile(r"^#{1,6}[ \t]+(.*?[^\s#.:!?])[ \t#]*$", re.MULTILINE)  # without a mark at its end
_POWER = re.compile(r"\^\s*(?:(\d)|\{(-?\d+)\})")
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_ROOT = re.compile(r"\\sqrt\s*(?:\[([^\[\]{}]*)\]\s*)?\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_INNERMOST = re.compile(r"(\\(?!sqrt|[dt]?frac)[A-Za-z]+\s*|[_^]\s*)?\{([^{}]*)\}(?!\s*\{)")
_COMMAND = re.compile(r"\\([A-Za-z]+|.)")
_SHOWN = {**SYMBOLS, **OPERATORS, "{": "{", "}": "}"}


def plain_text(text: str) -> str:
    r"""Return the words of a Markdown text on one line.

    >>> plain_text("## One\n\n- the *weights*, $\\frac{QK^\\top}{\\sqrt{D}}$\n- [a question](/items/one)")
    'One: the weights, QK⊤/√D a question'
    """
    text = _ROW.sub(lambda match: _row(match[0]), _HEADING.sub(r"\1:", _PROGRAM.sub(" ", text)))
    text = _FORMULA.sub(lambda match: _formula(match[1]), text)
    return " ".join(_RULE.sub(" ", _MARKS.sub("", text)).split())


def around(text: str, place: int, before: int = 50, most: int = 160) -> str:
    """Return about `most` characters of a text, in whole words, starting `before` characters before a place.

    >>> around("one two three four five", 14, before=7, most=12)
    '… three four …'
    """
    start = max(0, place - before)
    start = text.find(" ", start, place) + 1 or place if start else 0
    shown = text[start : start + most]
    cut = len(text) > start + most
    if cut:
        shown = shown.rpartition(" ")[0] or shown
    return ("… " if start else "") + shown + (" …" if cut else "")


def _row(line: str) -> str:
    """Return a row of a table with its cells set apart; nothing for the line below its head.

    >>> _row("| | keeps | $L$ |"), _row("|---|---|---|")
    ('keeps · $L$;', '')
    """
    cells = [cell.strip() for cell in _CELLS.split(line.strip().strip("|"))]
    words = " · ".join(cell for cell in cells if cell.strip(":-"))
    return words and words + ";"


def _formula(source: str) -> str:
    r"""Return LaTeX as characters: known commands as their sign, without the others.

    >>> _formula(r"e^{x_i} / \sum_j e^{x_j - m}"), _formula(r"K^\top, 2^{10}, \theta^{-2i/D}")
    ('e^xi / ∑j e^(xj - m)', 'K⊤, 2¹⁰, θ^(-2i/D)')
    """
    if len(source) > _LONGEST:
        return ""
    source = _POWER.sub(lambda match: (match[1] or match[2]).translate(_RAISED), source)
    before = ""
    while before != source:
        before = source
        source = _FRACTION.sub(r"\1/\2", _ROOT.sub(r"\1√\2", source))
        if source == before:
            source = _INNERMOST.sub(_without_braces, source, count=1)
    source = _COMMAND.sub(lambda match: _SHOWN.get(match[1], match[1] if match[1] in FUNCTIONS else ""), source)
    return re.sub(r"[{}_&]|\^(?![\w(])", "", source)


def _without_braces(match: re.Match[str]) -> str:
    """Return the content of a group; a power of several signs in parentheses."""
    if not (match[1] or "").startswith("^"):
        return match[2]
    return f"^{match[2]}" if re.fullmatch(r"\w*|\\[A-Za-z]+", match[2]) else f"^({match[2]})"

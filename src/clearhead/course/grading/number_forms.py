"""Rewrite numbers as people type them (fractions, roots, percentages, decimal commas, words) as plain numbers."""

import math
import re
import unicodedata
from collections.abc import Callable

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_UNSIGNED = r"(?:\d+(?:\.\d*)?|\.\d+)"
_NUMBER = rf"[-+]?{_UNSIGNED}"
_MODULE = r"(?<![\w.])(?:(?:math|np|numpy|torch)\.)?"
_ROOT = re.compile(rf"{_MODULE}({_UNSIGNED}?)[*·×]?(?:√|sqrt)\s?(?:\(({_UNSIGNED})\)|({_UNSIGNED}))(?!\w)")
_LOG = re.compile(rf"{_MODULE}(?:ln|log)\s?(?:\(({_UNSIGNED})\)|({_UNSIGNED}))(?!\w)", re.IGNORECASE)
_EXP = re.compile(rf"{_MODULE}(?:exp\s?\(({_NUMBER})\)|e(?:\^|\*\*)({_NUMBER}))(?!\w)")
_FRACTION = re.compile(rf"(?<![\w./])({_NUMBER})\s*/\s*(\d+(?:\.\d*)?)(?![\w./])")
_PERCENT = re.compile(rf"(?<![\w.])({_NUMBER})\s*%")
_POWER = re.compile(rf"(?<![\w.])({_NUMBER})\s*(?:\^|\*\*)\s*([-+]?\d{{1,3}})(?![\w.])")
_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b", re.IGNORECASE)
_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], float]], ...] = (
    (_WORD, lambda match: float(_WORDS.index(match[1].lower()))),
    (_ROOT, lambda match: float(match[1] or 1) * math.sqrt(float(match[2] or match[3]))),
    (_LOG, lambda match: math.log(float(match[1] or match[2]))),
    (_EXP, lambda match: math.exp(float(match[1] or match[2]))),
    (_POWER, lambda match: float(match[1]) ** int(match[2])),
    (_FRACTION, lambda match: float(match[1]) / float(match[2])),
    (_PERCENT, lambda match: float(match[1]) / 100),
)
_MIXED = re.compile(r"(?<![\w.,/])(\d+) (\d+)/(\d+)(?![\w./])")  # 1 1/2; a list of two by another reading
_YES_NO = {"yes": "True", "no": "False"}
_YES = re.compile(r"\b(?:yes|no)\b", re.IGNORECASE)

_HYPHENS = str.maketrans(dict.fromkeys("−–‐‑‒﹣－", "-"))
_SUPERSCRIPT = re.compile(r"(?<=\d)[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_MINUS = re.compile(r"\bminus (?=[\d.]|inf)", re.IGNORECASE)
_INFINITY = re.compile(r"∞|\binfinity\b", re.IGNORECASE)
_QUOTES = "'\"`“”‘’ "
GROUP = re.compile(r"(?<=\d)[,_'\s](?=\d{3}(?!\d))")  # what separates thousands
_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d+)(?!\d|[.,]\d)")
_LARGE = re.compile(r"(?<![\d.])\d{4}")
_DECIMALS = re.compile(r"\d\.\d*[1-9]")
_LINES = re.compile(r"[;\n]")


def readings(typed: str, right: str) -> list[str]:
    """Return what the text may mean, likeliest first: as typed, then with its numbers and rows rewritten.

    Args:
        right: the answer it is compared with. A comma counts as a decimal point or as a thousands separator only if
            the other reading makes no sense beside this answer.

    >>> readings("½", "0.5"), readings("0,5", "0.5"), readings("1 000", "1000")
    (['½', '1/2', '0.5'], ['0,5', '0.5'], ['1 000', '1000'])
    """
    text = tidy(typed)
    grouped = GROUP.sub("", text) if _LARGE.search(right) else text
    pointed = _pointed(text, right)
    texts = [typed, text, *map(plain_numbers, (text, grouped, pointed, _MIXED.sub(_mixed, text), _in_rows(text)))]
    return list(dict.fromkeys(texts))


def tidy(typed: str) -> str:
    """Return the text with plain hyphens, digits and powers, and without quotes or a full stop around it.

    >>> tidy("‑2"), tidy("“animal.”"), tidy("2³"), tidy("1½"), tidy("minus infinity")
    ('-2', 'animal', '2^3', '1 1/2', '-inf')
    """
    text = _VULGAR.sub(" ", _SUPERSCRIPT.sub(lambda match: "^" + match[0], typed.translate(_HYPHENS)))
    text = unicodedata.normalize("NFKC", text).translate(_HYPHENS).replace("⁄", "/")
    text = _MINUS.sub("-", _INFINITY.sub("inf", text)).strip().strip(_QUOTES)
    return text.removesuffix(".").rstrip(_QUOTES)


def plain_numbers(typed: str) -> str:
    """Return the text with every number written out as digits, and yes and no as True and False.

    >>> plain_numbers("1/4 and 25%"), plain_numbers("head three"), plain_numbers("2^10"), plain_numbers("1/√4")
    ('0.25 and 0.25', 'head 3', '1024', '0.5')
    """
    for pattern, value in _FORMS:
        typed = pattern.sub(lambda match, value=value: _written(match, value), typed)  # type: ignore[misc]
    return _YES.sub(lambda match: _YES_NO[match[0].lower()], typed)


def _written(match: re.Match[str], value: Callable[[re.Match[str]], float]) -> str:
    try:
        return f"{value(match):.15g}"
    except (ArithmeticError, ValueError):  # 1/0, log(0), or out of range: it stays as it is
        return match[0]


def _mixed(match: re.Match[str]) -> str:
    whole, over, under = map(int, match.groups())
    return f"{whole + over / under:.15g}" if 0 < over < under else match[0]


def _pointed(text: str, right: str) -> str:
    """Return the text with decimal points for decimal commas; 1,414 has one only if `right` has decimals."""
    decimals = _DECIMALS.search(right)

    def point(match: re.Match[str]) -> str:
        whole, places = match.groups()
        return f"{whole}.{places}" if len(places) != 3 or whole == "0" or (decimals and len(whole) < 4) else match[0]

    return _COMMA.sub(point, text).replace(";", ",")


def _in_rows(text: str) -> str:
    """Return lines, or parts between semicolons, as the rows of a matrix, unless the text has brackets itself."""
    rows = [row.strip() for row in _LINES.split(text)]
    return text if len(rows) == 1 or any(sign in text for sign in "[](){}") else "[" + "], [".join(rows) + "]"

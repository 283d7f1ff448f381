"""Compare what a learner typed with what a program printed: numbers, shapes, tensors, text, exceptions."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial

from rapidfuzz import fuzz

from clearhead.course.grading.number_forms import GROUP, readings

Token = float | str
_TOKEN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\binf\b|\bnan\b|[A-Za-z_][\w.]*|[\[\](){}]|[^\s,]")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d.,]\d)")  # 2,362,368: one number, and no list of three
_LABEL = re.compile(r"(?<![^\[\](){},:])[^\[\](){},:]*:")
_ATTRIBUTE = re.compile(r"(?:,\s*)?(?:dtype|grad_fn|device|requires_grad)=[^,)\]]*")
_VALUES = {"true", "false", "none", "inf", "+inf", "-inf", "nan", *"[]"}
_DIMENSIONS = re.compile(r"(?<=\d)\s*[x×*]\s*(?=\d)")
_KINDS = "Error|Exception|Warning|Interrupt|StopIteration|SystemExit"
_EXCEPTION = re.compile(rf"^((?:[A-Za-z_][\w.]*)?(?:{_KINDS}))(?::\s*(.*))?$")
_EXCEPTION_NAME = re.compile(rf"\w(?:{_KINDS})\b")
_EXCEPTION_APART = re.compile(rf"\b(\w{{3,}}) ({_KINDS})\b", re.IGNORECASE)
_NUMBERED = re.compile(r"\b[A-Za-z]+(?= \d)")
_JOINED = re.compile(r"\b[A-Za-z]+(?=\d)")
_WRAPPERS = ("tensor", "array", "torch.size", "torch.tensor", "np.array")
_DENIALS = frozenset({"not", "no", "never", "none", "error", "raises", "or"})
_OPERATORS = frozenset({"minus", "sqrt", "ln", "log", "exp", *"√/^*"})  # their operand alone is not the value
_FILLERS = frozenset({"the", "it", "is", "number", "about", "around", "approximately", "roughly", *"=≈~#."})
_OPEN, _CLOSE = "([{", ")]}"
MEANS_THE_SAME = 80.0  # rapidfuzz token_set_ratio, of 100, above which two error messages count as the same


def same_output(typed: str, right: str, tolerance: float = 0.0, unit: str = "") -> bool:
    """Return whether `typed` means the same as `right`.

    White space, commas, the word `tensor` and its dtype do not matter; `(2, 3)`, `2x3` and `torch.Size([2, 3])` are
    one shape, `2,362,368` and `2362368` one number; `1/4`, `25%` and `0.25` are one value, and a number with more
    places than `right` has (two or more) is right if it rounds to it. Numbers may differ by `tolerance`; `unit` after
    a number is ignored. An exception is right by its type, or by a message that means the same.

    >>> same_output("2x3", "torch.Size([2, 3])"), same_output("[[1,2]]", "tensor([[1., 2.]])")
    (True, True)
    >>> same_output("0.22 s", "0.2186", tolerance=0.005, unit="s"), same_output("0.3", "0.2186", 0.005)
    (True, False)

    Words that label a value may be left out, or added where there are none.

    >>> same_output("ValueError", "ValueError: scale must be positive")
    True
    >>> same_output("1", "key 1"), same_output("shape (3,)", "(3,)"), same_output("key 2", "key 1")
    (True, True, False)
    """
    same = partial(_precise, tolerance=tolerance)
    forms = readings(_spaced(typed, right), right)
    return any(_alike(form, right, unit, same) or _same_values(form, right, unit, same) for form in forms)


def same_result(typed: str, right: str, tolerance: float = 0.0, unit: str = "") -> bool:
    """Return whether `typed` is the result of a worked step: as `same_output`, but the values alone are enough.

    Words that label them may be left out, and a fraction may be rounded, to two places or more.

    >>> same_result("0.94", "(the row would sum to, 0.9394)"), same_result("0.9", "0.9394")
    (True, False)
    >>> same_result("[3, 4], [-2, 0]", "{'head one': [3.0, 4.0], 'head two': [-2.0, 0.0]}")
    True
    """
    typed, right = _ungrouped(typed, right)
    return any(_is_result(form, right, tolerance, unit) for form in readings(_spaced(typed, right), right))


def _is_result(typed: str, right: str, tolerance: float, unit: str) -> bool:
    same = partial(_rounded, tolerance=tolerance)
    if _alike(typed, right, unit, same) or _same_values(typed, right, unit, same):
        return True
    values = [token for token in _tokens(_LABEL.sub(" ", right)) if _is_value(token)]
    if not values or not all(_is_value(token) for token in _tokens(_normalised(typed, unit))):
        return False
    labelled = values != _tokens(right)  # a tuple of a label and one value is that value
    wanted = (values, _bare(values)) if labelled else (values,)
    return any(_alike(typed, " ".join(map(str, tokens)), unit, same) for tokens in wanted)


def _same_values(typed: str, right: str, unit: str, same: Callable[[Token, Token], bool]) -> bool:
    """Return whether both hold the same values in order, and `typed` has no word that contradicts."""
    if right.strip() and _EXCEPTION.match(right.strip().splitlines()[-1]):
        return False
    typed, right = _ungrouped(_normalised(typed, unit), right)
    given, expected = _tokens(typed), _tokens(right)
    values, wanted = ([token for token in tokens if _is_value(token)] for tokens in (given, expected))
    words, labels = ({token for token in tokens if not _is_value(token)} for tokens in (given, expected))
    others = words - labels - _FILLERS
    if all(token in ("[", "]") for token in wanted) or words & (_DENIALS | _OPERATORS) or (others and (labels or unit)):
        return False
    return _alike(" ".join(map(str, values)), " ".join(map(str, wanted)), "", same)


def _alike(typed: str, right: str, unit: str, same: Callable[[Token, Token], bool]) -> bool:
    """Return whether both have the same tokens."""
    typed = _normalised(typed, unit)
    wanted = _EXCEPTION.match(right.strip().splitlines()[-1]) if right.strip() else None
    if wanted:
        return _same_exception(typed.strip(), wanted[1], wanted[2] or "")
    typed, right = _ungrouped(typed, right)
    expected, given = _tokens(right), _tokens(typed)
    if _is_shape(expected):
        given = _tokens(_DIMENSIONS.sub(", ", typed))
    if _bare(expected) != expected and _bare(given) == given:
        expected = _bare(expected)
    return len(given) == len(expected) and all(map(same, given, expected))


def _ungrouped(typed: str, right: str) -> tuple[str, str]:
    """Return both without thousands separators if the right one has some."""
    return (GROUP.sub("", typed), GROUP.sub("", right)) if _GROUPED.search(right) else (typed, right)


def _spaced(typed: str, right: str) -> str:
    """Return the text with a space in "key1" where the right one has "key 1", and none in "Value Error"."""
    labels = {word.lower() for word in _NUMBERED.findall(right)}
    typed = _JOINED.sub(lambda match: f"{match[0]} " if match[0].lower() in labels else match[0], typed)
    return _EXCEPTION_APART.sub(r"\1\2", typed) if _EXCEPTION_NAME.search(right) else typed


def _normalised(typed: str, unit: str) -> str:
    """Return the text without units after numbers."""
    return re.sub(rf"(?<=\d)\s*{re.escape(unit)}(?!\w)", "", typed) if unit else typed


def _tokens(text: str) -> list[Token]:
    """Return numbers, words and brackets; `tensor(` and its `)` are dropped, round brackets become square."""
    text = _ATTRIBUTE.sub("", text)
    tokens: list[Token] = []
    wrapped: list[bool] = []  # for each open bracket: is it a wrapper's?
    previous = ""
    for part in _TOKEN.findall(text):
        word, before = part.lower(), previous
        previous = word
        if word in _OPEN:
            wrapped.append(before in _WRAPPERS)
            tokens += [] if wrapped[-1] else ["["]
        elif word in _CLOSE:
            tokens += [] if wrapped and wrapped.pop() else ["]"]
        elif word not in _WRAPPERS:
            try:
                tokens.append(float(word))
            except ValueError:
                tokens.append(word)
    return tokens


def _one_pair(tokens: list[Token]) -> bool:
    """Return whether the first bracket closes at the end."""
    depth = 0
    for at, token in enumerate(tokens):
        depth += {"[": 1, "]": -1}.get(token, 0) if isinstance(token, str) else 0
        if depth == 0 and at < len(tokens) - 1:
            return False
    return True


def _is_shape(tokens: list[Token]) -> bool:
    inside = _bare(tokens)
    return len(tokens) > len(inside) and all(
        isinstance(size, float) and size >= 0 and size.is_integer() for size in inside
    )


def _bare(tokens: list[Token]) -> list[Token]:
    """Return the tokens without an outer pair of brackets."""
    return tokens[1:-1] if tokens[:1] == ["["] and tokens[-1:] == ["]"] and _one_pair(tokens) else tokens


def _same(first: Token, second: Token, tolerance: float) -> bool:
    if isinstance(first, float) and isinstance(second, float):
        return (
            first == second
            or abs(first - second) <= tolerance * (1 + 1e-9)
            or (math.isnan(first) and math.isnan(second))
        )
    return first == second


def _precise(first: Token, second: Token, tolerance: float) -> bool:
    """Return whether two tokens are equal, or the first, with more places, rounds to the second's two or more."""
    if isinstance(first, float) and isinstance(second, float) and math.isfinite(first) and math.isfinite(second):
        places = _places(second)
        if places >= 2 and _places(first) > places:
            tolerance = max(tolerance, 0.5 * 10.0**-places)
    return _same(first, second, tolerance)


def _rounded(first: Token, second: Token, tolerance: float) -> bool:
    """Return whether two tokens are equal, or equal when rounded to the places that both have, at least two."""
    if (
        isinstance(first, float)
        and isinstance(second, float)
        and first
        and not second.is_integer()
        and math.isfinite(first)
    ):
        tolerance = max(tolerance, 0.5 * 10.0 ** -max(2, min(_places(first), _places(second))))
    return _same(first, second, tolerance)


def _places(number: float) -> int:
    exponent = Decimal(repr(number)).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _is_value(token: Token) -> bool:
    return isinstance(token, float) or token in _VALUES


def _same_exception(typed: str, kind: str, message: str) -> bool:
    match = re.search(rf"\b(?:\w+(?:{_KINDS})|StopIteration|SystemExit)\b", typed, re.IGNORECASE)
    if match:
        return match[0].lower() == kind.rsplit(".", 1)[-1].lower()
    return bool(message and typed) and fuzz.token_set_ratio(typed.lower(), message.lower()) >= MEANS_THE_SAME

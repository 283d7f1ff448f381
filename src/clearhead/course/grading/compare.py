"""Whether what a learner typed means the same as what a program printed: numbers, shapes, tensors, text, exceptions."""

import math
import re
from collections.abc import Callable
from decimal import Decimal
from functools import partial

from rapidfuzz import fuzz

Token = float | str
_TOKEN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\binf\b|\bnan\b|[A-Za-z_][\w.]*|[\[\](){}]|[^\s,]")
_GROUPED = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d.,]\d)")  # 2,362,368: one number, and no list of three
_GROUP = re.compile(r"(?<=\d)[,_'\s](?=\d{3}(?!\d))")
_SIGNS = str.maketrans({"−": "-", "–": "-", "∞": "inf"})  # as a page or a phone writes them
_LABEL = re.compile(r"(?<![^\[\](){},:])[^\[\](){},:]*:")
_ATTRIBUTE = re.compile(r"(?:,\s*)?(?:dtype|grad_fn|device|requires_grad)=[^,)\]]*")
_VALUES = {"true", "false", "none", "inf", "+inf", "-inf", "nan", *"[]"}
_DIMENSIONS = re.compile(r"(?<=\d)\s*[x×*]\s*(?=\d)")
_KINDS = "Error|Exception|Warning|Interrupt|StopIteration|SystemExit"
_EXCEPTION = re.compile(rf"^((?:[A-Za-z_][\w.]*)?(?:{_KINDS}))(?::\s*(.*))?$")
_WRAPPERS = ("tensor", "array", "torch.size", "torch.tensor", "np.array")
_DENIALS = frozenset({"not", "no", "never", "none", "error", "raises", "or"})
_OPEN, _CLOSE = "([{", ")]}"
MEANS_THE_SAME = 80.0  # rapidfuzz token_set_ratio, of 100, from which two error messages say the same


def same_output(typed: str, right: str, tolerance: float = 0.0, unit: str = "") -> bool:
    """Whether `typed` is as good as `right`.

    White space, commas, the word `tensor` and its dtype do not matter; `(2, 3)`, `2x3` and `torch.Size([2, 3])` are
    one shape, `2,362,368` and `2362368` one number; numbers may differ by `tolerance`; `unit` after a number is
    ignored. An exception is right by its type, or by a message that means the same.

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
    same = partial(_same, tolerance=tolerance)
    return _alike(typed, right, unit, same) or _same_values(typed, right, unit, same)


def same_result(typed: str, right: str, tolerance: float = 0.0, unit: str = "") -> bool:
    """Whether `typed` is the result of a worked step: as `same_output`, and besides the values alone will do.

    Words that label them may be left out, and a fraction may be rounded, to two places or more.

    >>> same_result("0.94", "(the row would sum to, 0.9394)"), same_result("0.9", "0.9394")
    (True, False)
    >>> same_result("[3, 4], [-2, 0]", "{'head one': [3.0, 4.0], 'head two': [-2.0, 0.0]}")
    True
    """
    typed, right = _ungrouped(typed, right)
    same = partial(_rounded, tolerance=tolerance)
    if _alike(typed, right, unit, same):
        return True
    values = [token for token in _tokens(_LABEL.sub(" ", right)) if _is_value(token)]
    if not values or not all(_is_value(token) for token in _tokens(_plain(typed, unit))):
        return False
    labelled = values != _tokens(right)  # a tuple of a label and one value is that value
    wanted = (values, _bare(values)) if labelled else (values,)
    return any(_alike(typed, " ".join(map(str, one)), unit, same) for one in wanted)


def _same_values(typed: str, right: str, unit: str, same: Callable[[Token, Token], bool]) -> bool:
    """Whether both hold the same values in the same order, and `typed` has no word that makes it say something else."""
    if right.strip() and _EXCEPTION.match(right.strip().splitlines()[-1]):
        return False
    typed, right = _ungrouped(_plain(typed, unit), right)
    found, expected = _tokens(typed), _tokens(right)
    values, wanted = ([one for one in some if _is_value(one)] for some in (found, expected))
    words, labels = ({one for one in some if not _is_value(one)} for some in (found, expected))
    if not any(one not in ("[", "]") for one in wanted) or words & _DENIALS or (labels and not words <= labels):
        return False
    return _alike(" ".join(map(str, values)), " ".join(map(str, wanted)), "", same)


def _alike(typed: str, right: str, unit: str, same: Callable[[Token, Token], bool]) -> bool:
    """Whether both consist of the same, token by token."""
    typed = _plain(typed, unit)
    wanted = _EXCEPTION.match(right.strip().splitlines()[-1]) if right.strip() else None
    if wanted:
        return _same_exception(typed.strip(), wanted[1], wanted[2] or "")
    typed, right = _ungrouped(typed, right)
    expected, found = _tokens(right), _tokens(typed)
    if _is_shape(expected):
        found = _tokens(_DIMENSIONS.sub(", ", typed))
    if _bare(expected) != expected and _bare(found) == found:
        expected = _bare(expected)
    return len(found) == len(expected) and all(map(same, found, expected))


def _ungrouped(typed: str, right: str) -> tuple[str, str]:
    """Both without thousands separators, where the right one has some."""
    return (_GROUP.sub("", typed), _GROUP.sub("", right)) if _GROUPED.search(right) else (typed, right)


def _plain(typed: str, unit: str) -> str:
    """With hyphens for minus signs, and no unit after a number."""
    typed = typed.translate(_SIGNS)
    return re.sub(rf"(?<=\d)\s*{re.escape(unit)}(?!\w)", "", typed) if unit else typed


def _tokens(text: str) -> list[Token]:
    """Numbers, words and brackets; `tensor(` and its `)` are dropped, round brackets are square ones."""
    text = _ATTRIBUTE.sub("", text)
    tokens: list[Token] = []
    wrapped: list[bool] = []  # for each open bracket: is it a wrapper's?
    previous = ""
    for found in _TOKEN.findall(text):
        word, before = found.lower(), previous
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
    """Whether the first bracket closes at the very end."""
    depth = 0
    for at, token in enumerate(tokens):
        depth += {"[": 1, "]": -1}.get(token, 0) if isinstance(token, str) else 0
        if depth == 0 and at < len(tokens) - 1:
            return False
    return True


def _is_shape(tokens: list[Token]) -> bool:
    inside = _bare(tokens)
    return len(tokens) > len(inside) and all(isinstance(one, float) and one >= 0 and one.is_integer() for one in inside)


def _bare(tokens: list[Token]) -> list[Token]:
    """Without one outer pair of brackets."""
    return tokens[1:-1] if tokens[:1] == ["["] and tokens[-1:] == ["]"] and _one_pair(tokens) else tokens


def _same(one: Token, two: Token, tolerance: float) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        return one == two or abs(one - two) <= tolerance * (1 + 1e-9) or (math.isnan(one) and math.isnan(two))
    return one == two


def _rounded(one: Token, two: Token, tolerance: float) -> bool:
    """The same, or the same to the places that both have, two at least; a whole number is not rounded to."""
    if isinstance(one, float) and isinstance(two, float) and one and not two.is_integer() and math.isfinite(one):
        tolerance = max(tolerance, 0.5 * 10.0 ** -max(2, min(_places(one), _places(two))))
    return _same(one, two, tolerance)


def _places(number: float) -> int:
    exponent = Decimal(repr(number)).as_tuple().exponent
    return -exponent if isinstance(exponent, int) else 0


def _is_value(token: Token) -> bool:
    return isinstance(token, float) or token in _VALUES


def _same_exception(typed: str, kind: str, message: str) -> bool:
    found = re.search(rf"\b(?:\w+(?:{_KINDS})|StopIteration|SystemExit)\b", typed, re.IGNORECASE)
    if found:
        return found[0].lower() == kind.rsplit(".", 1)[-1].lower()
    return bool(message and typed) and fuzz.token_set_ratio(typed.lower(), message.lower()) >= MEANS_THE_SAME

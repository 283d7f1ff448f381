"""Whether what a learner typed means the same as what a program printed: numbers, shapes, tensors, text, exceptions."""

import math
import re

from rapidfuzz import fuzz

Token = float | str
_TOKEN = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\binf\b|\bnan\b|[A-Za-z_][\w.]*|[\[\](){}]|[^\s,]")
_DIMENSIONS = re.compile(r"(?<=\d)\s*[x×*]\s*(?=\d)")
_KINDS = "Error|Exception|Warning|Interrupt|StopIteration|SystemExit"
_EXCEPTION = re.compile(rf"^((?:[A-Za-z_][\w.]*)?(?:{_KINDS}))(?::\s*(.*))?$")
_WRAPPERS = ("tensor", "array", "torch.size", "torch.tensor", "np.array")
_OPEN, _CLOSE = "([{", ")]}"
MEANS_THE_SAME = 80.0  # rapidfuzz token_set_ratio, of 100, from which two error messages say the same


def same_output(typed: str, right: str, tolerance: float = 0.0, unit: str = "") -> bool:
    """Whether `typed` is as good as `right`.

    White space, commas, the word `tensor` and its dtype do not matter; `(2, 3)`, `2x3` and `torch.Size([2, 3])` are
    one shape; numbers may differ by `tolerance`; `unit` after a number is ignored. An exception is right by its type,
    or by a message that means the same.

    >>> same_output("2x3", "torch.Size([2, 3])"), same_output("[[1,2]]", "tensor([[1., 2.]])")
    (True, True)
    >>> same_output("0.22 s", "0.2186", tolerance=0.005, unit="s"), same_output("0.3", "0.2186", 0.005)
    (True, False)
    >>> same_output("ValueError", "ValueError: scale must be positive")
    True
    """
    if unit:
        typed = re.sub(rf"(?<=\d)\s*{re.escape(unit)}(?!\w)", "", typed)
    wanted = _EXCEPTION.match(right.strip().splitlines()[-1]) if right.strip() else None
    if wanted:
        return _same_exception(typed.strip(), wanted[1], wanted[2] or "")
    expected, found = _tokens(right), _tokens(typed)
    if _is_shape(expected):
        found = _tokens(_DIMENSIONS.sub(", ", typed))
    if _bare(expected) != expected and _bare(found) == found:
        expected = _bare(expected)
    if len(found) != len(expected):
        return False
    return all(_same(one, two, tolerance) for one, two in zip(found, expected, strict=True))


def _tokens(text: str) -> list[Token]:
    """Numbers, words and brackets; `tensor(` and its `)` are dropped, round brackets are square ones."""
    text = re.sub(r",?\s*(dtype|grad_fn|device|requires_grad)=[^,)\]]*", "", text)
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


def _same_exception(typed: str, kind: str, message: str) -> bool:
    found = re.search(rf"\b(?:\w+(?:{_KINDS})|StopIteration|SystemExit)\b", typed, re.IGNORECASE)
    if found:
        return found[0].lower() == kind.rsplit(".", 1)[-1].lower()
    return bool(message and typed) and fuzz.token_set_ratio(typed.lower(), message.lower()) >= MEANS_THE_SAME

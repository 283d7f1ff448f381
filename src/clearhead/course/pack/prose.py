"""Bounds on prose: how many placeholders, and how deep formulas nest."""

import re
from itertools import islice

from clearhead.errors import PackError

MOST_PLACES = 1_000  # `{{` in one section or page
DEEPEST = 60  # nested groups in a paragraph; the formula converter draws no deeper

_PLACE = re.compile(r"\{\{")
_GROUP = re.compile(r"\n[ \t]*\n|\\(?:left|begin|right|end)(?![A-Za-z])|\\.|[{}]", re.DOTALL)
_OPENS, _CLOSES = ("{", "\\left", "\\begin"), ("}", "\\right", "\\end")


def check_prose(text: str, file: str, first_line: int) -> None:
    """Raise PackError, with its line, for more placeholders or deeper groups than any page needs."""
    for match in islice(_PLACE.finditer(text), MOST_PLACES, MOST_PLACES + 1):
        problem = f"there are more than {MOST_PLACES:,} places such as {{{{name}}}} here; use fewer"
        raise PackError(problem, file=file, line=first_line + text.count("\n", 0, match.start()))
    depth = 0
    for match in _GROUP.finditer(text):
        if match[0] in _OPENS:
            depth += 1
        elif match[0] in _CLOSES:
            depth = max(depth - 1, 0)
        elif match[0][0] == "\n":
            depth = 0
        if depth > DEEPEST:
            problem = f"groups such as {{…}} are more than {DEEPEST} deep here; write the formula flat"
            raise PackError(problem, file=file, line=first_line + text.count("\n", 0, match.start()))

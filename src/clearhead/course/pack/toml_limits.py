"""Check bounds on TOML before parsing: `tomllib` recurses with the depth and is quadratic in dotted keys."""

import re

DEEPEST = 20  # nested arrays and inline tables
MOST_PARTS = 20  # of a dotted key
LONGEST_NUMBER = 100  # characters of a number, a date or a part of a key

_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\"]|"(?!""))*+(?:"""|\Z)|\'\'\'(?:[^']|'(?!\'\'))*+(?:\'\'\'|\Z)'''
    r"""|"(?:\\.|[^"\\\n])*+(?:"|$)|'[^'\n]*+(?:'|$)|\#[^\n]*|[\[\]{}.]|[^\s"'\#\[\]{}.,=]++|[,=\n]""",
    re.DOTALL | re.MULTILINE,
)


def excess(text: str) -> tuple[str, int] | None:
    """Return (problem, line from 0) of the first part that exceeds a bound; None if there is none."""
    depth = dots = 0
    for match in _TOKEN.finditer(text):
        part = match[0]
        if part in "[{":
            depth, dots = depth + 1, 0
        elif part in "]}":
            depth = max(depth - 1, 0)
        elif part == ".":
            dots += 1
        elif part in ",=\n":
            dots = 0
        problem = ""
        if depth > DEEPEST:
            problem = f"lists and tables are more than {DEEPEST} deep"
        elif dots >= MOST_PARTS:
            problem = f"a key has more than {MOST_PARTS} parts"
        elif len(part) > LONGEST_NUMBER and part[0] not in "\"'#":
            problem = f"a number or a name has more than {LONGEST_NUMBER} characters"
        if problem:
            return problem, text.count("\n", 0, match.start())
    return None

"""Write constraints-lowest.txt: the lowest version that pyproject.toml allows of each library the studio needs.

`python tools/lowest.py` writes the file; `make stress` installs it into a venv of its own and runs tests on it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints-lowest.txt"
HEAD = "# Written by tools/lowest.py from the lower bounds in pyproject.toml; do not edit.\n"


def lowest(project: str) -> str:
    """The constraints for a pyproject.toml.

    >>> print(lowest('[project.optional-dependencies]\\nstudio = ["clearhead[cli]", "x>=2"]\\ncli = ["a>=1,<2"]'))
    # Written by tools/lowest.py from the lower bounds in pyproject.toml; do not edit.
    a==1
    x==2
    <BLANKLINE>
    """
    extras = tomllib.loads(project)["project"]["optional-dependencies"]
    return HEAD + "".join(f"{_lower(requirement)}\n" for requirement in sorted(_requirements("studio", extras)))


def _requirements(extra: str, extras: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """The requirements of an extra and of the extras that it names: `clearhead[cli,course]`."""
    for requirement in extras[extra]:
        if included := re.fullmatch(r"clearhead\[([\w,]+)\]", requirement):
            for name in included[1].split(","):
                yield from _requirements(name, extras)
        else:
            yield requirement


def _lower(requirement: str) -> str:
    parts = re.match(r"([A-Za-z0-9._-]+(?:\[[^\]]*\])?)\s*>=\s*([0-9][0-9.]*)", requirement)
    if parts is None:
        raise SystemExit(f"{requirement} has no lower bound (>=) in pyproject.toml; give it one that was tested")
    return f"{parts[1]}=={parts[2]}"


if __name__ == "__main__":
    FILE.write_text(lowest((ROOT / "pyproject.toml").read_text(encoding="utf-8")), encoding="utf-8")

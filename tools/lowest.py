"""Write constraints-lowest.txt: the lowest version that pyproject.toml allows of each library but torch.

`python tools/lowest.py` writes the file; `make stress` installs it into a venv of its own and runs tests on it.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints-lowest.txt"
EXTRAS = ("chat", "models", "postgresql", "studio", "views")  # not survey: Ray is a longer download than all of these
HEAD = "# Written by tools/lowest.py from the lower bounds in pyproject.toml; do not edit.\n"


def lowest(project: str) -> str:
    """Return the constraints for a pyproject.toml.

    >>> project = '[project]\\ndependencies = ["torch>=2", "n>=3"]\\n[project.optional-dependencies]\\n'
    >>> print(lowest(project + 'studio = ["clearhead[cli]", "x>=2"]\\ncli = ["a>=1,<2"]'))
    # Written by tools/lowest.py from the lower bounds in pyproject.toml; do not edit.
    a==1
    n==3
    x==2
    <BLANKLINE>
    """
    given = tomllib.loads(project)["project"]
    extras = given["optional-dependencies"]
    asked = {requirement for name in EXTRAS if name in extras for requirement in _requirements(name, extras)}
    asked |= {requirement for requirement in given["dependencies"] if not requirement.startswith("torch")}
    return HEAD + "".join(f"{_lower(requirement)}\n" for requirement in sorted(asked))


def _requirements(extra: str, extras: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the requirements of an extra and of the extras that it names: `clearhead[cli,course]`."""
    for requirement in extras[extra]:
        if included := re.fullmatch(r"clearhead\[([\w,]+)\]", requirement):
            for name in included[1].split(","):
                yield from _requirements(name, extras)
        else:
            yield requirement


def _lower(requirement: str) -> str:
    """Without the requirement's extras: pip refuses them in a constraint."""
    parts = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*>=\s*([0-9][0-9.]*)", requirement)
    if parts is None:
        raise SystemExit(f"{requirement} has no lower bound (>=) in pyproject.toml; give it one that was tested")
    return f"{parts[1]}=={parts[2]}"


if __name__ == "__main__":
    FILE.write_text(lowest((ROOT / "pyproject.toml").read_text(encoding="utf-8")), encoding="utf-8")

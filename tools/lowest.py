"""Write constraints-lowest.txt: the lowest version of each dependency of the studio that pyproject.toml allows.

`python tools/lowest.py` writes the file; `make stress` installs it into a venv of its own and runs tests on it.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints-lowest.txt"
HEAD = "# Written by tools/lowest.py from the lower bounds in pyproject.toml; do not edit.\n"


def lowest(project: str) -> str:
    """The constraints for a pyproject.toml.

    >>> lowest('[project.optional-dependencies]\\nstudio = ["fastapi>=0.115,<1", "x[y]>=2"]').splitlines()[1:]
    ['fastapi==0.115', 'x[y]==2']
    """
    wanted = tomllib.loads(project)["project"]["optional-dependencies"]["studio"]
    return HEAD + "".join(f"{_lower(one)}\n" for one in sorted(wanted))


def _lower(requirement: str) -> str:
    found = re.match(r"([A-Za-z0-9._-]+(?:\[[^\]]*\])?)\s*>=\s*([0-9][0-9.]*)", requirement)
    if found is None:
        raise SystemExit(f"{requirement} has no lower bound (>=) in pyproject.toml; give it one that was tested")
    return f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    FILE.write_text(lowest((ROOT / "pyproject.toml").read_text(encoding="utf-8")), encoding="utf-8")

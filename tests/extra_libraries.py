"""What each extra of pyproject.toml requires, and which modules that brings."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

REQUIRED = {"pydantic", "markdown_it", "pygments"}  # by Typer and Rich, which every command needs


def requirements(extra: str | None) -> list[str]:
    """The requirements of an extra, without other extras it brings; of the package itself for None."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    listed = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return [requirement for requirement in listed if not requirement.startswith("clearhead[")]


def libraries(extra: str) -> set[str]:
    """The modules that the distributions of an extra bring; of one that is not installed, its name."""
    names = {_plain(re.split(r"[\[<>=]", requirement)[0]) for requirement in requirements(extra)}
    modules = packages_distributions().items()
    brought = {module for module, distributions in modules if names & {_plain(name) for name in distributions}}
    brought |= names - {_plain(name) for names in packages_distributions().values() for name in names}
    return {module for module in brought if module.isidentifier() and not module.startswith("_")} - REQUIRED


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")

"""Python files that belong to no package, such as tools, imported by their path."""

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[1]


def load(path: str | Path) -> ModuleType:
    """Import a file: a path from the root of the repository, or a whole one. Each call makes a new module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem.strip("_"), ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

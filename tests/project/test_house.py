"""The house rules that no linter holds: how large files and folders are, and what may be imported where."""

import ast
import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from project.checkout import ROOT, SOURCE, tracked_files

CODE = {".py", ".h", ".cpp", ".js", ".mjs", ".css"}
LONG_FILES = Path(__file__).with_name("long_files.toml")  # each with its reason; the list only shrinks
# Folders of more files, and why; the list only shrinks.
CROWDED = {
    "docs": "a page for each subject, and the schemas",
    "docs/decisions": "numbered records",
    "docs/pictures": "pictures of docs/studio.md and docs/findings.md",
    "docs/reference": "a page for each public name",
    "src/clearhead/packs/attention/items": "a file for each item of the course",
    "src/clearhead/studio/static": "served flat: pages and the service worker name a file /static/NAME",
}
IMPORT = re.compile(r"from (clearhead[\w.]*) import (\w+)")


def test_a_file_is_one_idea():
    most = {"src": 320, "bench": 300, "tools": 300, "tests": 300, "native": 400}
    long = {
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix in CODE and (top := path.relative_to(ROOT).parts[0]) in most
        if len(path.read_text(encoding="utf-8").splitlines()) > most[top]
    }
    assert long == set(tomllib.loads(LONG_FILES.read_text(encoding="utf-8")))


def test_a_folder_has_at_most_fifteen_files():
    """Of code where it has code, otherwise of anything."""
    folders = defaultdict(list)
    for path in tracked_files():
        if path.name != "__init__.py":
            folders[str(path.parent.relative_to(ROOT))].append(path)
    sizes = {folder: sum(path.suffix in CODE for path in files) or len(files) for folder, files in folders.items()}
    assert {folder: size for folder, size in sizes.items() if size > 15}.keys() == CROWDED.keys()


def test_a_function_fits_on_a_screen():
    """Fifty lines, without its docstring and its parameters."""
    long = set()
    for path in tracked_files():
        if path.suffix == ".py" and path.is_relative_to(SOURCE):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    body = node.body[1:] if ast.get_docstring(node, clean=False) else node.body
                    if body and body[-1].end_lineno - body[0].lineno >= 50:
                        long.add(f"{path.relative_to(SOURCE)}: {node.name}")
    assert long == set()


def test_only_one_file_touches_the_native_library():
    users = [path.name for path in SOURCE.rglob("*.py") if re.search(r"\b_native\b", path.read_text())]
    assert set(users) <= {"library.py"}


def test_every_room_is_held_to_have_no_circles():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = next(contract for contract in contracts if contract["type"] == "acyclic_siblings")["ancestors"]
    assert set(held) == {f"clearhead.{path.parent.name}" for path in SOURCE.glob("*/__init__.py")}


def test_what_programs_in_texts_import_is_there():
    """Imports inside a string, which no linter reads and a program of its own may fail at unseen."""
    wrong = []
    for path in (*SOURCE.rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        for module, name in IMPORT.findall(path.read_text(encoding="utf-8")):
            folder = SOURCE.parent.joinpath(*module.split("."))
            places = [folder / name, folder / f"{name}.py", folder.with_suffix(".py"), folder / "__init__.py"]
            texts = [place.read_text(encoding="utf-8") for place in places[2:] if place.is_file()]
            known = any(place.exists() for place in places[:2]) or any(re.search(rf"\b{name}\b", t) for t in texts)
            if not known and name != "_native":  # compiled
                wrong.append(f"{path.relative_to(ROOT)}: {module}.{name}")
    assert wrong == []


def _names_of(module: str) -> set[str] | None:
    """Return what a module of the package binds at its top level, and its submodules; None for no module."""
    place = SOURCE.joinpath(*module.split(".")[1:])
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    if not file.is_file():
        return None
    names = {child.stem for child in place.iterdir()} if place.is_dir() else set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


@pytest.mark.slow
def test_programs_that_no_test_imports_ask_the_package_for_names_that_it_has() -> None:
    """Tests import their helpers, but nothing imports what runs as a program, as only the stress tier does."""
    programs = [
        path for path in tracked_files()
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in ("tests", "bench", "tools")
        and not path.name.startswith("test_")
    ]  # fmt: skip
    missing = []
    for path in programs:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.ImportFrom) or node.level or (node.module or "").split(".")[0] != "clearhead":
                continue
            names = _names_of(str(node.module))
            if names is not None and "__getattr__" in names:  # it finds names when they are first touched
                continue
            absent = [alias.name for alias in node.names if names is None or alias.name not in names]
            missing += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in absent]
    assert missing == []

"""The house rules that no linter holds: what may be imported where, what must be pinned, what no file may say."""

import ast
import contextlib
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from importlib import metadata
from itertools import chain
from pathlib import Path

import pytest

import clearhead
from fresh import answer

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "clearhead"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / line for line in listed.splitlines() if (ROOT / line).is_file()]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("heavy", ["torch", "transformers", "fastapi", "sqlalchemy", "numpy"])
def test_importing_clearhead_imports_nothing_heavy(heavy):
    assert python(f"import sys, clearhead; print({heavy!r} in sys.modules)") == "False"


def test_every_public_name_resolves():
    import clearhead

    missing = [name for name in clearhead.__all__ if getattr(clearhead, name, None) is None]
    assert missing == []


def test_an_unknown_name_is_answered_with_the_known_ones():
    import clearhead

    with pytest.raises(AttributeError, match="AttentionMatrix"):
        clearhead.atention  # noqa: B018


@pytest.mark.slow
def test_a_function_is_not_replaced_by_importing_a_room():
    imports = "import clearhead.multihead, clearhead.capture"
    assert answer(f"{imports}; print(callable(clearhead.attention), callable(clearhead.observe))") == "True True"


def test_only_one_file_touches_the_native_library():
    users = [path.name for path in SOURCE.rglob("*.py") if re.search(r"\b_native\b", path.read_text())]
    assert set(users) <= {"library.py"}


@pytest.mark.slow
def test_a_machine_with_a_compiler_has_the_native_library():
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler here, so no native library is expected")
    assert answer("import torch, clearhead._native; print('built')") == "built"


def test_every_dependency_is_pinned():
    pinned = {
        normalised(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    }
    wanted = [*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())]
    names = {normalised(re.match(r"[A-Za-z0-9._-]+", requirement)[0]) for requirement in wanted}
    assert names - pinned == {"clearhead"}  # an extra that includes others


@pytest.mark.skipif(os.environ.get("PINNED") == "", reason="the newest versions were asked for: make PINNED=")
def test_torch_here_is_the_pinned_one():
    pin = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pin is not None
    assert metadata.version("torch").split("+")[0] == pin[1] == "2.13.0"


IMPORT = re.compile(r"from (clearhead[\w.]*) import (\w+)")


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


def test_no_file_names_a_machine_or_a_registry_host():
    # Spelled in pieces, so that this file does not find itself.
    forbidden = re.compile(
        "|".join(["/" + "work/", "pypi" + r"\.org", "registry" + r"\.npmjs", "deb" + r"\.debian\.org"])
    )
    guilty = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        guilty += [
            f"{path.relative_to(ROOT)}:{n}" for n, line in enumerate(text.splitlines(), 1) if forbidden.search(line)
        ]
    assert guilty == []


def test_links_between_the_documents_lead_somewhere():
    broken = []
    for path in tracked_files():
        if path.suffix != ".md" or "packs" in path.parts:
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)} -> {target}")
    assert broken == []


def test_ci_runs_make_test_and_nothing_else():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make test" in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert len([line for line in script.splitlines() if line and not line.startswith("#")]) <= 3


def test_the_lowest_constraints_are_up_to_date():
    spec = importlib.util.spec_from_file_location("lowest", ROOT / "tools" / "lowest.py")
    lowest = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lowest)
    assert lowest.FILE.read_text() == lowest.lowest((ROOT / "pyproject.toml").read_text()), "run tools/lowest.py"


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-lowest.txt"])
def test_pip_takes_each_line_of_the_constraints(name):
    """It refuses extras: `psycopg[binary]==3.2.1` made `pip install --constraint` fail."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9.]*", line)] == []


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert clearhead.__version__ == project["version"]
    assert re.findall(r"^## \[(.+)\] - \d{4}-\d\d-\d\d$", changelog, re.M)[0] == project["version"]


def test_the_changelog_is_in_the_form_of_keep_a_changelog():
    lines = (ROOT / "CHANGELOG.md").read_text().splitlines()
    sections = [line for line in lines if line.startswith("### ")]
    assert set(sections) <= {
        f"### {name}" for name in ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    }
    assert next(line for line in lines if line.startswith("## ")) == "## Unreleased"
    entries = [line for line in lines if not line.startswith(("#", "- ")) and line]
    assert entries == [], "one line a change"
    changes = [line for line in lines if line.startswith("- ")]
    assert [line for line in changes if len(line) > 200] == [], "a change in a sentence or two"
    assert [line for line, count in Counter(changes).items() if count > 1] == [], "said twice"


def design_table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading of docs/design.md, without its head."""
    section = (ROOT / "docs" / "design.md").read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")][
        2:
    ]


def test_the_first_files_to_open_have_the_functions_named_there():
    rows = design_table("Where to begin")
    assert len(rows) >= 7
    for question, file, function in rows:
        path, name = ROOT / file.strip("`"), function.strip("`")
        pattern = rf"^def {name}\(" if path.suffix == ".py" else rf"^inline \w+ {name}\("
        assert re.search(pattern, path.read_text(), re.M), f"{question} {file} has no {name}"


def test_the_drawn_rooms_are_those_of_the_imports_and_have_no_circles():
    grimp = pytest.importorskip("grimp", reason="import-linter is not installed")
    spec = importlib.util.spec_from_file_location("draw_house", ROOT / "tools" / "draw_house.py")
    draw_house = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw_house)
    page = (ROOT / "docs" / "design.md").read_text()
    drawn = page.split(draw_house.BEGIN)[1].split(draw_house.END)[0].strip()
    without_lines = re.compile(r"(\| \w+ \| \d+ \|) \d+ \|")  # the number of lines changes with every commit
    now = draw_house.drawing(grimp.build_graph("clearhead", cache_dir=None, exclude_type_checking_imports=True))
    assert without_lines.sub(r"\1", drawn) == without_lines.sub(r"\1", now), "run python tools/draw_house.py --write"
    assert {line.split("|")[4].strip() for line in drawn.splitlines() if line.startswith("| ")} <= {
        "none",
        "circles of imports inside",
    }


def is_there(name: str) -> bool:
    """Whether a dotted name below `clearhead` is a module, or an attribute of one."""
    place, path = clearhead, name.removeprefix("clearhead.").split(".")
    for number, part in enumerate(path, 1):
        with contextlib.suppress(ImportError):
            importlib.import_module(".".join(["clearhead", *path[:number]]))
        if not hasattr(place, part) and part not in getattr(place, "__annotations__", {}):
            return False
        place = getattr(place, part, None)
    return True


def test_dotted_names_in_the_documents_are_there():
    rooms = "|".join(path.parent.name for path in SOURCE.glob("*/__init__.py"))
    dotted = re.compile(rf"`((?:clearhead\.)?(?:{rooms})(?:\.\w+)+)[`(]")
    pages = [path for path in tracked_files() if path.suffix == ".md" and not {"packs", "decisions"} & {*path.parts}]
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in pages
        if not path.name.startswith(("CHANGELOG", "LOG"))
        for name in sorted({*dotted.findall(path.read_text(encoding="utf-8"))})
        if not name.endswith((".h", ".js", ".json", ".md", ".py")) and not is_there(name)
    ]
    assert wrong == []


# What is one idea in more lines; the list only shrinks.
LONG_FILES = {
    "src/clearhead/spec/attention.py": "one value and all that is said of it; its fields are one table",
    "tests/studio/lens/test_lens.py": "the Lens by its routes and in a browser, over one studio",
}


def test_a_file_is_one_idea():
    most = {"src": 320, "bench": 400, "tools": 400, "tests": 400, "native": 400}
    kinds = {".py", ".h", ".cpp", ".js", ".mjs"}
    long = {
        name
        for path in tracked_files()
        if path.suffix in kinds and (top := path.relative_to(ROOT).parts[0]) in most
        if len(path.read_text(encoding="utf-8").splitlines()) > most[top]
        if (name := str(path.relative_to(ROOT)))
    }
    assert long == set(LONG_FILES)


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


def test_a_folder_has_at_most_fifteen_files():
    files = [path for path in tracked_files() if path.suffix == ".py" and path.name != "__init__.py"]
    counts = Counter(path.parent for path in files if path.is_relative_to(SOURCE))
    assert {str(folder): count for folder, count in counts.items() if count > 15 and folder != SOURCE} == {}


def test_every_room_is_held_to_have_no_circles():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    held = next(contract for contract in contracts if contract["type"] == "acyclic_siblings")["ancestors"]
    assert set(held) == {f"clearhead.{path.parent.name}" for path in SOURCE.glob("*/__init__.py")}


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

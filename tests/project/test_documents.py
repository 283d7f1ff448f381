"""The documents: links, names, commands, drawings and the form of the changelog."""

import contextlib
import importlib
import re
from collections import Counter
from pathlib import Path

import pytest

import clearhead
import scripts
from project.checkout import ROOT, SOURCE, tracked_files


def test_links_between_the_documents_lead_somewhere():
    broken = []
    for path in tracked_files():
        if path.suffix != ".md" or "packs" in path.parts:
            continue
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
            if "://" not in target and not target.startswith("mailto:") and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT)} -> {target}")
    assert broken == []


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
    draw_house = scripts.load("tools/docs/draw_house.py")
    page = (ROOT / "docs" / "design.md").read_text()
    drawn = page.split(draw_house.BEGIN)[1].split(draw_house.END)[0].strip()
    without_lines = re.compile(r"(\| \w+ \| \d+ \|) \d+ \|")  # the number of lines changes with every commit
    now = draw_house.drawing(grimp.build_graph("clearhead", cache_dir=None, exclude_type_checking_imports=True))
    assert without_lines.sub(r"\1", drawn) == without_lines.sub(r"\1", now), (
        "run python tools/docs/draw_house.py --write"
    )
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


PATH = re.compile(r"(?<![\w/.{-])((?:bench|docs|editor|native|src|tests|tools)/[\w./-]*\w)(?:::(\w+))?")
MODULE = re.compile(r"(?:-m |`)(bench(?:\.(?!md\b|json\b)\w+)+)")
# What programs write, so that no checkout has it.
WRITTEN = (
    "bench/results/",
    "editor/node_modules",
    "src/clearhead/kernels/native/build_failure.txt",
    "src/clearhead/studio/locale",
)


def is_in_the_checkout(name: str, test: str, beside: Path) -> bool:
    """Whether a path from the root or from the file that names it is there, and has the test, if one is named."""
    files = [file for file in (beside / name, *ROOT.glob(f"{name}*")) if file.exists()]
    if test:
        return any(f"def {test}(" in file.read_text(encoding="utf-8") for file in files if file.is_file())
    return bool(files) or name.startswith(WRITTEN)


def test_files_tests_and_benchmarks_that_are_named_anywhere_are_there():
    """In documents, comments, docstrings and commands; a decision may be named by its number."""
    wrong = []
    for path in tracked_files():
        if "packs" in path.parts or path.name == "CHANGELOG.md":  # which names what there was
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        missing = [name for name, test in PATH.findall(text) if not is_in_the_checkout(name, test, path.parent)]
        for module in MODULE.findall(text):
            file = ROOT.joinpath(*module.split("."))
            if not (file.with_suffix(".py").exists() or (file / "__main__.py").exists()):
                missing.append(module)
        wrong += [f"{path.relative_to(ROOT)}: {name}" for name in missing]
    assert wrong == []

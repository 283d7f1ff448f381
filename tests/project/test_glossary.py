"""Names and phrases: docs/glossary.md is the list, and no file in src/ or native/ uses what it rules out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GLOSSARY = ROOT / "docs" / "glossary.md"
ROOMS = sorted(
    p.name for p in (ROOT / "src" / "clearhead").iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()
)
PROSE = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]

# Rooms whose names and sentences are still to be renamed; the list only shrinks.
PENDING_NAMES: set[str] = set()
PENDING_SENTENCES: set[str] = set()
# Names that programs outside these rooms give: (file, name).
PUBLIC = {
    ("src/clearhead/kernels/plan.py", "choice"),  # kernels.Choice
    ("src/clearhead/arguments.py", "plain"),  # Kind.PLAIN: a plain tensor
    ("src/clearhead/sandbox/child/judging.py", "what"),  # close(…, what="the weights") in the tests of packs
}


def pending(room: str, rooms: set[str]) -> object:
    marks = [pytest.mark.xfail(reason="to be renamed")] if room in rooms else []
    return pytest.param(room, marks=marks)


@cache
def ruled_out() -> tuple[frozenset[str], re.Pattern[str]]:
    """The names of the tables' last column, and the phrases."""
    tables, phrases = GLOSSARY.read_text().split("## Phrases")
    cells = [line.split("|")[3] for line in tables.splitlines() if line.count("|") == 4]
    names = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    words = re.findall(r"`([^`]+)`", phrases)
    return frozenset(names), re.compile(r"\b(" + "|".join(word.replace(" ", r"\s+") for word in words) + r")\b", re.I)


def defined(source: str) -> dict[str, int]:
    """The names a module defines, without leading underscores -> line: functions, classes, parameters, variables."""
    names: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.setdefault(name.strip("_").lower(), node.lineno)
            case ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | ast.alias(asname=str() as name):
                names.setdefault(name.strip("_").lower(), node.lineno)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.setdefault(name.strip("_").lower(), node.lineno)
    return names


@pytest.mark.parametrize("room", [pending(room, PENDING_NAMES) for room in ROOMS])
def test_names_are_those_of_the_glossary(room):
    names, _ = ruled_out()
    top = ROOT / "src" / "clearhead" / room
    wrong = []
    for path in [top] if top.is_file() else sorted(top.rglob("*.py")):
        where = path.relative_to(ROOT)
        if path.stem in names:
            wrong.append(f"{where}: the file's name")
        wrong += [
            f"{where}:{line}: {name}"
            for name, line in defined(path.read_text()).items()
            if name in names and (str(where), name) not in PUBLIC
        ]
    assert wrong == []


@pytest.mark.parametrize("room", [pending(room, PENDING_NAMES) for room in ("native", "src")])
def test_files_have_names_of_the_glossary(room):
    """Those of C++, scripts, styles and templates, by each part of the name: `sitting_report.html`."""
    names, _ = ruled_out()
    files = [path for path in (ROOT / room).rglob("*") if path.suffix in {".h", ".cpp", ".js", ".css", ".html"}]
    parts = {path: {part.removesuffix("s") for part in re.split(r"[-_]", path.stem)} for path in files}
    assert [str(path.relative_to(ROOT)) for path in files if path.stem in names or parts[path] & names] == []


# Names that scripts and C++ define, which no parser of ours reads: declared, or parameters of an arrow function.
DECLARED = re.compile(
    r"\b(?:const|let|var|auto|bool|float|double|int|int64_t|size_t|void|[A-Z]\w*) *[*&]? *"
    r"(?P<declared>found|one|what|things) *(?=[=;,)\[{])"
    r"|(?<=[(\[{, ])(?P<parameter>found|one|what|things)(?=(?:, \w+)*\)? =>)"
)
ONE = "native/binding/torch.cpp"  # the number 1 in each dtype


def test_scripts_and_native_code_name_what_a_thing_is():
    files = [p for room in ("src", "native") for p in (ROOT / room).rglob("*") if p.suffix in {".js", ".h", ".cpp"}]
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {declared[0]}"
        for path in files
        if path.name != "codemirror.js" and str(path.relative_to(ROOT)) != ONE
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if not line.lstrip().startswith(("*", "//", "/*")) and (declared := DECLARED.search(line.split(" // ")[0]))
    ]
    assert wrong == []


def phrases(paths: list[Path]) -> list[str]:
    _, pattern = ruled_out()
    wrong = []
    for path in paths:
        text = path.read_text(errors="ignore")
        wrong += [
            f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, m.start()) + 1}: {' '.join(m[0].split())}"
            for m in pattern.finditer(text)
        ]
    return wrong


@pytest.mark.parametrize("room", [pending(room, PENDING_SENTENCES) for room in [*ROOMS, "native"]])
def test_sentences_in_code_are_plain(room):
    top = ROOT / "native" if room == "native" else ROOT / "src" / "clearhead" / room
    kinds = {".py", ".h", ".cpp", ".js", ".html", ".css", ".toml", ".md"}
    assert phrases([top] if top.is_file() else [p for p in sorted(top.rglob("*")) if p.suffix in kinds]) == []


@pytest.mark.parametrize("room", [pending("docs", PENDING_SENTENCES)])
def test_sentences_in_documentation_are_plain(room):
    assert phrases([path for path in PROSE if path != GLOSSARY]) == []

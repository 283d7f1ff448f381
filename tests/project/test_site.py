"""The documentation site: its navigation, links, names and programs, without mkdocs. browser/test_site_pages.py builds it."""

import contextlib
import importlib
import inspect
import io
import re
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

import clearhead
import scripts

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WRITTEN_ELSEWHERE = ("benchmarks/", "project/")  # pages from files outside docs/, by tools/site/hooks.py
GUIDES = [page for page in PAGES if page.parent.name in ("start", "guides")]
PROGRAMS = [
    (f"{page.stem}-{number}", *program)
    for page in GUIDES
    for number, program in enumerate(re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", page.read_text(), re.S), 1)
]


@cache
def tool(name: str) -> ModuleType:
    return scripts.load(f"tools/site/{name}.py")


def navigation() -> list[str]:
    nav = (ROOT / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    return re.findall(r"(\S+\.md)$", nav, re.M)


def slug(heading: str) -> str:
    """The anchor of a heading, as Python-Markdown and GitHub both make it."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", text.encode("ascii", "ignore").decode()).strip().lower())


def test_every_table_of_results_has_a_page():
    results = {f"benchmarks/{table.name}" for table in (ROOT / "bench" / "results").glob("*.md")}
    source = (ROOT / "tools" / "site" / "hooks.py").read_text()
    assert results <= set(navigation())
    assert results == set(re.findall(r'"(benchmarks/\S+\.md)": "bench/results/', source))


def test_each_page_is_in_the_navigation_once():
    listed = navigation()
    assert len(listed) == len(set(listed))
    folders = {"reference", "decisions"}  # their README.md lists the pages
    expected = {
        str(page.relative_to(DOCS)) for page in PAGES if page.parent.name not in folders or page.stem == "README"
    }
    assert {name for name in listed if not name.startswith(WRITTEN_ELSEWHERE)} == expected
    for folder in folders:
        text = (DOCS / folder / "README.md").read_text()
        assert {page.name for page in (DOCS / folder).glob("*.md")} - {"README.md"} == set(
            re.findall(r"^- \[.+?\]\((\S+)\)", text, re.M)
        )


def test_links_of_the_pages_lead_to_pages_and_headings():
    hooks = (ROOT / "tools" / "site" / "hooks.py").read_text()
    elsewhere = dict(re.findall(r'^    "(\S+\.md)": "(\S+\.md)",$', hooks, re.M))
    assert len(elsewhere) >= 6
    assert all((ROOT / source).exists() for source in elsewhere.values())
    broken = []
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
            if "://" in target:
                continue
            path = (page.parent / target).resolve() if target else page
            if not path.exists():
                broken.append(f"{page.relative_to(DOCS)} -> {target}")
            elif anchor and anchor not in {slug(line) for line in re.findall(r"^#+ (.+)$", path.read_text(), re.M)}:
                broken.append(f"{page.relative_to(DOCS)} -> {target}#{anchor}")
    assert broken == []


def test_pages_embed_only_live_figures_that_are_drawn():
    embedded = {name for page in PAGES for name in re.findall(r'<iframe [^>]*src="([^"]+)"', page.read_text())}
    drawn = set(
        re.findall(r'^    "(\w+\.html)": _|(?<= )"(\w+\.html)": _', (ROOT / "tools/site/live.py").read_text(), re.M)
    )
    assert embedded == {f"live/{first or second}" for first, second in drawn}


@pytest.mark.slow  # imports every room
def test_every_public_name_and_method_has_a_docstring_on_a_page():
    public = tool("public")
    assert {"AttentionMatrix", "Record", "capture", "views", "matrix"} <= set(public.pages())
    missing, seen = [], 0
    for page in public.pages():
        if not (DOCS / "reference" / f"{page}.md").exists():
            missing.append(f"docs/reference/{page}.md")
        for name in public.names(page):
            thing = public.resolve(name)
            seen += 1 + len(public.members(name))
            missing += [] if inspect.getdoc(thing) else [name]
            missing += [
                f"{name}.{member}" for member in public.members(name) if not inspect.getdoc(getattr(thing, member))
            ]
    assert missing == []
    assert seen > 400


@pytest.mark.slow
@pytest.mark.parametrize(("name", "program", "wanted"), PROGRAMS, ids=[name for name, *_ in PROGRAMS])
def test_a_program_of_a_guide_prints_what_the_page_says(name, program, wanted):
    if "accelerate" in program and not clearhead.kernels.targets():
        pytest.skip("the native library was not built on this machine")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, name, "exec"), {})
    assert printed.getvalue() == wanted


def test_each_guide_has_programs_or_commands():
    assert len(PROGRAMS) >= 12
    assert all("```" in page.read_text() for page in GUIDES)
    assert all(page.read_text().count("```python") == page.read_text().count("```text") for page in GUIDES)


@pytest.mark.slow  # imports every room
def test_names_that_the_prose_gives_exist():
    """`clearhead.masks.window` was in the README, and there is no such name."""
    name = re.compile(
        r"(?<![\w/.])clearhead((?:\.[A-Za-z_]\w*)+)(?![\w/])"
    )  # a format ends in a number: clearhead.check/1
    wrong = [
        f"{page.relative_to(ROOT)}: clearhead{found}"
        for page in (*PAGES, ROOT / "README.md")
        for found in sorted(set(name.findall(page.read_text())))
        if not exists(found[1:].split("."))
    ]
    assert wrong == []


def exists(parts: list[str]) -> bool:
    thing: object = clearhead
    for number, part in enumerate(parts, 1):
        if isinstance(thing, ModuleType) and not hasattr(thing, part):
            try:
                thing = importlib.import_module(".".join(["clearhead", *parts[:number]]))
            except ModuleNotFoundError:
                return False
        elif not hasattr(thing, part):
            return isinstance(thing, property)
        else:
            thing = getattr(thing, part)
    return True


def test_lists_of_files_elsewhere_nest_as_they_do_on_github():
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: make docs")
    markdown = pytest.importorskip("markdown", reason="Python-Markdown is not installed: make docs")
    text = "- outer\n  goes on\n\n  text\n  - inner\n    goes on\n  - inner\n- outer again\n"
    page = re.sub(r"\s+|</?p>", "", markdown.markdown(tool("hooks")._nested(text)))
    inner = "<ul><li>innergoeson</li><li>inner</li></ul>"
    assert page == f"<ul><li>outergoesontext{inner}</li><li>outeragain</li></ul>"

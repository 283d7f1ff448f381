"""docs/reference has a page for each public name that names each argument; its programs print the output shown."""

import contextlib
import inspect
import io
import re
from pathlib import Path

import pytest

import clearhead

PAGES = Path(__file__).parents[3] / "docs" / "reference"
NAMES = [name for name in clearhead.__all__ if not name.startswith("_")]


@pytest.mark.parametrize("name", NAMES)
def test_each_public_name_has_a_page_that_names_its_arguments(name):
    path = PAGES / f"{name}.md"
    assert path.exists(), f"write docs/reference/{name}.md"
    text = path.read_text()
    assert text.startswith(f"# clearhead.{name}\n")
    assert f"({name}.md)" in (PAGES / "README.md").read_text()
    public = getattr(clearhead, name)
    expected = []
    if callable(public):
        expected += [p for p in inspect.signature(public).parameters if not p.startswith("_")]
    if inspect.isclass(public) and public.__module__.startswith("clearhead.multihead"):
        expected += [member for member in vars(public) if not member.startswith("_")]
    assert [word for word in expected if not re.search(rf"`[^`]*\b{word}\b[^`]*`", text)] == []


def test_no_page_is_left_of_a_removed_name():
    rooms = set(clearhead._ROOMS)  # tests/project/test_site.py checks their pages
    assert {path.stem for path in PAGES.glob("*.md")} - {"README", "command-line", "survey"} - rooms == set(NAMES)


PROGRAMS = [
    (path.stem, *actual)
    for path in sorted(PAGES.glob("*.md"))
    for actual in re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", path.read_text(), re.S)
]


@pytest.mark.parametrize(("name", "program", "expected"), PROGRAMS, ids=[name for name, *_ in PROGRAMS])
def test_the_program_prints_its_output(name, program, expected):
    if name == "accelerate" and not clearhead.kernels.targets():
        pytest.skip("the native library was not built on this machine")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(program, f"{name}.md", "exec"), {})
    assert printed.getvalue() == expected

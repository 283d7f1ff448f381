"""docs/research.md: each journey is a program of at most fifteen lines, and runs."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "research.md").read_text(encoding="utf-8")
JOURNEYS = re.findall(r"^## (.+?)\n```python\n(.+?)```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "program"), JOURNEYS, ids=[title for title, _ in JOURNEYS])
def test_a_journey_runs(title, program, capsys):
    assert len(program.strip().splitlines()) <= 15
    exec(compile(program, title, "exec"), {})
    assert capsys.readouterr().out.strip()


def test_every_program_of_the_page_is_a_journey():
    assert PAGE.count("```python") == len(JOURNEYS) == 10

"""docs/findings.md says what the models do: the page made again has the same words, and numbers as near as rounding."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d+\.\d+(?!\w)")


@pytest.mark.slow
def test_the_page_says_what_its_script_finds():
    written = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    again, pictures = runpy.run_path(str(ROOT / "tools" / "docs" / "findings.py"))["page"]()
    assert words(again) == words(written)
    assert numbers(again) == pytest.approx(numbers(written), abs=0.011)
    for picture in pictures:
        assert f"pictures/{picture}.png" in written
        assert (ROOT / "docs" / "pictures" / f"{picture}.png").exists()


@pytest.mark.stress
def test_the_part_on_the_chat_model_says_what_its_script_finds(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "docs"))
    from clearhead.local_models.chat_model import has_chat_model

    if not has_chat_model():
        pytest.skip("the chat model is not on this machine: clearhead models fetch")
    written = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    again = runpy.run_path(str(ROOT / "tools" / "docs" / "findings.py"))["chat_section"](again=True)
    section = written[written.index("## A chat model") :]
    assert words(again) == words(section)
    assert numbers(again) == pytest.approx(numbers(section), abs=0.011)


def words(page: str) -> list[str]:
    return NUMBER.sub("#", page).split()


def numbers(page: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(page)]

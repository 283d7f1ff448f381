"""Hostile packs and figures: refused with a message and a line, in bounded memory and linear time."""

import subprocess
import sys
from pathlib import Path

import pytest

from clearhead.course.pack.scaffold import new_item
from clearhead.course.proofs.figure import unsafe
from clearhead.errors import PackError

CASES = Path(__file__).with_name("hostile_packs.py")
ITEM = "items/card-word.md"
# Name -> how the refusal begins, and words of it; the others may load.
REFUSED = {
    "arrays": (f"{ITEM}:2:", "characters"), "tables": (f"{ITEM}:2:", "characters"),
    "arrays on lines": (f"{ITEM}:22:", "20 deep"), "dotted key": (f"{ITEM}:2:", "characters"),
    "short dotted key": (f"{ITEM}:2:", "more than 20 parts"), "dotted table": ("pack.toml:1:", "characters"),
    "arrays of pack.toml": ("pack.toml:1:", "characters"), "nested tables": (f"{ITEM}:2:", "20 deep"),
    "long number": (f"{ITEM}:2:", "100 characters"), "long float": (f"{ITEM}:2:", "100 characters"),
    "long hex": (f"{ITEM}:2:", "100 characters"), "long key": (f"{ITEM}:2:", "100 characters"),
    "braces": (f"{ITEM}:12:", "characters"), "braces on lines": (f"{ITEM}:1012:", "1,000 places"),
    "places": (f"{ITEM}:1012:", "1,000 places"), "digits in the stem": (f"{ITEM}:12:", "hand-typed number 999"),
    "deep math": (f"{ITEM}:12:", "60 deep"), "deep delimiters": (f"{ITEM}:12:", "60 deep"),
    "deep math of a page": ("topics/basics/read.md:3:", "60 deep"),
    "long line": (f"{ITEM}:12:", "100,001 characters"), "large file": (f"{ITEM}:", "1,200,271 bytes"),
    "not UTF-8": (f"{ITEM}:3:", "not UTF-8"), "pipe": (f"{ITEM}:", "a pipe or a device"),
    "pipe for pack.toml": ("pack.toml:", "a pipe or a device"), "folder for an item": (f"{ITEM}:", "is a folder"),
    "device": (f"{ITEM}:", "symbolic link"), "link to itself": (f"{ITEM}:", "symbolic link"),
    "link out": (f"{ITEM}:", "symbolic link"), "items elsewhere": ("items/", "symbolic link"),
    "topics elsewhere": ("topics/", "symbolic link"), "many items": ("items:", "5,000 files"),
    "svg: uses of uses": ("draws", "20,000 elements"), "svg: patterns of patterns": ("draws", "20,000 elements"),
    "svg: a chain": ("refers", "60 times"), "svg: itself": ("refers to itself", ""),
    "svg: each other": ("refers to itself", ""), "svg: many": ("has more", "20,000 elements"),
    "svg: deep": ("has elements", "60 deep"), "svg: large": ("is more", "100,000 characters"),
}  # fmt: skip


CALLS = 2_000_000  # of functions, for a pack or a figure: 1,200,000 take 0.2 s of the processor, uncounted


@pytest.fixture(scope="module")
def lines() -> list[list[str]]:
    run = subprocess.run([sys.executable, CASES], capture_output=True, text=True, check=False)
    found = [line.split("\t") for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"ended at the case after {found[-1:]}: {run.stderr[-500:]}"
    return found


@pytest.fixture(scope="module")
def outcomes(lines: list[list[str]]) -> dict[str, str]:
    return {name: said for name, _calls, said in lines}


@pytest.mark.slow
def test_none_raises_or_takes_too_much(lines: list[list[str]], outcomes: dict[str, str]) -> None:
    assert [line for line in lines if int(line[1]) > CALLS] == []
    assert outcomes["unchanged"] == "loaded: good"
    assert {name: said for name, said in outcomes.items() if not said.startswith(("loaded", "refused"))} == {}


@pytest.mark.slow
def test_refused_at_their_line(outcomes: dict[str, str]) -> None:
    wrong = {
        name: outcomes.get(name)
        for name, (start, words) in REFUSED.items()
        if not outcomes.get(name, "").startswith(f"refused: {start}") or words not in outcomes[name]
    }
    assert wrong == {}


@pytest.mark.slow
def test_a_message_is_short(outcomes: dict[str, str]) -> None:
    assert {name: len(said) for name, said in outcomes.items() if len(said) > 800} == {}


@pytest.mark.parametrize("side", ["width='1e9'", "height='50000px'", "width='10001'"])
def test_a_figure_that_is_too_large(side: str) -> None:
    assert "units in" in unsafe(f"<svg {side}><g/></svg>")


def test_a_figure_that_refers_to_parts_often_is_fine() -> None:
    marks = "<use href='#m' x='1'/>" * 500
    assert unsafe(f"<svg width='460.8pt' height='3.5e2'><defs><path id='m'/></defs>{marks}</svg>") == ""


def test_a_new_item_is_not_written_through_a_link(tmp_path: Path) -> None:
    from clearhead.course.pack.scaffold import new_pack

    pack = new_pack(tmp_path / "pack")
    (pack / "items" / "x.md").symlink_to(tmp_path / "target")
    with pytest.raises(PackError, match="symbolic link"):
        new_item(pack, "x", "card")
    assert not (tmp_path / "target").exists()

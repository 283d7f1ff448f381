"""A sweep may train models: it runs once for all who pick from its table, and none of them sees what another did."""

import shutil
from pathlib import Path

import pytest

from clearhead import course, sandbox
from clearhead.course.pack.item import Item, Pack
from clearhead.course.proofs import runner
from clearhead.course.proofs.prove import prove
from clearhead.sandbox import backend

pytestmark = pytest.mark.skipif(backend() is None, reason="no sandbox on this machine")
GOOD = Path(__file__).parents[2] / "packs" / "good"


def tuned(folder: Path, largest: str, smallest: str) -> tuple[Item, Pack]:
    """The good pack's tune item, with these programs as its distractors."""
    shutil.copytree(GOOD, folder)
    file = folder / "items" / "tune-step.md"
    text = file.read_text(encoding="utf-8").replace("2.5)", "3.0)")  # shown as 3, as a cell of the table is
    for name, program in (("largest", largest), ("smallest", smallest)):
        head, fence, rest = text.partition(f"misconception={name}-is-best\n")
        text = f"{head}{fence}{program}\n```{rest.partition('```')[2]}"
    file.write_text(text, encoding="utf-8")
    pack = course.load(folder)
    return pack.items["tune-step"], pack


def test_the_sweep_runs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item, pack = tuned(tmp_path / "pack", "answer = table[-1]['size']", "answer = table[0]['size']")
    sources: list[str] = []
    run, run_each = sandbox.run, sandbox.run_each

    def one(chunks, **options):
        sources.extend(chunk.source for chunk in chunks)
        return run(chunks, **options)

    def each(programs, **options):
        sources.extend(chunk.source for program in programs for chunk in program.chunks)
        return run_each(programs, **options)

    monkeypatch.setattr(runner.sandbox, "run", one)
    monkeypatch.setattr(runner.sandbox, "run_each", each)
    proved = prove(item, pack)
    assert sorted(option.output for option in proved.options) == ["0.1", "1", "3"]
    assert sources.count(item.role("sweep")[0].source) == len(runner.SALTS)


def test_one_pick_does_not_see_what_another_left(tmp_path: Path) -> None:
    spoils = "answer, left, start = table[-1]['size'], True, -1.0\ntable[0]['size'] = 7"
    looks = "answer = 0.5 if 'left' in globals() or start < 0 else table[0]['size']"
    proved = prove(*tuned(tmp_path / "pack", spoils, looks))
    outputs = {option.misconception: option.output for option in proved.options}
    assert outputs == {None: "1", "largest-is-best": "3", "smallest-is-best": "0.1"}
    assert "from 8?" in proved.stem

"""`clearhead check`: reproducible receipts, skipped items, messages, and speed."""

import json
import re
import resource
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from clearhead import course, sandbox
from clearhead.course.check import packs
from clearhead.course.check.packs import check
from clearhead.course.pack.loader import load
from clearhead.course.proofs import prove
from clearhead.course.proofs.figure import unsafe
from clearhead.course.proofs.proved import Option, Outcome, Proved, Receipt
from clearhead.errors import ProofError
from clearhead.sandbox.processes import cancel, pool

pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")
PACKS = Path(__file__).parents[2] / "packs"


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKS / "good", tmp_path / "good"))


@pytest.mark.slow
def test_two_runs_give_the_same_receipts_but_for_the_times(pack: Path, tmp_path: Path) -> None:
    texts = []
    for name in ("one", "two"):
        assert check([pack], fresh=True, receipts=tmp_path / name, show=lambda _: None) == 0
        text = (tmp_path / name / "good.json").read_text()
        texts.append(text[: text.index('"seconds"')])
        assert set(json.loads(text)["seconds"]) == set(json.loads(text)["items"])
    assert texts[0] == texts[1]


def test_unchanged_items_are_skipped_and_changed_ones_are_not(pack: Path, tmp_path: Path) -> None:
    said: list[str] = []
    check([pack], receipts=tmp_path, show=said.append)
    assert "them unchanged" not in " ".join(said)
    said.clear()
    check([pack], receipts=tmp_path, show=said.append)
    assert "12 of 12 items proved, 12 of them unchanged" in " ".join(said)
    item = pack / "items" / "card-sum.md"
    item.write_text(item.read_text().replace("Ones count.", "Ones do count."))
    said.clear()
    check([pack], receipts=tmp_path, show=said.append)
    assert "11 of them unchanged" in " ".join(said)
    toml = pack / "pack.toml"
    toml.write_text(toml.read_text().replace("range(n) ends with n.", "range(n) includes n."))
    said.clear()
    check([pack], receipts=tmp_path, show=said.append)
    assert "10 of them unchanged" in " ".join(said)  # the two items that name the belief are proved again


def test_a_library_version_asks_for_a_new_proof(pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = course.load(pack)
    course.prove_pack(loaded, cache=tmp_path, only="card-sum")
    assert course.prove_pack(loaded, cache=tmp_path, only="card-sum")[0].cached
    proving = sys.modules["clearhead.course.proofs.prove"]
    newer = {**proving.versions(loaded.preload), "python": "9.9.9"}
    monkeypatch.setattr(proving, "versions", lambda preload: newer)
    assert not course.prove_pack(loaded, cache=tmp_path, only="card-sum")[0].cached


def test_a_damaged_cache_is_no_cache(pack: Path, tmp_path: Path) -> None:
    loaded = course.load(pack)
    for damage in (b"", b"{}", b"[1]", b'{"key": 1, "proved": 2}', b"\xff\xfe"):
        course.prove_pack(loaded, cache=tmp_path, only="card-sum")
        (tmp_path / "good" / "card-sum.json").write_bytes(damage)
        outcome = course.prove_pack(loaded, cache=tmp_path, only="card-sum")[0]
        assert (outcome.ok, outcome.cached) == (True, False)


def test_wrong_items_are_counted_and_named(tmp_path: Path) -> None:
    said: list[str] = []
    packs = [PACKS / "broken" / "surviving-mutant", PACKS / "broken" / "bad-toml", tmp_path / "nowhere"]
    assert check(packs, receipts=tmp_path, show=said.append) == 3
    assert any("surviving-mutant/items/code-mean.md:23: this mutant survives" in one for one in said)
    assert any("bad-toml/items/card-word.md:6: not valid TOML" in one for one in said)
    assert any("is not a folder" in one for one in said)


def test_every_item_that_cannot_be_read_is_named_at_once(pack: Path, tmp_path: Path) -> None:
    """One at a time, an author would run the check as often as there are slips."""
    for name, old, new in (
        ("card-sum", 'kind = "card"', 'kind = "quiz"'),
        ("card-word", "## Rule", "## Ruel"),
        ("choice-even", "## Stem\n", "## Stem\n\nThere are 17.\n"),
    ):
        item = pack / "items" / f"{name}.md"
        assert old in item.read_text()
        item.write_text(item.read_text().replace(old, new))
    said: list[str] = []
    assert check([pack], receipts=tmp_path, show=said.append) == 3
    assert [one.partition(".md:")[0] for one in said] == [
        f"{pack}/items/{name}" for name in ("card-sum", "card-word", "choice-even")
    ]


def test_one_item(pack: Path, tmp_path: Path) -> None:
    said: list[str] = []
    assert check([pack], item="card-sum", receipts=tmp_path, show=said.append) == 0
    assert "1 of 1 items proved" in said[-1]
    assert check([pack], item="card-summ", receipts=tmp_path, show=said.append) == 1
    assert "no item 'card-summ'; it has card-sum, card-word" in said[-1]


def test_a_page_is_proved_too(pack: Path, tmp_path: Path) -> None:
    page = pack / "topics" / "basics" / "read.md"
    said: list[str] = []
    page.write_text("Text.\n\n```python run\nx = 1\n```\n\nMore.\n\n```python run\nprint(y)\n```\n")
    assert check([pack], receipts=tmp_path, show=said.append) == 1
    assert any("topics/basics/read.md:10: the program raises NameError" in one for one in said)
    page.write_text("```python run\nprint(object())\n```\n")
    assert check([pack], receipts=tmp_path, show=said.append) == 1
    assert any("read.md:2: two runs print different things" in one for one in said)
    page.write_text("```python run varies\nprint(object())\n```\n")
    assert check([pack], receipts=tmp_path, show=said.append) == 0


def test_what_one_page_leaves_behind_decides_nothing_on_another(pack: Path, tmp_path: Path) -> None:
    topic = pack / "topics" / "basics"
    (topic / "read.md").write_text("```python run\nimport math\nmath.tau += 1\nprint(int(math.tau))\n```\n")
    (topic / "why.md").write_text("```python run\nimport math\nprint(int(math.tau))\nassert math.tau < 7\n```\n")
    (topic / "recall.md").write_text("```python run\nimport json, math\njson.kept = 1\nprint(1)\n```\n")
    said: list[str] = []
    assert check([pack], receipts=tmp_path, show=said.append) == 0
    assert sum("page, 1 program run" in one for one in said) == 3
    (topic / "why.md").write_text("```python run\nimport os\nprint(1, flush=True)\nos._exit(0)\n```\n")
    (topic / "recall.md").write_text("```python run\nassert not 1, 'no'\n```\n")
    said.clear()
    assert check([pack], receipts=tmp_path, show=said.append) == 2
    assert any("recall.md:2: the program raises AssertionError: no" in one for one in said)
    assert any("why.md:2: the page's programs ended early, with exit status 0" in one for one in said)


def test_an_unchanged_page_is_not_run_again(pack: Path, tmp_path: Path) -> None:
    said: list[str] = []
    check([pack], receipts=tmp_path, show=said.append)
    assert any("basics/read  page" in one for one in said)
    said.clear()
    check([pack], receipts=tmp_path, show=said.append)
    assert not any("basics/read  page" in one for one in said)
    (tmp_path / "proofs" / "good" / "pages.json").write_text("{")
    check([pack], receipts=tmp_path, show=said.append)
    assert any("basics/read  page" in one for one in said)


def test_variants_must_differ(pack: Path) -> None:
    item = pack / "items" / "predict-range.md"
    item.write_text(item.read_text().replace("random.Random(seed).randint(3, 90)", "5"))
    outcome = course.prove_pack(course.load(pack), only="predict-range")[0]
    assert (outcome.line, outcome.error[:32]) == (7, "another seed asks and answers th")


def test_a_variant_that_fails_at_a_later_seed_is_found(pack: Path) -> None:
    item = pack / "items" / "predict-range.md"
    item.write_text(item.read_text().replace("n = random", "assert seed != 7, 'seven'\nn = random"))
    loaded = course.load(pack)
    assert course.prove_pack(loaded, only="predict-range", seeds=4)[0].ok
    found = course.prove_pack(loaded, only="predict-range")[0]
    assert found.error == "with seed 7: the program raises AssertionError: seven"
    assert found.line == item.read_text().splitlines().index("assert seed != 7, 'seven'") + 1


def test_fresh_proves_again_and_refreshes_what_is_kept(pack: Path, tmp_path: Path) -> None:
    said: list[str] = []
    check([pack], item="card-sum", receipts=tmp_path, show=said.append)
    kept = tmp_path / "proofs" / "good" / "card-sum.json"
    data = json.loads(kept.read_text())
    data["proved"]["back"] = "stale"
    kept.write_text(json.dumps(data))
    said.clear()
    check([pack], item="card-sum", fresh=True, receipts=tmp_path, show=said.append)
    assert "unchanged" not in " ".join(said)
    assert json.loads(kept.read_text())["proved"]["back"] != "stale"


def test_what_one_program_leaves_behind_decides_no_proof(pack: Path) -> None:
    """Each program of the item changes what the next would see; together they disagree, alone they hold."""
    item = pack / "items" / "predict-range.md"
    text = item.read_text().replace("variants = true", "")
    leak = "import math\nmath.tau += 1\nprint(int(math.tau), "
    item.write_text(text.replace("print(", leak))
    found = course.prove_pack(course.load(pack), only="predict-range")[0]
    assert found.proved is not None, found.error
    assert all("\n7 " in option.text for option in found.proved.options)


SPOILER = """
```python mutant misconception=ignores-scale
import math


def mean(xs):
    math.fsum = lambda xs: 0.0
    return math.fsum(xs)
```
"""
SURVIVOR = """
```python mutant misconception=ignores-scale
import math


def mean(xs):
    return math.fsum(xs) / len(xs) if xs else 0.0
```
"""


def test_a_mutant_that_survives_alone_is_not_caught_by_what_others_leave_behind(pack: Path) -> None:
    """In both orders a spoiler comes before the survivor, and would have it fail."""
    item = pack / "items" / "code-mean.md"
    item.write_text(item.read_text().replace("\n```python tests", SPOILER + SURVIVOR + SPOILER + "\n```python tests"))
    found = course.prove_pack(course.load(pack), only="code-mean")[0]
    assert found.error == "this mutant survives: the tests do not catch 'ignores-scale'"
    assert found.line == item.read_text()[: item.read_text().index(SURVIVOR)].count("\n") + 3


@pytest.mark.parametrize(
    ("item", "old", "new", "words"),
    [
        ("debug-mean", "patch lines=2\n", "patch lines=0\n", "lines=0-0; the given program has lines 1 to 2"),
        ("debug-mean", "patch lines=2\n", "patch lines=2-3\n", "lines=2-3; the given program has lines 1 to 2"),
        ("choice-even", "check misconception=adds-instead\nrest = (3", "check\nrest = (2", "every option holds"),
        ("debug-mean", 'f"mean', 'f"{hash(str(1))} mean', "two runs of the tests disagree"),
        ("code-mean", "if xs else 0.0", "if xs else __import__('random').random()", "the solution fails its tests"),
    ],
)
def test_a_change_that_undoes_the_proof_is_refused(pack: Path, item: str, old: str, new: str, words: str) -> None:
    place = pack / "items" / f"{item}.md"
    text = place.read_text().replace(old, new)
    assert text != place.read_text()
    if item == "choice-even":
        text = text.replace("right = 2", "right = 3").replace(
            "## Rationale adds-instead\n\nThree threes leave {{rest}}", ""
        )
    place.write_text(text)
    assert words in course.prove_pack(course.load(pack), only=item)[0].error


def test_judged_together_or_alone_an_item_is_proved_the_same(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = course.load(pack)
    judged = [one.id for one in loaded.items.values() if one.kind in ("code", "debug")]
    together = [course.prove_pack(loaded, only=one)[0].proved for one in judged]
    batches: list[int] = []
    monkeypatch.setattr(sandbox, "judge_each", lambda cases, **_: batches.append(len(cases)))
    alone = [course.prove_pack(loaded, only=one)[0].proved for one in judged]
    assert len(batches) == len(judged) == 2
    for one, other in zip(together, alone, strict=True):
        assert one is not None
        assert other is not None
        assert one.receipt.outcome == other.receipt.outcome


def test_a_proof_that_computes_too_much_is_not_kept(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prove, "LARGEST", 300)
    (outcome,) = prove.prove_pack(load(pack), cache=tmp_path / "cache", only="predict-error")
    assert re.match(r"its proof computes [\d,]+ characters; at most 300 are kept", outcome.error)
    assert list((tmp_path / "cache").rglob("*.json")) == []


@pytest.mark.slow
def test_no_seed_of_an_item_may_take_longer_than_its_limit(pack: Path) -> None:
    item = pack / "items" / "predict-range.md"
    slow = "import time\n\ntime.sleep(1.5 * (seed == 5))\nn = random"
    text = item.read_text().replace("n = random", slow).replace("variants = true", "variants = true\ntime_limit = 1")
    item.write_text(text)
    found = course.prove_pack(course.load(pack), only="predict-range")[0]
    assert found.error.startswith("with seed 5: stopped after 1 s")


def test_ctrl_c_stops_the_programs_in_progress(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would wait until they are done, which is their time limit at most."""
    stopped: list[bool] = []
    began = threading.Event()

    def prove_item(runner: Any) -> Any:
        if not began.is_set():
            began.set()
            event = cancel.current()
            assert event is not None
            stopped.append(event.wait(20))
        raise ProofError("not proved", file=runner.item.file)

    def interrupted(*_outcome: object) -> None:
        began.wait(20)
        raise KeyboardInterrupt

    monkeypatch.setattr(prove, "_prove", prove_item)
    monkeypatch.setattr(prove.sandbox, "warm", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        prove.prove_pack(load(pack), jobs=2, progress=interrupted)
    assert stopped == [True]


def test_watching_checks_again_after_a_change(pack: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []

    def sleep(_: float) -> None:
        (pack / "items" / "card-word.md").touch()

    def run() -> int:
        runs.append(1)
        return 0

    monkeypatch.setattr(packs.time, "sleep", sleep)
    packs.watch([pack], run, lambda _: None, rounds=3)
    assert len(runs) == 3


def outcome(number: int, longest: bool, key: str) -> Outcome:
    options = tuple(
        Option(one, "word word word" if (one == key) == longest else "word", one == key) for one in ("a", "b", "c")
    )
    proved = Proved(f"i{number}", "choice", Receipt("", 0, {}, ""), "?", "", "", options)
    return Outcome(proved.item_id, "", proved)


def test_guessing_by_length_or_place_is_reported() -> None:
    fair = [outcome(n, n % 3 == 0, "abc"[n % 3]) for n in range(9)]
    assert packs.guessable(fair) == []
    assert "longest in 9 of 9" in packs.guessable([outcome(n, True, "abc"[n % 3]) for n in range(9)])[0]
    assert "(b) in 9 of 9" in packs.guessable([outcome(n, n % 3 == 0, "b") for n in range(9)])[0]


FIGURE = """
```python figure
{draw}
```

## Hint
"""


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        ("svg = f'<svg xmlns=\"http://www.w3.org/2000/svg\"><text>{n}</text></svg>'", ""),
        ("svg = '<svg><script>x</script></svg>'", "holds a <script>"),
        ("svg = '<svg onload=\"x\"></svg>'", "holds the attribute onload"),
        ("svg = '<svg><use href=\"http://a/b\"/></svg>'", "holds the attribute href"),
        ("svg = '<svg><rect style=\"fill: url(http://a)\"/></svg>'", "refers to something outside"),
        ("svg = '<!DOCTYPE x><svg></svg>'", "is not an SVG text"),
        ("svg = '<svg><g></svg>'", "is not well-formed"),
        ("svg = '<svg>' + ' ' * 200000 + '</svg>'", "is more than"),
    ],
)
def test_figures_come_from_the_run_and_are_safe(pack: Path, draw: str, words: str) -> None:
    item = pack / "items" / "predict-range.md"
    item.write_text(item.read_text().replace("\n## Hint\n", FIGURE.format(draw=draw), 1).replace("variants = true", ""))
    found = course.prove_pack(course.load(pack), only="predict-range")[0]
    if words:
        assert words in found.error
        assert found.line == item.read_text().splitlines().index(draw) + 1
    else:
        assert found.proved is not None
        assert f"<text>{found.proved.values['n']}</text>" in found.proved.figure
        assert all(unsafe(option.figure) == "" for option in found.proved.options)


@pytest.mark.slow
def test_a_matplotlib_figure_is_the_same_twice(pack: Path) -> None:
    pytest.importorskip("matplotlib", reason="drawing needs the `views` extra")
    item = pack / "items" / "worked-square.md"
    draw = "import matplotlib.pyplot as plt\nplt.plot([0, a], [0, b])"
    item.write_text(item.read_text().replace("## Rule", f"## Programs\n\n```python figure\n{draw}\n```\n\n## Rule"))
    found = course.prove_pack(course.load(pack), only="worked-square")[0]
    assert found.proved is not None, found.error
    assert found.proved.figure.startswith("<svg")


def test_every_option_of_a_sweep_has_the_picture_of_its_own_answer(pack: Path) -> None:
    item = pack / "items" / "tune-step.md"
    draw = "svg = f'<svg xmlns=\"http://www.w3.org/2000/svg\"><text>{answer:g}</text></svg>'"
    item.write_text(item.read_text().replace("## Rule", f"## Programs\n\n```python figure\n{draw}\n```\n\n## Rule"))
    found = course.prove_pack(course.load(pack), only="tune-step")[0]
    assert found.proved is not None, found.error
    assert all(f"<text>{one.output}</text>" in one.figure for one in found.proved.options)


def _processor_seconds() -> float:
    """Of this process and of every worker and program it has waited for."""
    pool.close_all()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


@pytest.mark.stress
def test_two_hundred_torch_items_in_a_minute_of_two_cores(pack: Path) -> None:
    """Each has three programs, run twice. Processor time is counted: wall time is the machine's as much as ours."""
    text = (pack / "items" / "predict-range.md").read_text().replace("variants = true", "")
    text = text.replace("import random\n", "import random\n\nimport torch\n").replace(
        "list(range(n))", "torch.arange(n)"
    )
    toml = pack / "pack.toml"
    toml.write_text(toml.read_text().replace('version = "0.1.0"', 'version = "0.1.0"\npreload = ["torch"]'))
    for place in (pack / "items").glob("*.md"):
        place.unlink()
    for number in range(200):
        (pack / "items" / f"n-{number}.md").write_text(text.replace("predict-range", f"n-{number}"))
    before, started = _processor_seconds(), time.monotonic()
    assert all(one.ok for one in course.prove_pack(course.load(pack), jobs=2))
    wall, used = time.monotonic() - started, _processor_seconds() - before
    print(f"200 items, 1200 runs: {used:.0f} s of processor time, {wall:.0f} s by the clock")
    assert used / 2 < 60

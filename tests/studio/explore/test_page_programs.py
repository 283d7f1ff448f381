"""Programs of a page that the reader changes and runs in place."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from clearhead import sandbox
from clearhead.course import Page, Topic
from clearhead.course.proofs.pages import prove_page
from clearhead.studio.library import page_outputs
from clearhead.studio.library.library import Library
from clearhead.studio.library.page_outputs import rerun, with_outputs
from clearhead.studio.text import markdown
from studio import sample
from studio.conftest import Visitor

pytestmark = [
    pytest.mark.skipif(sandbox.backend() is None, reason=f"nothing can be run here: {sandbox.explain()}"),
    pytest.mark.slow,
]

TEXT = """Three words.

```python run
n = 3
print(n)
```

```python figure over=k at=1,2 start=1 label="How wide"
svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="{k}" height="{n}"/></svg>'
```

```python try
print(n * k)
```
"""
PAGE = Page("read", TEXT, "r.md")
PACK = sample.library().packs[0]
ADDRESS = "/topics/attention/one-head/read"


def course(cache: Path) -> Library:
    """The sample course with this page."""
    topic: Topic = replace(PACK.topics[0], pages={"read": PAGE})
    pack = replace(PACK, topics=(topic, *PACK.topics[1:]))
    text = with_outputs(PAGE, pack, cache)
    return replace(sample.library(), packs=(pack,), pages={(pack.id, topic.id, "read"): text})


@pytest.fixture
def reader(visitor: Visitor, tmp_path: Path) -> Visitor:
    visitor.context.set_library(course(tmp_path))
    return visitor


def again(place: int, source: str, seconds: float = 10) -> tuple[list[str], str]:
    outcome = rerun(PAGE, PACK, place, source, sandbox.Limits(seconds=seconds), "reader")
    return outcome.outputs, outcome.problem


def test_check_runs_what_the_reader_can_change() -> None:
    assert prove_page(PAGE, PACK) == 3
    broken = replace(PAGE, text=TEXT.replace("n * k", "n * missing"))
    with pytest.raises(Exception, match="missing"):
        prove_page(broken, PACK)


def test_a_long_program_is_folded_and_its_output_is_not(tmp_path: Path) -> None:
    long = "n = 0\n" + "n += 1\n" * page_outputs.LONGEST_OPEN + "print(n)\n"
    short = long.replace("n += 1\n", "", 2)
    text = with_outputs(Page("why", f"```python run\n{long}```\n\n```python run\n{short}```\n", "w.md"), PACK, tmp_path)
    html = str(markdown.html(text))
    assert html.count('<details class="folded">') == 1
    assert "The program: 22 lines" in html
    opened, _, after = html.partition("</details>")
    assert "print" in opened
    assert '<pre class="output"' in after.lstrip()[:40]
    assert after.count('<pre class="program"') == 1


def test_a_page_that_was_stopped_says_so_and_runs_again_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = replace(PAGE, text=TEXT.replace("svg = f'", "while k == 2: pass\nsvg = f'"))
    with monkeypatch.context() as busy:
        busy.setattr(page_outputs, "LIMITS", sandbox.Limits(seconds=2))
        shown = with_outputs(endless, PACK, tmp_path)
    assert "(stopped: it took more than 2 seconds)" in shown
    assert "```frames" not in shown  # a figure without all of its pictures is its program
    assert "while k == 2" in shown
    assert not list(tmp_path.rglob("*.json"))
    assert "```frames" in with_outputs(PAGE, PACK, tmp_path)
    assert len(list(tmp_path.rglob("*.json"))) == 1


def test_an_edited_program_runs_after_those_before_it() -> None:
    assert again(2, "print(n + k, n)") == (["5 3\n"], "")
    assert again(0, "print(6)") == (["6\n"], "")


def test_an_edited_figure_is_drawn_at_each_value_of_its_slider() -> None:
    outputs, problem = again(1, "svg = f'<svg>{k}</svg>'")
    assert (outputs, problem) == (["<svg>1</svg>", "<svg>2</svg>"], "")


@pytest.mark.parametrize(
    ("place", "source", "printed", "why"),
    [
        (2, "print(1)\nprint(zz)", ["1\n"], "Line 2: NameError"),
        (2, "print(", [""], "SyntaxError"),
        (1, "1 / 0", [], "Line 1: ZeroDivisionError"),
        (2, "import os\nos._exit(3)", [], "ended"),
    ],
)
def test_what_an_edited_program_got_wrong_is_reported(place: int, source: str, printed: list[str], why: str) -> None:
    outputs, problem = again(place, source)
    assert outputs == printed
    assert why in problem


def test_a_page_offers_its_programs_to_change(reader: Visitor) -> None:
    page = reader.get(ADDRESS)
    assert 'name="program-1"' in page
    assert 'name="program-2"' in page
    assert 'name="program-0"' not in page  # only to read
    assert page.count('form="page-programs"') == 4


def test_without_a_script_the_page_shows_what_came_of_it(reader: Visitor) -> None:
    page = reader.post(f"{ADDRESS}/run", **{"place": "2", "program-2": "print('so', n)"})
    assert '<pre class="output" tabindex="0">so 3</pre>' in page
    assert "<em>markup</em>" not in reader.post(
        f"{ADDRESS}/run", **{"place": "2", "program-2": "print('<em>markup</em>')"}
    )
    assert "set svg to a picture" in reader.post(f"{ADDRESS}/run", **{"place": "1", "program-1": "svg = '<script/>'"})


@pytest.mark.parametrize("place", ["3", "-1", "x", "", "٣", "9" * 5000])
def test_a_program_that_is_not_there_is_a_404(reader: Visitor, place: str) -> None:
    assert "no such program" in reader.post(f"{ADDRESS}/run", status=404, place=place)


def test_a_script_gets_the_outcome_as_data(reader: Visitor) -> None:
    reader.get(ADDRESS)
    fields = {"place": "1", "program-1": PAGE.text.split("\n")[8], "csrf": reader.token()}
    reply = reader.client.post(f"{ADDRESS}/run", data=fields, headers={"accept": "application/json"})
    assert reply.json()["html"].count("<svg") == 2
    assert json.loads(reply.text)["problem"] == ""

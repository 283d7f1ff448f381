"""The page of a survey says which heads do what, and its examples open in the Lens; the command prints the same as data."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner

from clearhead import cli
from clearhead.errors import ModelError
from clearhead.survey import STATISTICS, Settings, open_corpus, survey
from clearhead.survey.measuring.ablations import DISTANCE, LOSS
from clearhead.survey.report import head_grid
from clearhead.survey.report.listing import listing
from clearhead.survey.report.page import page
from clearhead.survey.report.words import TITLES, title
from survey.made import TEXTS, induction, write_lines


def row(statistic: str, layer: int, head: int, mean: float | None, **more: Any) -> dict[str, Any]:
    low, high = (None, None) if mean is None else (mean - 0.01, mean + 0.01)
    return {
        "layer": layer, "head": head, "module": f"layer.{layer}", "statistic": statistic, "texts": 97, "mean": mean,
        "variance": 0.04, "mean_low": low, "mean_high": high, "least": 0.0, "most": 1.0, "threshold": 0.5,
        "share": 0.25, "share_low": 0.2, "share_high": 0.3, "histogram": [0] * 10 + [90, 7] + [0] * 8,
        "example_texts": [3], "example_values": [0.93], "does": mean is not None and mean >= 0.5, **more,
    }  # fmt: skip


def made(text: str = "the cat sat & <b>slept</b>", given: str | None = "a/model") -> dict[str, Any]:
    rows = [row("previous_token", 0, 0, 0.75), row("previous_token", 0, 1, 0.125), row("previous_token", 1, 0, None)]
    effect = {"threshold": None, "share": None, "share_low": None, "share_high": None, "histogram": [], "does": False}
    rows += [
        row("ablation", layer, head, mean, **effect) for layer, head, mean in ((0, 0, -0.5), (0, 1, 1.0), (1, 0, 0.0))
    ]
    statistics = [
        {"name": "previous_token", "about": "weight on the token before", "does": "looks at the token before",
         "threshold": 0.5, "bounded": True},
        {"name": "ablation", "about": "what the loss gains", "does": "", "threshold": None, "bounded": False},
    ]  # fmt: skip
    return {
        "model": {"name": "a <model>", "layers": ["layer.0", "layer.1"], "heads": [2, 1], "max_length": 512, "loss": LOSS},
        "data": {"kind": "plain text"}, "settings": {}, "versions": {"survey": 1, "torch": "2.13"}, "given": given,
        "counts": {"texts": 97, "tokens": 701, "positions": 800, "batches": 1, "cut": 2, "empty": 1, "ablated": 9},
        "missed": [{"layer": "layer.2", "reason": "it is <odd>", "texts": 97}],
        "statistics": statistics, "rows": rows, "examples": {"3": text},
    }  # fmt: skip


class Reader(HTMLParser):
    """Collects links and ids, and checks that what is opened is closed."""

    VOID = ("meta", "link", "br", "path")

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values["href"] or ""] if "href" in values else []
        self.ids += [values["id"] or ""] if "id" in values else []
        assert tag not in ("script", "link", "img")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def read(content: str) -> Reader:
    reader = Reader()
    reader.feed(content)
    assert reader.open == []
    return reader


def test_the_page_stands_alone_and_its_links_lead_somewhere() -> None:
    content = page(made())
    reader = read(content)
    assert len(set(reader.ids)) == len(reader.ids)
    inside = [link[1:] for link in reader.links if link.startswith("#")]
    assert inside
    assert set(inside) <= set(reader.ids)
    assert not re.search(r"(src|@import|url\()\s*=?\s*[\"']?http", content)


def test_what_it_says() -> None:
    content = page(made())
    for words in (
        "What a &lt;model&gt;’s heads do", "3 heads in 2 layers, over 97 texts of 701 tokens", "2 texts had more than 512 tokens",
        "1 row held no text", "it is &lt;odd&gt;", "looks at the token before</a>", "0.74 to 0.76", "25%", "20% to 30%",
        "text 3: 0.93", "Wilson", "12% of the positions were padding", "next-token loss, over 9 texts. Below 0 the model does better",
    ):  # fmt: skip
        assert words in content, words
    assert "weight on the token before: 0.5 or more</small>" in content
    roles = content.partition("Which heads do what")[2].partition("</section>")[0]
    assert "head-0-0" in roles
    assert "head-0-1" not in roles


def test_a_title_belongs_to_a_statistic_and_no_two_are_alike() -> None:
    names = [statistic.name for statistic in STATISTICS]
    assert TITLES.keys() <= set(names)
    assert len({title(name) for name in names}) == len(names)


def test_a_distance_is_not_called_a_loss() -> None:
    data = made()
    data["model"]["loss"] = DISTANCE
    assert "What changes without the head: 1 - cosine of the text&#x27;s mean hidden state" in page(data)
    assert "loss" not in page(data).partition('id="ablation"')[2].partition("</p>")[0]


def test_every_section_is_linked_from_the_top() -> None:
    content = page(made())
    sections = re.findall(r'<h2 id="([^"]+)"', content)
    assert sections == ["previous_token", "ablation", "each-head", "method"]
    contents = content.partition("<nav")[2].partition("</nav>")[0]
    assert re.findall(r'href="#([^"]+)"', contents) == sections


@pytest.mark.parametrize(("given", "model"), [(None, None), ("induction", ["induction"])])
def test_examples_open_in_the_lens_at_their_head(given: str | None, model: list[str] | None) -> None:
    text = "the “cat” & <b>\n sat</b> + 1"
    reader = read(page(made(text, given), studio="https://studio.example/"))
    (address, *_) = (urlsplit(link) for link in reader.links if link.startswith("https://studio.example/lens?"))
    query = parse_qs(address.query)
    assert query["text"] == ["the “cat” & <b> sat</b> + 1"]
    assert (query["layer"], query["head"], query.get("model")) == (["0"], ["0"], model)


def test_a_text_too_long_for_an_address_is_shown_without_a_link() -> None:
    content = page(made("word " * 900))
    assert "/lens?" not in content
    assert "word word" in content


def test_the_grid_shows_every_head_and_tells_signs_apart() -> None:
    data = made()
    bounded, effects = data["statistics"]
    grid = head_grid.grid(bounded, data["rows"][:3])
    assert grid.count('class="none"') == 2  # the head without a mean, and the layer's second head that is not there
    assert "layer 0, head 0: 0.75, 25% of texts" in grid
    assert "var(--w6)" in grid
    signed = head_grid.grid(effects, data["rows"][3:])
    assert "var(--d4)" in signed
    assert "<span>-1</span><span>0</span><span>1</span>" in signed


@pytest.mark.parametrize(
    ("largest", "cells"),
    [(2.7, ["2.7", ".90", "-.34"]), (0.059, [".059", ".020", "-.007"]), (0.0007, [".0007", ".0002", "-.0001"])],
)
def test_cells_of_small_means_have_digits(largest: float, cells: list[str]) -> None:
    """The largest effect of an ablation was .06, and most coloured cells read 0."""
    rows = [row("ablation", 0, head, mean) for head, mean in enumerate((largest, largest / 3, -largest / 8))]
    assert re.findall(r"<span>(-?[\d.]+)</span></a>", head_grid.grid(made()["statistics"][1], rows)) == cells


def test_a_folder_that_holds_no_survey_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is not the folder of a survey: it has no survey.json"):
        listing(tmp_path)
    (tmp_path / "survey.json").write_text('{"format": 0}')
    with pytest.raises(ModelError, match="is of another version of Clearhead"):
        listing(tmp_path)
    (tmp_path / "survey.json").write_text("{")
    with pytest.raises(ModelError, match=r"survey.json cannot be read"):
        listing(tmp_path)


def test_a_link_to_a_head_leads_inside_its_table_which_browsers_then_open() -> None:
    content = page(made())
    targets = set(re.findall(r'href="#(head-\d+-\d+)"', content))
    assert targets
    for target in targets:
        assert re.search(
            rf'<details class="head-numbers"><summary>.*?</summary><div class="scroll" id="{target}">', content
        )


def test_an_example_that_turns_the_direction_of_writing_keeps_it_to_itself() -> None:
    assert re.search(r"<bdi><a [^>]*>\u202etxet</a></bdi><small>", page(made("\u202etxet")))


def test_results_that_were_removed_or_damaged(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="a survey is written by pyarrow: pip install 'clearhead[survey]'")
    corpus, out = open_corpus(write_lines(tmp_path)), tmp_path / "out"

    def again() -> None:
        survey("induction", corpus, out, Settings(asks=("sinks",), limit=3), ray=False, workers=1)
        assert listing(out)["rows"]

    again()
    for harm in (
        lambda: shutil.rmtree(out / "heads"),  # as after a kill at the moment when they are replaced
        lambda: shutil.rmtree(out / "heads" / "layer=1"),
        (out / "examples.parquet").unlink,
        lambda: (out / "heads" / "layer=0" / "heads.parquet").write_bytes(b"PAR1"),
    ):
        harm()
        with pytest.raises(ModelError, match=r"are not complete .* Run the command that made the survey again"):
            listing(out)
        again()


def test_the_commands(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="a survey is written by pyarrow: pip install 'clearhead[survey]'")
    data, out = write_lines(tmp_path), tmp_path / "out"

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(cli.app, ["survey", *arguments])
        assert done.exit_code == 0, done.output
        return done

    begun = run("induction", str(data), "--out", str(out), "--no-ray", "--workers", "1", "--ask", "scores")
    tokens = sum(len(induction().tokenizer(text)["input_ids"]) for text in TEXTS)
    assert begun.stdout == f"11 texts, {tokens} tokens\n"
    assert f"clearhead survey report {out}" in begun.stderr
    again = run("run", "induction", str(data), "--out", str(out), "--no-ray", "--ask", "scores", "--json")
    printed = json.loads(run("report", str(out), "--json").stdout)
    assert printed == json.loads(again.stdout)
    assert printed["format"] == "clearhead.survey/1"
    assert {row["head"] for row in printed["rows"]} == {0, 1, 2, 3}
    assert not (out / "report.html").exists()
    run("report", str(out))
    assert "/lens?" in (out / "report.html").read_text(encoding="utf-8")
    helped = run("--help").stdout
    assert "--ask" in helped
    assert "report" in helped

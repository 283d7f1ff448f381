"""Pages around the questions: settings, the learner's own data, starting over, search, notes."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from clearhead import course
from clearhead.studio.learn import home, search
from clearhead.studio.learn.search import _places
from clearhead.studio.text import excerpt
from studio import sample
from studio.conftest import Visitor
from studio.learn.test_pages import TOPIC, answer


def test_settings_are_kept_and_change_the_pages(visitor: Visitor) -> None:
    assert 'media="(prefers-color-scheme: dark)"' in visitor.get("/")
    assert "Saved." in visitor.post("/settings", theme="dark", clock="off")
    assert 'dark.css" media="all"' in visitor.get("/")
    assert 'value="off" checked' in visitor.get(f"{TOPIC}/challenge")
    visitor.post("/settings", 422, theme="pink", clock="off")


@pytest.mark.slow
def test_ones_own_data_can_be_taken_along(visitor: Visitor) -> None:
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    visitor.post("/notes", item="scale-of-logits", text="Mind the root.")
    data = json.loads(visitor.get("/settings/data.json"))
    assert [one["item_id"] for one in data["attempts"]] == ["scale-of-logits"]
    assert data["notes"] == {"scale-of-logits": "Mind the root."}


@pytest.mark.slow
def test_starting_over_sets_aside_and_can_be_taken_back(visitor: Visitor) -> None:
    assert "Start over" not in visitor.get("/settings")  # with nothing to set aside
    answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    assert "Set 1 answer aside" in visitor.get("/settings")
    visitor.post("/settings/start-over")
    assert "Bring the earlier answers back" in visitor.get("/settings")
    assert not visitor.context.progress.history
    assert "Turn the query" in visitor.get("/")
    visitor.later(minutes=1)
    answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")
    assert [one.correct for one in visitor.context.progress.history] == [True]
    visitor.post("/settings/start-over", back="true")
    assert [one.correct for one in visitor.context.progress.history] == [False, True]


@pytest.mark.parametrize(
    ("words", "found"),
    [("scale logits", "/items/scale-of-logits"), ("SOFTMAX", f"{TOPIC}/read"), ("head step", TOPIC), ("zebra", None)],
)
def test_search_finds_what_has_all_the_words(visitor: Visitor, words: str, found: str | None) -> None:
    page = visitor.get(f"/search?q={words}")
    assert ("Nothing has all" in page) is (found is None)
    if found:
        assert f'<a href="{found}' in page


@pytest.mark.slow
def test_search_shows_words_and_no_marks() -> None:
    for path in course.shipped():
        for topic in course.load(path).topics:
            for mode, page in topic.pages.items():
                shown = excerpt.plain_text(page.text)
                found = [mark for mark in ("\\", "$", "{", "|", "---", "](") if mark in shown]
                assert shown, (topic.id, mode)
                assert not found, (topic.id, mode, found)


def test_an_excerpt_keeps_cells_and_powers_apart() -> None:
    table = "| | keeps | work |\n|---|:--|---|\n| window | the last *few* | $L^2 \\times 10^{-3}$ |\n\nThen text."
    assert excerpt.plain_text(table) == "keeps · work; window · the last few · L² × 10⁻³; Then text."


def test_an_excerpt_is_of_whole_words() -> None:
    text = " ".join(f"word{n}" for n in range(99))
    words = {"…", *text.split()}
    for place in range(0, len(text), 7):
        shown = excerpt.around(text, place)
        assert set(shown.split()) - words <= ({text[place:].split(" ")[0]} if place else set())
    assert excerpt.around("word", 0) == "word"


def test_search_does_not_give_answers_away(visitor: Visitor) -> None:
    for secret in ("rationale", "belief", "counterexample", "exponentials"):
        assert "0 found" in visitor.get(f"/search?q={secret}")


def test_a_note_and_a_report_belong_to_a_question(visitor: Visitor) -> None:
    page = answer(visitor, visitor.get("/items/scale-of-logits"), "16.0")
    id = visitor.context.progress.history[0].id
    assert "items/scale-of-logits.md, rev 1" in page
    noted = visitor.post("/notes", item="scale-of-logits", text="<b>mine</b>", attempt=id)
    assert "&lt;b&gt;mine" in noted
    visitor.post("/notes", 404, item="none", text="x")
    visitor.post("/notes", 422, item="scale-of-logits", text="x" * 5001)


def test_single_letter_keys_can_be_switched_off(visitor: Visitor) -> None:
    assert 'data-keys="off"' not in visitor.get("/search")
    visitor.post("/settings", theme="light", clock="1", keys="off")
    page = visitor.get("/search")
    assert 'data-keys="off"' in page
    assert "for the keys" not in page
    assert 'name="keys" value="off" checked' in visitor.get("/settings")
    visitor.post("/settings", 422, theme="light", clock="1", keys="some")


@pytest.mark.parametrize("mode", ["walk", "experiment"])
def test_a_topic_without_this_figure_shows_no_other_topics(visitor: Visitor, mode: str) -> None:
    answer = visitor.client.get(f"/topics/attention/later/{mode}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/topics/attention/later")


@pytest.mark.parametrize("address", [f"{TOPIC}/practice", "/topics/attention/later", "/topics/attention/later/next"])
def test_a_page_that_waits_for_proofs_loads_itself_again(visitor: Visitor, address: str) -> None:
    assert 'http-equiv="refresh"' not in visitor.client.get(address).text
    whole = visitor.context.library
    visitor.context.set_library(replace(whole, proved={}, coming=5))
    assert 'http-equiv="refresh"' in visitor.client.get(address).text
    assert 'http-equiv="refresh"' not in visitor.client.get("/settings").text


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("sofmax", "softmax"),
        ("sotfmax", "softmax"),
        ("wieghts", "weights"),
        ("logitz", "logits"),
        ("softmaxx", "softmax"),
    ],
)
def test_search_tolerates_a_typo_and_says_so(visitor: Visitor, typed: str, meant: str) -> None:
    page = visitor.get(f"/search?q={typed}")
    assert f"Results shown instead: <strong>{meant}</strong>" in page
    assert f'href="{TOPIC}/read"' in page


@pytest.mark.parametrize("typed", ["softm", "logi", "weig", "sqrt d", "Scores"])
def test_search_takes_the_beginning_of_a_word_and_other_names(visitor: Visitor, typed: str) -> None:
    page = visitor.get(f"/search?q={typed}")
    assert f'href="{TOPIC}/read"' in page
    assert "Results shown instead" not in page


def test_search_does_not_guess_what_is_too_far_away(visitor: Visitor) -> None:
    assert "Nothing has all of these words" in visitor.get("/search?q=zebra")
    assert "Nothing has all of these words" in visitor.get("/search?q=xqz")


TYPED = (
    "transformer",
    "MHA",
    "sqrt d",
    "√D",
    "kv cache",
    "d_model",
    "trasnformer",
    "positional encoding",
    "LayerNorm",
    "FFN",
)


@pytest.mark.parametrize("typed", TYPED)
def test_search_finds_in_the_shipped_course_what_people_type(typed: str, visitor: Visitor) -> None:
    pack = sample.shipped_course()
    visitor.context.set_library(replace(visitor.context.library, packs=(pack,), proved={}, pages={}))
    assert visitor.get(f"/search?q={typed}").count('class="hit"') >= 2


def test_a_second_search_converts_no_text_again(visitor: Visitor) -> None:
    visitor.get("/search?q=weights")
    converted = search._plain_text.cache_info().misses
    visitor.get("/search?q=scale")
    assert search._plain_text.cache_info().misses == converted > 0


@pytest.mark.parametrize(("word", "where"), [("d", [13]), ("kv", []), ("bo", [7]), ("ot", []), ("ivi", [1])])
def test_a_short_word_is_not_looked_for_inside_others(word: str, where: list[int]) -> None:
    assert _places(word, "divide both √d by the kind") == where


def test_the_first_visit_greets_with_the_course_that_it_starts() -> None:
    [plain] = sample.library().packs
    read = course.Page("read", '```guess\ntext = "It was tired"\n```\n', "r.md")
    asks = replace(plain, topics=(replace(sample.TOPIC, pages={"read": read}),))

    def greeting(*packs: course.Pack) -> str:
        return home._guess(SimpleNamespace(library=SimpleNamespace(packs=packs)))  # type: ignore[arg-type]

    assert "It was tired" in greeting(asks, plain)
    assert greeting(plain, asks) == ""

"""Our exports, read by other people's programs, which `tools/setup/ensure-readers` installs; else tests are skipped."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from clearhead import course, sandbox
from clearhead.course import exchange
from clearhead.course.exchange.gift.write import write_gift
from clearhead.course.exchange.markup.markdown import elements, html
from clearhead.course.exchange.moodle.write import write_moodle
from clearhead.course.exchange.qti import item as qti_item
from clearhead.course.exchange.question import Question

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

READERS = Path(__file__).parents[1] / "readers"
GOOD = Path(__file__).parents[2] / "packs" / "good"
pytestmark = pytest.mark.skipif(sandbox.backend() is None, reason=f"no confinement here: {sandbox.explain()}")


def needs(name: str) -> None:
    if not (READERS / "node_modules" / name).is_dir():
        pytest.skip(f"the npm package {name}, an outside reader, is not here: run tools/setup/ensure-readers")


@pytest.fixture(scope="module")
def found() -> Sequence[Question]:
    pack = course.load(GOOD)
    return exchange.questions(pack, [one.proved for one in course.prove_pack(pack) if one.proved])


def by_gift_pegjs(place: Path) -> list[dict[str, Any]]:
    needs("gift-pegjs")
    if shutil.which("node") is None:
        pytest.skip("node, which runs the outside reader of GIFT, is not here")
    done = subprocess.run(["node", READERS / "gift.cjs"], input=place.read_text(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [one for one in json.loads(done.stdout) if one["type"] != "Category"]


@pytest.mark.slow
def test_gift_is_read_whole(found: Sequence[Question], tmp_path: Path) -> None:
    write_gift(found, "Good", tmp_path / "good.gift")
    read = by_gift_pegjs(tmp_path / "good.gift")
    assert [one["title"] for one in read] == [one.title for one in found]
    for mine, theirs in zip(found, read, strict=True):
        if mine.form != "order":
            assert theirs["stem"]["text"] == mine.asked_html
        if mine.form == "options" and sum(choice.correct for choice in mine.choices) == 1:
            assert [(one["text"]["text"], one["isCorrect"]) for one in theirs["choices"]] == [
                (html(choice.text), choice.correct) for choice in mine.choices
            ]
        if mine.form == "pairs":
            assert len(theirs["matchPairs"]) == len(mine.pairs)


def by_amc2moodle(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The questions that amc2moodle, a bridge from Moodle to printed exams, finds in a file."""
    image = ModuleType("wand.image")
    image.Image = None  # type: ignore[attr-defined]  # draws pictures with ImageMagick; there are none
    monkeypatch.setitem(sys.modules, "wand.image", image)
    reader = pytest.importorskip("amc2moodle.moodle2amc", reason="the `amc2moodle` package is not here")
    document, _counts = reader.Quiz(str(place))._reshape()
    return list(document.findall("question"))


def test_moodle_xml_is_read_as_it_was_meant(
    found: Sequence[Question], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_moodle(found, "Good", tmp_path / "good.xml")
    read = by_amc2moodle(tmp_path / "good.xml", monkeypatch)
    mine = [one for one in found if one.form in ("options", "text")]  # it prints no pairs and no orders
    assert [one.find("text").text.strip() for one in read] == [html(one.stem).strip() for one in mine]
    for ours, theirs in zip(mine, read, strict=True):
        assert theirs.get("category") == f"top-Good-{ours.topic}"
        if ours.form == "text":
            assert int(theirs.find("open").get("nlines")) >= 5
            continue
        several = sum(choice.correct for choice in ours.choices) > 1
        assert theirs.get("amctype") == ("questionmult" if several else "question"), ours.id
        assert [(one.tag == "correctchoice", one.find("text").text) for one in theirs.find("choices")] == [
            (choice.correct, html(choice.text)) for choice in ours.choices
        ]


@pytest.fixture
def player(browser: "Browser") -> "Iterator[Page]":
    """A page with a player of QTI 3 that 1EdTech has certified."""
    needs("qti3-item-player")
    page, wrong = browser.new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((READERS / "qti3.html").as_uri())
    yield page
    page.close()
    assert wrong == []


def play(page: "Page", one: Question, *, response: Sequence[str] = (), feedback: bool = False) -> None:
    """Put the item on the page; with `response`, as somebody left it who had drawn these pairs, or this order."""
    shown = [choice.key for choice in one.choices]
    lefts = [f"left-{at}" for at in range(1, len(one.pairs) + 1)]
    variable = {
        "identifier": "RESPONSE", "cardinality": "multiple" if one.pairs else "ordered", "value": list(response),
        "state": {"order": shown, "orders": [lefts, shown]},
    }  # fmt: skip
    names = ("contextVariables", "outcomeVariables", "templateVariables", "validationMessages")
    state = {"identifier": one.id, "guid": "1", "responseVariables": [variable], **{name: [] for name in names}}
    given = {"feedback": feedback, **({"state": state} if response else {})}
    page.evaluate("([xml, given]) => play(xml, given)", [qti_item(one, 3).decode().partition("?>")[2], given])


def words_of(markdown: str) -> str:
    return "".join(elements(markdown).itertext())


def score(page: "Page", one: Question, chosen: Sequence[str] = ()) -> float:
    """Choose these, end the attempt; what the player makes of it."""
    for key in chosen:
        page.click(f"[data-identifier='{key}']")
    return float(page.evaluate("score()")["SCORE"])


@pytest.mark.browser
def test_a_player_of_qti_3_shows_every_item_and_scores_as_our_key_does(
    player: "Page", found: Sequence[Question]
) -> None:
    seen = set()
    for one in found:
        play(player, one)
        words = "".join(player.inner_text("#qti-item-container").split())
        parts = [one.stem, *(choice.text for choice in one.choices), *(left for left, _ in one.pairs)]
        assert [part for part in parts if "".join(words_of(part).split()) not in words] == [], one.id
        seen.add(one.form)
        if one.form == "options":
            right = [choice.key for choice in one.choices if choice.correct]
            assert score(player, one, right) == 1, one.id
            for wrong in ([key] for key in (choice.key for choice in one.choices) if [key] != right):
                play(player, one)
                assert score(player, one, wrong) == 0, (one.id, wrong)
        elif one.form in ("pairs", "order"):
            keys = [key for _, key in one.pairs] or list(one.order)
            for answer, points in ((keys, 1), (keys[::-1], 0)):
                lefts = [f"left-{at} " for at in range(1, len(one.pairs) + 1)] or [""] * len(keys)
                play(player, one, response=[left + key for left, key in zip(lefts, answer, strict=True)])
                assert score(player, one) == points, (one.id, answer)
    assert seen == {"options", "pairs", "order", "text"}


@pytest.mark.browser
def test_a_player_of_qti_3_says_why_a_wrong_option_is_wrong(player: "Page", found: Sequence[Question]) -> None:
    one = next(one for one in found if one.id == "predict-range")
    wrong = next(choice for choice in one.choices if not choice.correct)
    play(player, one, feedback=True)
    score(player, one, [wrong.key])
    told = " ".join(player.locator(".qti-modal-feedback").all_inner_texts())
    assert "".join(words_of(wrong.feedback).split()) in "".join(told.split())


@pytest.mark.parametrize(("version", "name"), [(2, "QTI_XSD"), (3, "QTI3_XSD")])
def test_qti_is_valid_by_the_published_schema(found: Sequence[Question], version: int, name: str) -> None:
    if name not in os.environ:
        pytest.skip(f"{name} does not name the schema that 1EdTech published for QTI {version}")
    etree = pytest.importorskip("lxml.etree", reason="lxml, which reads schemas, is not here")
    schema = etree.XMLSchema(etree.parse(os.environ[name]))
    for one in found:
        schema.assertValid(etree.fromstring(qti_item(one, version)))
    assert not schema.validate(etree.fromstring(qti_item(found[0], version).replace(b"identifier=", b"id=")))

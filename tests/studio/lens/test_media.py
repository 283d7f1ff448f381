"""The Lens with words about a picture, and with words said in a sound: over HTTP, and in a browser."""

import json

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio's dependencies are not installed")

from capture.media import folders
from clearhead import capture
from studio.lens.test_lens import address, client, posted, serious, studio  # noqa: F401
from views.page.test_payload import unpack

TEXT = "a red kite flew"


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder with a model that sees, one that hears, a picture and sounds."""
    place = folders.with_media(tmp_path_factory.mktemp("media"))
    folders.sound(place / "fast.wav", rate=44_100, channels=2)
    folders.sound(place / "long.wav", 31.0)
    (place / "text.wav").write_text("no sound")
    return place


def uploaded(client, file):  # noqa: F811
    return posted(client, "/lens/picture", content=file.read_bytes())["key"]


@pytest.mark.slow
def test_words_and_a_picture_are_read_together(client, here):  # noqa: F811
    key = uploaded(client, here / "kite.png")
    model = str(here / "llava")
    last = posted(client, "/lens/read", picture=key, text=TEXT, model=model)[-1]
    assert last["payload"]["text"] == TEXT
    assert [(shown["rows"], shown["cols"]) for shown in last["payload"]["pictures"]] == [(5, 5)]
    question = json.dumps({"kind": "row", "layer": 1, "head": 2, "token": 28, "side": "query"})
    row = unpack(client.get("/lens/answer", params={"key": last["key"], "question": question}).json()["row"])
    exact = capture.read_with_picture(capture.load(model), TEXT, here / "kite.png").record
    np.testing.assert_allclose(row[0], list(exact.values())[1][0, 2, 28], atol=2e-5)
    saved = client.get("/lens/save", params={"key": last["key"], "kind": "svg", "layer": 1, "head": 2})
    assert saved.status_code == 200
    assert b"kite" in saved.content
    alone = posted(client, "/lens/read", text=TEXT, model=model)[-1]["payload"]
    assert (alone["pictures"], len(alone["tokens"])) == ([], 4)


@pytest.mark.slow
def test_words_and_a_sound_are_read_together(client, here):  # noqa: F811
    model = str(here / "whisper")
    last = posted(client, "/lens/read", sound=uploaded(client, here / "kite.wav"), text=TEXT, model=model)[-1]
    assert last["payload"]["sound"]["duration"] == 0.7
    assert last["payload"]["first"]["layer"] in (3, 5)  # from a word to a moment
    question = json.dumps({"kind": "row", "layer": 3, "head": 1, "token": 20, "side": "key"})
    row = unpack(client.get("/lens/answer", params={"key": last["key"], "question": question}).json()["row"])
    assert row.shape == (1, 5)


@pytest.mark.slow
def test_what_does_not_go_together_is_one_sentence(client, here):  # noqa: F811
    sees, hears = str(here / "llava"), str(here / "whisper")
    picture, sound, fast, text = (
        uploaded(client, here / name) for name in ("kite.png", "kite.wav", "fast.wav", "text.wav")
    )
    for wanted, said in (
        ({"picture": picture, "text": TEXT, "model": "induction"}, "reads text alone, and was given a picture"),
        ({"picture": picture, "text": TEXT, "model": hears}, "does not read a text with a picture"),
        ({"picture": picture, "text": " ", "model": sees}, "text is empty"),
        ({"picture": sound, "text": TEXT, "model": sees}, "cannot be read as a picture"),
        ({"text": f"<image> {TEXT}", "model": sees}, "no picture was given"),
        ({"text": TEXT, "model": hears}, "was given only words"),
        ({"sound": sound, "text": " ", "model": hears}, "text is empty"),
        ({"sound": sound, "text": "a " * 30, "model": hears}, "the target is 31 tokens long"),
        ({"sound": fast, "text": TEXT, "model": hears}, "44100 samples a second"),
        ({"sound": text, "text": TEXT, "model": hears}, "cannot be read as a sound"),
        ({"sound": sound, "text": TEXT, "model": "induction"}, "does not hear sound"),
        ({"sound": "gone", "text": TEXT, "model": hears}, "Choose it again"),
    ):
        assert said in posted(client, "/lens/read", **wanted)[-1]["error"], wanted


@pytest.fixture
def page(browser, address, request):  # noqa: F811
    made = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=getattr(request, "param", "dark"))
    made.set_default_timeout(60_000)
    wrong = []
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    yield made
    made.close()
    assert wrong == []


@pytest.mark.browser
@pytest.mark.parametrize("page", [pytest.param("light", marks=pytest.mark.stress), "dark"], indirect=True)
def test_a_word_shows_its_patches_and_a_patch_its_words(page, address, here):  # noqa: F811
    from playwright.sync_api import expect

    page.goto(f"{address}/lens?model={here / 'llava'}&text={TEXT}")
    page.locator(".ch-cell").first.wait_for()
    page.locator("#lens-picture").set_input_files(here / "kite.png")
    page.locator(".ch-picture").first.wait_for()
    expect(page.locator("#lens-with")).to_contain_text("With the picture kite.png.")
    page.locator(".ch-chip.ch-q", has_text="kite").click()
    heading = page.locator(".ch-list h3")
    expect(heading).to_have_text("“kite” looks at")
    opacity = (
        "canvas => Math.max(...canvas.getContext('2d').getImageData(0, 0, 5, 5).data.filter((_, i) => i % 4 === 3))"
    )
    assert page.locator(".ch-half").nth(1).locator(".ch-over").evaluate(opacity) > 0
    assert page.locator(".ch-half").nth(0).locator(".ch-over").evaluate(opacity) == 0
    # All words of the head are coloured on one scale.
    words, ends, notes = page.locator(".ch-half").nth(0).locator(".ch-chip"), set(), set()
    for word in TEXT.split():
        words.filter(has_text=word).first.click()
        ends.add(page.locator(".ch-patches .ch-scale .ch-ticks span").last.inner_text())
        notes.add(page.locator(".ch-patches figcaption p").inner_text())
    assert (len(ends), len(notes)) == (1, 1)
    assert "One scale for all words of this head" in notes.pop()
    words.filter(has_text="kite").click()
    most = page.locator(".ch-list .ch-k").first.inner_text()  # the patch that it looks at most
    box, (row, col) = page.locator(".ch-picture").nth(1), map(int, most.split(","))
    side = box.bounding_box()["width"] / 5
    box.click(position={"x": (col + 0.5) * side, "y": (row + 0.5) * side})
    expect(heading).to_have_text(f"“{most}” is looked at by")
    expect(page.locator(".ch-half").nth(0).locator(".ch-chip", has_text="kite")).to_contain_text("0.")
    page.locator("#lens-text").fill("the hill")
    page.get_by_role("button", name="Read", exact=True).click()
    page.locator(".ch-chip.ch-q", has_text="hill").wait_for()
    assert page.locator(".ch-picture").count() == 2  # other words about the same picture
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page) == []
    page.get_by_role("button", name="Leave it out").click()
    page.get_by_role("button", name="Read", exact=True).click()
    page.locator(".ch-token").first.wait_for()
    assert page.locator(".ch-picture").count() == 0


@pytest.mark.browser
@pytest.mark.parametrize("page", [pytest.param("light", marks=pytest.mark.stress), "dark"], indirect=True)
def test_a_word_shows_its_seconds_and_a_moment_its_words(page, address, here):  # noqa: F811
    from playwright.sync_api import expect

    page.goto(f"{address}/lens?model={here / 'whisper'}&text={TEXT}&layer=3&head=1&token=-1")
    says = page.locator("#lens-says")
    expect(says).to_contain_text("was given only words")
    page.locator("#lens-sound").set_input_files(here / "text.wav")
    expect(says).to_contain_text("text.wav cannot be read as a sound")
    page.locator("#lens-sound").set_input_files(here / "long.wav")
    expect(says).to_contain_text("longer than 30 seconds")
    page.locator("#lens-sound").set_input_files(here / "fast.wav")  # the browser makes it what the model hears
    page.locator(".ch-sound").first.wait_for()
    expect(says).to_contain_text("not the sound")
    heading = page.locator(".ch-list h3")
    page.locator(".ch-chip.ch-q", has_text="kite").click()
    expect(heading).to_have_text("“kite” looks at")
    expect(page.locator(".ch-strip .ch-note")).to_contain_text("silence after the sound")
    page.locator(".ch-sound").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(heading).to_have_text("“0.02\u00a0s” is looked at by")
    expect(page.locator(".ch-strip .ch-note")).to_have_text("0.02 s to 0.04 s")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page) == []

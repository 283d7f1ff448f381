"""The Lens page over HTTP and in a browser, on the demo model: the figure, the address, messages, no JavaScript."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

pytest.importorskip("fastapi", reason="the studio's dependencies are not installed")
from fastapi.testclient import TestClient

from clearhead.capture.models.folders import has_demo_model
from clearhead.studio.app import application
from clearhead.studio.lens.jobs import Job
from clearhead.studio.lens.reading_request import ReadingRequest
from clearhead.studio.lens.readings import READINGS
from clearhead.studio.library.library import Library
from clearhead.studio.web.settings import Settings
from serving import serve_app
from views.page.test_payload import unpack

SENTENCE = "The animal didn't cross the street because it was too tired"


needs_demo = pytest.mark.skipif(not has_demo_model(), reason="the demo model is not installed (make setup installs it)")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    return application.create(Settings(data=tmp_path_factory.mktemp("data"), packs=()), Library((), {}, ()))


@pytest.fixture(scope="module")
def client(studio):
    with TestClient(studio, base_url="http://127.0.0.1") as made:
        yield made


def test_the_page_comes_without_waiting_for_a_model(client):
    page = client.get("/lens", params={"text": "<b>bold</b>"})
    assert page.status_code == 200
    assert "&lt;b&gt;bold" in page.text
    assert 'http-equiv="refresh"' in page.text


@pytest.mark.slow
@needs_demo
def test_the_data_is_what_the_model_attends_to(client):
    data = client.get("/lens/data", params={"text": SENTENCE}).json()
    assert data["tokens"][2] == "animal"
    assert [layer["heads"] for layer in data["layers"]] == [12] * 6
    assert data["first"] == {"layer": 5, "head": 11, "token": 10}
    question = {"kind": "links", "layer": 5, "head": 11, "token": 10, "side": "query"}
    found = client.get("/lens/answer", params={"text": SENTENCE, "question": json.dumps(question)}).json()
    assert found["links"][0][:2] == [10, 2]
    assert found["links"][0][2] == pytest.approx(0.6466, abs=1e-3)


@needs_demo
@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"text": "  "}, "Give at least one word"),
        ({"text": "word " * 600}, "at most 512"),
        ({"text": "a word", "model": "/no/such/folder"}, "/no/such/folder does not exist"),
    ],
)
def test_bad_input_is_answered_with_what_to_do(client, params, said):
    for address in ("/lens/data", "/lens"):
        reply = client.get(address, params={**params, "plain": 1})
        assert reply.status_code == (422 if address == "/lens/data" else 200)
        assert said in (reply.json()["error"] if address == "/lens/data" else reply.text)


@needs_demo
def test_rollout_and_tiles_of_it_are_answered(client):
    data = client.get("/lens/data", params={"text": SENTENCE, "rollout": 1}).json()
    assert [layer["heads"] for layer in data["layers"]] == [1]
    question = {"kind": "links", "layer": 0, "head": 0, "token": 10, "side": "query"}
    found = client.get("/lens/answer", params={"text": SENTENCE, "rollout": 1, "question": json.dumps(question)}).json()
    assert sum(weight for _, _, weight in found["links"]) == pytest.approx(1, abs=1e-4)


def test_words_and_lines_are_answered_with_a_head_open_and_no_reason_for_a_word(client):
    about = {"text": "so it was\nso it is", "model": "induction"}
    words = client.get("/lens/data", params=about | {"units": "words"}).json()
    assert (words["units"], words["tokens"]) == ("words", ["<s>", "so", "it", "was", "so", "it", "is"])
    assert client.get("/lens/data", params=about | {"units": "lines"}).json()["tokens"] == [
        "<s>",
        "so it was",
        "so it is",
    ]
    question = {"layer": 1, "head": 0, "query": 3, "key": 1, "kind": "why"}
    answer = client.get("/lens/answer", params=about | {"units": "words", "question": json.dumps(question)})
    assert "Show tokens" in answer.json()["error"]
    assert "Use tokens, words" in client.get("/lens/data", params=about | {"units": "letters"}).json()["error"]
    page = client.get("/lens", params=about | {"units": "words", "plain": 1}).text
    assert '<th scope="row">was</th>' in page
    assert "units=words" in page  # of the links to the other heads


@pytest.mark.slow
@needs_demo
def test_two_texts_at_once_do_not_mix(client):
    texts = [f"{SENTENCE} number {n}" for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda text: client.get("/lens/data", params={"text": text}).json(), texts))
    assert [(len(reply["layers"]), reply["missed"], reply["tokens"][-2]) for reply in replies] == [
        (6, [], str(n)) for n in range(4)
    ]


def test_a_question_that_is_none_is_refused(client):
    assert client.get("/lens/answer", params={"text": "a", "question": "[]"}).status_code == 422
    assert client.get("/lens/answer", params={"text": "a", "question": "{"}).status_code == 422
    assert "no longer kept" in client.get("/lens/answer", params={"key": "none", "question": "{}"}).json()["error"]


def posted(client, path, **wanted):
    """Post as the page's script does; the lines of the answer."""
    client.get("/lens")
    token = {"x-csrf-token": client.cookies["clearhead-csrf"]}
    if path == "/lens/picture":
        return client.post(path, headers=token, content=wanted["content"]).json()
    reply = client.post(path, headers={**token, "content-type": "application/json"}, content=json.dumps(wanted))
    assert reply.status_code in (200, 204, 422)
    return [json.loads(line) for line in reply.text.splitlines()]


@needs_demo
def test_a_reading_says_how_far_it_is_and_is_asked_by_its_key(client):
    *told, last = posted(client, "/lens/read", text=SENTENCE + " to walk")
    assert {at["doing"] for at in told} <= {"waiting", "loading", "reading", "drawing"}
    question = json.dumps({"kind": "kl", "layer": 0, "head": 1, "with": [0, 2]})
    found = client.get("/lens/answer", params={"key": last["key"], "question": question}).json()
    reading = READINGS.read(READINGS.request(last["key"]), lambda *_: None)
    matrix = next(iter(reading.record.values()))
    nats = matrix.heads([1]).kl(matrix.heads([2]))[0, 0]
    assert found["mean"] == pytest.approx(float(nats.mean()), rel=1e-5)
    assert found["most"][0] == [int(nats.argmax()), pytest.approx(float(nats.max()), rel=1e-5)]


@pytest.mark.slow
@needs_demo
def test_two_models_are_compared_head_by_head(client):
    *told, last = posted(client, "/lens/read", text="Two models, one text", second="untrained")
    assert {at["doing"] for at in told} <= {"loading", "reading", "drawing", "second-loading", "second-reading"}
    other = last["payload"]["other"]
    assert other["model"] == "untrained"
    ours, theirs = READINGS.both(READINGS.request(last["key"]), lambda *_: None)
    pair = list(zip(ours.record.values(), theirs.record.values(), strict=True))
    for layer, (one, another) in enumerate(pair):
        nats = one.kl(another)[0].mean(-1).tolist()
        assert other["kl"][layer] == pytest.approx(nats, rel=1e-4)
    question = {"kind": "links", "model": 1, "layer": 0, "head": 1, "token": 2, "side": "query"}
    found = client.get("/lens/answer", params={"key": last["key"], "question": json.dumps(question)}).json()
    assert found["links"][0][2] == pytest.approx(float(pair[0][1][0, 1, 2].max()), rel=1e-4)
    assert last["key"] != posted(client, "/lens/read", text="Two models, one text")[-1]["key"]
    plain = client.get("/lens", params={"text": "Two models, one text", "second": "untrained", "plain": 1}).text
    assert "How far from untrained" in plain
    assert f"<td>{other['kl'][5][11]:.3f}</td>" in plain


@pytest.mark.slow
@needs_demo
def test_models_that_cut_the_text_elsewhere_are_refused_with_why(client):
    refused = posted(client, "/lens/read", text="Two models, one text", second="induction")[-1]["error"]
    assert "induction reads 21, so their maps cannot be compared. Compare models that share a tokenizer." in refused
    gone = posted(client, "/lens/read", text="a word", second="/no/such/folder")[-1]["error"]
    assert "/no/such/folder does not exist" in gone
    both = posted(client, "/lens/read", text="Two models", second="untrained", rollout=True)[-1]["payload"]
    assert len(both["other"]["kl"]) == 1


@pytest.mark.slow
@needs_demo
def test_a_long_text_goes_in_the_body_and_half_a_character_is_refused(client):
    assert "at most 512" in posted(client, "/lens/read", text="word " * 60_000)[-1]["error"]
    assert "half of a character" in posted(client, "/lens/read", text="\ud800")[-1]["error"]


@needs_demo
def test_who_stops_listening_stops_the_reading():
    begun, passed = threading.Event(), threading.Event()

    def tell(doing, done, _total):
        if doing == "reading" and done == 2:
            begun.set()
            passed.wait(20)

    def make(told):
        reading = READINGS.read(ReadingRequest("A text that nobody waits for"), lambda *at: (tell(*at), told(*at)))
        return {"layers": len(reading.record)}

    threads = ThreadPoolExecutor(1)
    work = Job(make, threads)
    assert begun.wait(60)
    work.stop()
    passed.set()
    assert work.ended(within=20)
    assert json.loads(work.answer) == {"error": "stopped"}
    again = READINGS.read(ReadingRequest("A text that nobody waits for"), lambda *_: None)
    assert len(again.record) == 6  # no lock, no hook is left


def test_a_fault_in_the_work_is_in_the_servers_log(caplog):
    def make(tell):
        raise KeyError("no such layer")

    work = Job(make, ThreadPoolExecutor(1))
    assert work.ended(within=20)
    assert json.loads(work.answer) == {"error": "The studio has a fault. The terminal says more."}
    assert "no such layer" in caplog.text


@pytest.mark.slow
def test_a_models_own_code_runs_only_after_consent(client, tmp_path):
    model, ran = tmp_path / "model", tmp_path / "ran"
    model.mkdir()
    (model / "config.json").write_text(json.dumps({"model_type": "odd", "auto_map": {"AutoConfig": "odd.OddConfig"}}))
    (model / "odd.py").write_text(
        f"import pathlib\npathlib.Path({str(ran)!r}).touch()\nfrom transformers import PretrainedConfig\n"
        "class OddConfig(PretrainedConfig):\n    model_type = 'odd'\n"
    )
    refused = posted(client, "/lens/read", text="a word", model=str(model))[-1]
    assert refused["consent"]
    assert not ran.exists()
    assert not client.get("/lens/data", params={"text": "a word", "model": str(model), "trust": 1}).is_success
    assert not ran.exists()
    posted(client, "/lens/trust", model=str(model))
    assert not posted(client, "/lens/read", text="a word", model=str(model))[-1]["consent"]  # it holds no weights
    assert ran.exists()


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """A folder that holds a small model of pictures with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    config = hf.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=8, image_size=28, patch_size=4
    )
    hf.ViTModel(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 28, "width": 28}).save_pretrained(folder)
    return folder


def picture(size=28):
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_an_uploaded_picture_is_read_and_forgotten_pictures_are_reported(client, vit):
    key = posted(client, "/lens/picture", content=picture())["key"]
    last = posted(client, "/lens/read", picture=key, model=str(vit))[-1]
    (shown,) = last["payload"]["pictures"]
    assert (shown["rows"], shown["cols"], shown["first"]) == (7, 7, 1)
    assert shown["src"].startswith("data:image/jpeg;base64,")
    question = json.dumps({"kind": "row", "layer": 1, "head": 2, "token": 9, "side": "query"})
    row = unpack(client.get("/lens/answer", params={"key": last["key"], "question": question}).json()["row"])
    assert row.shape == (1, 50)
    assert row.sum() == pytest.approx(1, abs=1e-3)
    assert "reads text" in posted(client, "/lens/read", picture=key)[-1]["error"]
    assert "Choose it again" in posted(client, "/lens/read", picture="gone", model=str(vit))[-1]["error"]
    assert "reads pictures" in posted(client, "/lens/read", text="a word", model=str(vit))[-1]["error"]
    assert "empty" in posted(client, "/lens/picture", content=b"")["error"]
    key = posted(client, "/lens/picture", content=b"no")["key"]
    assert "cannot be read as a picture" in posted(client, "/lens/read", picture=key, model=str(vit))[-1]["error"]


def test_a_model_without_attention_is_refused(client, tmp_path):
    hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    key = posted(client, "/lens/picture", content=picture())["key"]
    assert "no attention" in posted(client, "/lens/read", picture=key, model=str(tmp_path))[-1]["error"]


@needs_demo
def test_without_javascript_the_numbers_are_there(client):
    page = client.get("/lens", params={"text": SENTENCE, "plain": 1}).text
    assert "Layer 5, head 11" in page
    assert 'animal <span class="muted">0.647</span>' in page
    assert "<script" not in page.split('id="main"')[1]
    other = client.get("/lens", params={"text": SENTENCE, "plain": 1, "layer": 0, "head": 2}).text
    assert "Layer 0, head 2" in other


@pytest.fixture(scope="module")
def address(studio):
    yield from serve_app(studio)


@needs_demo
@pytest.mark.browser
def test_the_address_holds_the_whole_state(address, browser):
    page = browser.new_page()
    page.set_default_timeout(60_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.goto(f"{address}/lens?text=The+cat+sat+on+the+mat&layer=2&head=3")
    page.locator(".ch-cell[aria-selected=true]").wait_for()
    assert page.locator(".ch-head h2").inner_text() == "Layer 2, head 3"
    page.locator(".ch-line-query [data-token='2']").hover()
    page.locator(".ch-cell[aria-selected=true]").focus()
    page.keyboard.press("ArrowRight")
    kept = page.url
    assert all(part in kept for part in ("layer=2", "head=4", "token=2", "text=The+cat"))
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    box = page.locator("#lens-view .ch-links").bounding_box()
    assert box["height"] == page.locator(".ch-line-query .ch-token").count() * 24  # links meet their tokens
    page.goto("about:blank")
    page.goto(kept)
    page.locator(".ch-list h3").wait_for()
    assert page.locator(".ch-list h3").inner_text() == "“cat” looks at"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page, colours_alone=scheme == "dark") == [], scheme
    page.locator("#lens-units").select_option("words")
    page.locator(".ch-foot", has_text="Tokens are put together").wait_for()
    assert page.locator(".ch-head h2").inner_text() == "Layer 2, head 4"
    assert page.locator(".ch-asks").count() == 0
    assert all(part in page.url for part in ("units=words", "layer=2", "head=4"))
    page.locator("#lens-units").select_option("tokens")
    page.locator(".ch-asks").first.wait_for()
    assert "units" not in page.url
    page.get_by_text("More:").click()
    page.locator("#lens-other").fill("The dog sat on the mat")
    page.get_by_role("button", name="Read").click()
    page.locator("#lens-beside .ch-cell").first.wait_for()
    page.locator("#lens-view .ch-cell").nth(14).click()
    page.locator("#lens-beside h2", has_text="Layer 1, head 2").wait_for()
    page.locator("#lens-rollout").check()
    page.locator("#lens-beside .ch-alone").wait_for()
    assert "rollout=1" in page.url
    assert "other=The+dog" in page.url
    page.locator("#lens-text").fill("  ")
    page.evaluate("document.getElementById('lens-text').removeAttribute('required')")
    page.get_by_role("button", name="Read").click()
    page.locator(".lens-says.wrong").wait_for()
    assert "Give at least one word" in page.locator("#lens-says").inner_text()
    page.close()
    assert [said for said in wrong if "422" not in said] == []


@needs_demo
@pytest.mark.browser
@pytest.mark.parametrize("width", [390, pytest.param(1440, marks=pytest.mark.stress)])
def test_a_second_model_is_taken_away_from_the_first(address, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(60_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"{address}/lens?text=The+cat+sat+on+the+mat&second=untrained")
    page.locator(".ch-less", has_text="minus the same head of untrained. KL divergence").wait_for()
    assert page.locator(".ch-signed").count() == 2  # all heads, and the one that is open
    page.get_by_label("Order by").select_option("KL divergence")
    first = page.locator(".ch-cell").first
    first.click()
    nats = float(first.get_attribute("title").split(": ")[1])
    assert nats > float(page.locator(".ch-cell").nth(70).get_attribute("title").split(": ")[1])
    said = page.locator(".ch-less .ch-number").inner_text()
    assert float(said) == pytest.approx(nats, abs=0.006)
    assert all(part in page.url for part in ("second=untrained", "pin=other", "order=KL"))
    page.goto(page.url)
    page.locator(".ch-less", has_text="most at").wait_for()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        assert serious(page, colours_alone=scheme == "dark") == [], scheme
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="This model alone").click()
    assert page.locator(".ch-signed").count() == 0
    page.locator("#lens-second").fill("induction")
    page.get_by_role("button", name="Read").click()
    page.locator(".lens-says.wrong", has_text="share a tokenizer").wait_for()
    page.close()
    assert wrong == []


def serious(page, *, colours_alone=False):
    """What axe finds on the page as it is, in one line each."""
    pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    from browser.looking import findings

    return findings(page, colours_alone=colours_alone)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", [pytest.param("light", marks=pytest.mark.stress), "dark"])
def test_patches_are_pointed_at_in_either_picture(address, browser, vit, tmp_path, scheme):
    from playwright.sync_api import expect

    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.set_default_timeout(60_000)
    wrong = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    (tmp_path / "noise.png").write_bytes(picture(600))  # past 900 kB: made smaller before it is sent
    page.goto(f"{address}/lens?model={vit}")
    page.get_by_text("reads pictures").wait_for()
    page.locator("#lens-picture").set_input_files(tmp_path / "noise.png")
    page.locator(".ch-picture").first.wait_for()
    page.locator(".ch-picture").first.hover(position={"x": 3, "y": 3})
    assert page.locator(".ch-list h3").inner_text() == "“0,0” looks at"
    page.locator(".ch-picture").nth(1).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")

    expect(page.locator(".ch-list h3")).to_have_text("“1,1” is looked at by")
    page.locator(".ch-chip.ch-q").click()
    assert page.locator(".ch-list h3").inner_text() == "“[CLS]” looks at"
    assert "not the picture" in page.locator("#lens-says").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert serious(page) == []
    page.close()
    assert wrong == []


@pytest.mark.browser
def test_stop_stops_the_work_itself(address, browser, monkeypatch):
    stopped = threading.Event()

    def endless(_wanted, tell):
        try:
            while True:
                tell("reading", 1, 6)
                threading.Event().wait(0.02)
        finally:
            stopped.set()

    monkeypatch.setattr(READINGS, "read", endless)
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{address}/lens")
    page.get_by_text("Reading: layer 1 of 6.").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").wait_for()
    assert stopped.wait(20)
    page.close()

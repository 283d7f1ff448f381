"""The Lens page over HTTP and in a browser, on the demo model: the figure, the address, messages, no JavaScript."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import uvicorn

pytest.importorskip("fastapi", reason="the studio's dependencies are not installed")
from fastapi.testclient import TestClient

from clearhead.capture import demo_folder
from clearhead.errors import ModelError
from clearhead.studio import app
from clearhead.studio.settings import Settings
from clearhead.studio.shelf import Shelf

SENTENCE = "The animal didn't cross the street because it was too tired"


def has_demo():
    try:
        demo_folder()
    except ModelError:
        return False
    return True


needs_demo = pytest.mark.skipif(not has_demo(), reason="the demo model is not installed (make setup installs it)")


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    return app.create(Settings(data=tmp_path_factory.mktemp("data"), packs=()), Shelf((), {}, ()))


@pytest.fixture(scope="module")
def client(studio):
    with TestClient(studio, base_url="http://127.0.0.1") as made:
        yield made


def test_the_page_comes_without_waiting_for_a_model(client):
    page = client.get("/lens", params={"text": "<b>bold</b>"})
    assert page.status_code == 200
    assert "&lt;b&gt;bold" in page.text
    assert 'http-equiv="refresh"' in page.text


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
        ({"text": "a word", "model": "/no/such/folder"}, "/no/such/folder is not there"),
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
    server = uvicorn.Server(uvicorn.Config(studio, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


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
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    found = axe.Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["target"]) for one in found if one["impact"] in ("serious", "critical")] == []
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

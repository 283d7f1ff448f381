"""A page that waits for proofs in a browser: it takes over new parts, and keeps what the learner did meanwhile."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi import FastAPI
from playwright.sync_api import Page, expect

from browser.learn.test_page_figures import FIGURE
from clearhead.studio.app.application import create
from clearhead.studio.library.library import Library
from clearhead.studio.web.settings import Settings
from serving import serve_app
from studio import sample

READ = "/topics/attention/one-head/read"
GUESS = """```guess
text = "The animal slept because it was tired"
token = "it"
layer = 5
head = 11
otherwise = "It looked back."
```
"""
PROGRAM = "```python try\nprint(6 * 7)\n```\n"
LIVE = f"```live\n{json.dumps({'place': 0, 'source': 'print(6 * 7)', 'output': '42'})}\n```\n"
FRAMES = f"```frames\n{json.dumps(FIGURE)}\n```\n"
LOOKED = {
    "words": ["The", "animal", "slept", "because", "it", "was", "tired"],
    "weights": [0.1, 0.6, *[0.06] * 5],
    "at": 4,
}
POLL = 4500  # ms, a little more than a waiting page takes to ask again


@pytest.fixture
def whole() -> Library:
    """The sample course, whose first Read page has a sentence to guess at and, at its end, two programs."""
    library = sample.library()
    pack, topic = next(iter(library.topics()))
    text = f"{GUESS}\nBefore.\n\n{PROGRAM}\nBetween.\n\n```python figure\nsvg = 1\n```\n\nAfter.\n"
    topics = (replace(topic, pages={**topic.pages, "read": replace(topic.pages["read"], text=text)}), *pack.topics[1:])
    done = text.replace(PROGRAM, LIVE).replace("```python figure\nsvg = 1\n```\n", FRAMES)
    return replace(library, packs=(replace(pack, topics=topics),), pages={(pack.id, topic.id, "read"): done})


@pytest.fixture
def app(tmp_path: Path, whole: Library) -> FastAPI:
    return create(Settings(data=tmp_path), replace(whole, pages={}, proved={}, coming=5))


@pytest.fixture
def address(app: FastAPI) -> Iterator[str]:
    yield from serve_app(app)


def test_what_was_done_in_a_waiting_page_outlives_what_it_waited_for(page: Page, app: FastAPI, whole: Library) -> None:
    page.route("**/look.json*", lambda route: route.fulfill(json=LOOKED))
    page.clock.install()
    page.goto(READ)
    page.evaluate("window.same = document.querySelector('figure.guess')")
    page.get_by_role("button", name="animal").click()
    guessed = page.locator("figure.guess .says")
    expect(guessed).to_contain_text("0.6")
    page.evaluate("""() => {
      const field = Object.assign(document.createElement("input"), { id: "mine", value: "half a thought" });
      window.same.append(field); // stands for any field that does not wait
      field.focus();
    }""")
    with page.expect_response(lambda reply: reply.url.endswith(READ)):
        page.clock.fast_forward(POLL)
    expect(page.get_by_text("are still running")).to_be_visible()
    app.state.context.set_library(replace(whole, coming=3))
    page.clock.resume()
    page.clock.fast_forward(POLL)
    slider = page.get_by_role("slider")
    expect(slider).to_be_visible()
    expect(page.locator(".text")).to_contain_text("42")
    expect(page.get_by_text("are still running")).to_have_count(0)
    expect(guessed).to_contain_text("0.6")
    assert page.evaluate("window.same.isConnected && document.activeElement.id") == "mine"
    expect(page.locator("#mine")).to_have_value("half a thought")
    slider.press("End")
    expect(page.locator("figure.frames output")).to_have_text("4")
    order = page.locator(".text > *").evaluate_all("all => all.map((one) => one.className || one.textContent)")
    assert [order.index(text) for text in ("Before.", "Between.", "After.")] == sorted(
        order.index(text) for text in ("Before.", "Between.", "After.")
    )
    expect(page.locator(".live .editor-place")).to_be_visible()


def test_a_page_with_nothing_to_keep_is_loaded_once_it_is_there(page: Page, app: FastAPI, whole: Library) -> None:
    page.clock.install()
    page.goto("/topics/attention/one-head/practice")
    expect(page.get_by_text("still being computed").first).to_be_visible()
    page.evaluate("window.same = true")
    with page.expect_response(lambda reply: reply.url.endswith("/practice")):
        page.clock.fast_forward(POLL)
    assert page.evaluate("window.same")
    app.state.context.set_library(whole)
    page.clock.fast_forward(POLL)
    expect(page.locator("#question")).to_be_visible()


@pytest.mark.parametrize("look", [{"java_script_enabled": False}], indirect=True)
def test_without_javascript_the_page_loads_itself_again(page: Page) -> None:
    page.goto(READ)
    assert page.locator("meta[http-equiv=refresh]").count() == 1

"""The widget in a real notebook: marimo serves it, a browser drives it, and Python answers its questions."""

import os
import re
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clearhead import AttentionMatrix, Record
from clearhead.errors import OptionError
from views.fake import reading

pytest.importorskip("anywidget", reason="anywidget is not installed (the views extra)")
from clearhead.views.widget import AttentionWidget

NOTEBOOKS = Path(__file__).parent / "notebooks"


def answered(widget, question):
    """What the widget sends back for a question of its page."""
    sent = []
    widget.send = sent.append
    widget._answer(widget, {**question, "id": 7}, [])
    assert sent[0]["id"] == 7
    return sent[0]["answer"]


def test_python_answers_about_both_models():
    first, second = reading(7, layers=1, heads=2, seed=0), reading(7, layers=1, heads=2, seed=1)
    widget = AttentionWidget(first, second)
    assert widget.payload["other"]["model"] == "a small model"
    links = answered(widget, {"kind": "links", "model": 1, "layer": 0, "head": 1, "token": 3, "side": "query"})["links"]
    row = second.record["layer.0.attention"].weights[0, 1, 3]
    assert links[0] == [3, int(row.argmax()), pytest.approx(float(row.max()))]
    nats = answered(widget, {"kind": "kl", "model": 1, "layer": 0, "head": 1, "with": [0, 1]})
    ours, theirs = (one.record["layer.0.attention"].heads([1]) for one in (first, second))
    assert nats["mean"] == pytest.approx(float(ours.kl(theirs).mean()))
    assert widget.payload["other"]["kl"][0][1] == pytest.approx(nats["mean"], rel=1e-5)
    assert "no head 5" in answered(widget, {"kind": "kl", "layer": 0, "head": 1, "with": [0, 5]})["error"]
    assert "no second model" in answered(AttentionWidget(first), {"kind": "links", "model": 1})["error"]
    with pytest.raises(OptionError, match="share a tokenizer"):
        AttentionWidget(first, reading(5))
    with pytest.raises(OptionError, match="the texts differ or are split differently"):  # one model, two texts
        AttentionWidget(reading(["red", "blue"]), reading(["red", "green"]))


@contextmanager
def serving(notebook):
    """marimo serving a notebook on this machine alone; its address."""
    pytest.importorskip("marimo", reason="marimo is not installed (the dev extra)")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "marimo", "run", str(notebook), "--headless", "--no-token", "--port", str(port)]
    quiet = {**os.environ, "MARIMO_SKIP_UPDATE_CHECK": "1", "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=quiet, text=True)
    for line in server.stdout:  # ends with the server
        if str(port) in line:
            break
    assert server.poll() is None, "marimo did not start"
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.fixture(scope="module")
def notebook():
    with serving(NOTEBOOKS / "widget.py") as address:
        yield address


@pytest.mark.stress  # a server of notebooks; what the widget sends and receives is tested without one
@pytest.mark.browser
def test_the_widget_is_live_in_a_notebook(notebook, browser):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(120_000)
    strayed = []
    page.route(
        "**/*",
        lambda route: (
            route.continue_()
            if notebook in route.request.url or route.request.url.startswith(("data:", "blob:"))
            else (strayed.append(route.request.url), route.abort())
        ),
    )
    page.goto(notebook)
    page.locator(".ch-head h2").wait_for()
    assert page.locator(".ch-head h2").inner_text() == "Layer 0, head 1"
    colours = "it => ['--w8', '--muted'].map((name) => getComputedStyle(it).getPropertyValue(name).trim())"
    assert page.locator(".ch").evaluate(colours) == ["#00274c", "#655f56"]  # marimo has a --muted of its own

    # Zoom: a tile of weights is asked of Python, with the names of its tokens.
    for _ in range(6):
        page.get_by_role("button", name="Zoom in").click()
    page.locator(".ch-named").wait_for()
    page.locator(".ch-hatch").hover(position={"x": 5, "y": 40})
    said = re.match(r"word(\d+) → word(\d+) +([\d.]+)", page.locator(".ch-readout").inner_text())
    made = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 3, 1201, 4, generator=made) for _ in range(2))
    exact = AttentionMatrix(query, key, is_causal=True)[0, 1, int(said[1]), int(said[2])]
    assert float(said[3]) == pytest.approx(float(exact), abs=6e-4)

    # A token's strongest links are exact, and Python hears which token it is.
    page.locator(".ch-line-query [data-token='5']").focus()
    page.get_by_text("Python knows: head 1, token 5").wait_for()
    assert page.locator(".ch-list li").count() == 6  # causal: keys 0 to 5

    # Another head less a pinned one, then less the other model's, with their divergence.
    page.get_by_role("button", name="Pin to compare").click()
    page.locator(".ch-cell[title='Layer 0, head 2']").click()
    page.locator(".ch-less", has_text="nats per query, most at").wait_for()
    page.get_by_role("button", name="Unpin").click()
    page.get_by_role("button", name="Minus second").click()
    page.locator(".ch-less", has_text="minus the same head of second. KL divergence").wait_for()
    assert page.locator(".ch-signed").count() == 2  # all heads, and the one that is open
    assert strayed == []
    page.close()


def test_a_record_is_taken_as_a_page_takes_it():
    record = Record.of({"cross": AttentionMatrix(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 7, 3))})
    widget = AttentionWidget(record, tokens=list("abcdefg"), decoder_tokens=list("vwxyz"))
    queries, keys = (widget.payload["axes"][widget.payload["layers"][0][side]] for side in ("queries", "keys"))
    assert queries["tokens"] == list("vwxyz")
    assert (keys["tokens"] or widget.payload["tokens"]) == list("abcdefg")


def test_what_is_neither_a_reading_nor_a_record_is_refused():
    with pytest.raises(TypeError, match="takes a Reading or a Record, not dict"):
        AttentionWidget({})
    with pytest.raises(OptionError, match="2 tokens were given for 5 positions"):
        AttentionWidget(Record.of({"a": AttentionMatrix(*torch.randn(2, 1, 2, 5, 3))}), tokens=["a", "b"])


@pytest.mark.parametrize("name", ["induction", "an-owner/a-model-with-a-name-of-more-than-thirty-letters"])
def test_where_no_widget_can_run_its_text_says_what_to_do(name):
    widget = AttentionWidget(replace(reading(1201, layers=1, heads=1), model_name=name))
    shown = widget._repr_mimebundle_()
    shown = shown[0] if isinstance(shown, tuple) else shown
    assert re.fullmatch(r"AttentionWidget\('(…?)[a-z-]+', 1,201 tokens\): run the cell to see it", shown["text/plain"])

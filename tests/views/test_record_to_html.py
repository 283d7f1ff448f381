"""A record as one file: its numbers, its size whatever the length, what it says it left out, refusals."""

import json
import re

import numpy as np
import pytest
import torch

import fresh
from clearhead import AttentionMatrix
from clearhead.capture import Missed, Record
from clearhead.capture.positions import Axis, Positions, assumed
from clearhead.errors import OptionError
from clearhead.views.links import strongest_links
from clearhead.views.page.packing import masked_cells
from views.page.test_payload import unpack


def matrix(length, *, batch=1, heads=2, keys=None, dim=3, seed=0, **options):
    made = torch.Generator().manual_seed(seed)
    query = torch.randn(batch, heads, length, dim, generator=made)
    return AttentionMatrix(query, torch.randn(batch, heads, keys or length, dim, generator=made), **options)


def written(place, record, **options):
    html = record.to_html(place / "a.html", **options).read_text(encoding="utf-8")
    return html, json.loads(re.search(r'id="payload">(.*?)</script>', html, re.S)[1])


@pytest.mark.slow
@pytest.mark.parametrize("imported", ["import clearhead", "from clearhead.capture import Record"])
def test_no_import_of_the_views_is_needed(tmp_path, imported):
    code = f"""
{imported}
import sys
import clearhead, torch
assert "clearhead.views" not in sys.modules
q = torch.ones(1, 2, 3, 5)
print(clearhead.Record.of({{"a layer": clearhead.AttentionMatrix(q, q)}}).to_html(sys.argv[1]))
"""
    page = tmp_path / "heads.html"
    done = fresh.run(code, page)
    assert done.stdout.strip() == str(page)
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_holds_the_weights_under_the_names_given(tmp_path):
    first = matrix(7)
    html, data = written(
        tmp_path, Record.of({"one": first, "two": matrix(7, seed=1)}), tokens=list("abcdefg"), title="A <b>"
    )
    assert data["tokens"] == list("abcdefg")
    assert [layer["name"] for layer in data["layers"]] == ["one", "two"]
    np.testing.assert_allclose(unpack(data["layers"][0]["map"]), first.to_dense()[0].double(), atol=1e-5)
    assert "A &lt;b&gt;" in html
    assert data["left_out"] is None


@pytest.mark.slow
def test_a_long_text_stays_under_5_mb_and_says_what_it_left_out(tmp_path):
    record = Record.of({str(n): matrix(4099, heads=4, dim=4, seed=n, is_causal=True) for n in range(2)})
    told = []
    _, data = written(tmp_path, record, progress=lambda done, all_: told.append((done, all_)))
    assert (tmp_path / "a.html").stat().st_size < 5_000_000
    assert "means over tiles" in data["left_out"]
    hidden = masked_cells(data["layers"][0]["masked"], (4, 312, 312))[1]
    assert hidden[0, 2:].all()
    assert not hidden.diagonal().any()
    assert told == [(1, 2), (2, 2)]
    thumb, map_ = (unpack(data["layers"][0][name])[1] for name in ("thumb", "map"))
    exact = record["0"].heads([1]).pooled(*thumb.shape)[0, 0]
    np.testing.assert_allclose(thumb, exact, atol=float(exact.max()) * 0.02)  # quantised, and cells that share an edge
    assert map_.shape[0] % thumb.shape[0] == 0


def test_links_of_some_queries_are_those_of_all():
    whole, some = strongest_links(matrix(101)), strongest_links(matrix(101), 7)
    np.testing.assert_allclose(some.weights, whole.weights[:, ::7], atol=1e-6)
    assert (some.keys == whole.keys[:, ::7]).all()


def test_a_batch_calls_and_cross_attention_are_drawn_and_said(tmp_path):
    _, data = written(tmp_path, Record.of({"cross": matrix(5, batch=3, keys=11)}))
    assert data["left_out"] == "the first of a batch of 3 is drawn"
    assert data["tokens"] == [str(place) for place in range(11)]
    assert data["layers"][0]["shape"] == [5, 11]


def test_refusals_say_what_to_do(tmp_path):
    record = Record.of({"one": matrix(5)})
    with pytest.raises(OptionError, match="2 tokens were given for 5 positions"):
        record.to_html(tmp_path / "a.html", tokens=["a", "b"])
    with pytest.raises(OptionError, match="folder that exists"):
        record.to_html(tmp_path / "missing" / "a.html")
    with pytest.raises(OptionError, match="inside the `with observe"):
        Record().to_html(tmp_path / "a.html")
    with pytest.raises(OptionError, match="own softmax"):
        Record(missed=[Missed("odd", "own softmax")]).to_html(tmp_path / "a.html")


def axes(data, layer):
    """The names along a layer's rows and columns, and where they begin."""
    of = [data["axes"][data["layers"][layer][side]] for side in ("queries", "keys")]
    return [(axis["sequence"], axis["tokens"] or data["tokens"], axis["start"]) for axis in of]


def steps(lengths, heads=2, dim=3):
    """A record of one generation: a prompt, then one query a call."""
    made = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, heads, lengths[-1], dim, generator=made)
    record, start = Record(), 0
    for stop in lengths:
        part = AttentionMatrix(query[:, :, start:stop], key[:, :, :stop], reach=(None, start))
        record._add_matrix("a", part, assumed(stop - start, stop, start))
        start = stop
    return record, AttentionMatrix(query, key, is_causal=True)


@pytest.mark.parametrize("more", [0, 1], ids=["what was read", "with the last one generated"])
def test_a_generation_is_drawn_whole_under_its_own_tokens(tmp_path, more):
    record, whole = steps([5, 6, 7])
    _, data = written(tmp_path, record, tokens=list("abcdefgh")[: 7 + more])
    assert axes(data, 0) == [("input", list("abcdefg"), 0)] * 2
    np.testing.assert_allclose(unpack(data["layers"][0]["map"]), whole.to_dense()[0].double(), atol=1e-4)
    assert data["left_out"] is None


def test_one_step_is_named_by_its_place_in_the_text(tmp_path):
    record, _ = steps([5, 6, 7])
    step = Record.of({"a": record["a"]}, {"a": record.positions("a")[-1]})
    _, data = written(tmp_path, step, tokens=list("abcdefg"))
    assert axes(data, 0) == [("input", ["g"], 6), ("input", list("abcdefg"), 0)]


def test_a_decoder_has_tokens_of_its_own(tmp_path):
    cross = Record.of({"cross": matrix(5, keys=11)})
    _, data = written(tmp_path, cross, tokens=list("abcdefghijk"), decoder_tokens=list("vwxyz"))
    assert axes(data, 0) == [("decoder", list("vwxyz"), 0), ("input", list("abcdefghijk"), 0)]
    _, data = written(tmp_path, cross, tokens=list("abcdefghijk"))
    assert axes(data, 0)[0] == ("decoder", ["0", "1", "2", "3", "4"], 0)
    with pytest.raises(OptionError, match="11 decoder_tokens were given for 5 positions of the decoder"):
        cross.to_html(tmp_path / "a.html", decoder_tokens=list("abcdefghijk"))


def test_calls_that_are_not_drawn_are_named_where_it_is_called(tmp_path):
    record = Record()
    for seed in range(2):
        record._add_matrix("a", matrix(5, seed=seed), Positions(*[Axis("input", range(5))] * 2, text=seed))
    with pytest.warns(RuntimeWarning, match="1 of its 2 calls are left out: they belong to an earlier text"):
        _, data = written(tmp_path, record)
    assert data["missed"] == [{"name": "a", "reason": "1 of its 2 calls are left out: they belong to an earlier text"}]
    np.testing.assert_allclose(unpack(data["layers"][0]["map"]), matrix(5, seed=1).to_dense()[0].double(), atol=1e-4)


def test_bytes_are_shown_as_letters(tmp_path):
    _, data = written(tmp_path, Record.of({"a": matrix(3)}), tokens=["the", "ĠcafÃ©", "ĠæĹ¥æľ¬"])
    assert data["tokens"] == ["the", " café", " 日本"]

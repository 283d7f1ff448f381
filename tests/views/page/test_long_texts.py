"""Long texts: an outline that is marked as such, and parts that join to the exact map."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.views.comparison import divergences
from clearhead.views.page import long_texts
from clearhead.views.page.packing import masked_cells
from clearhead.views.page.payload import payload
from clearhead.views.page.questions import answer
from views.fake import Reading, Record
from views.page.test_payload import unpack

LENGTH, HEADS = 401, 3


def lazy(seed=0, **options):
    made = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(1, HEADS, LENGTH, 5, generator=made) for _ in range(2))
    return Reading(Record(one=AttentionMatrix(query, key, **options)), [f"t{i}" for i in range(LENGTH)])


@pytest.fixture(autouse=True)
def soon_long(monkeypatch):
    """What is long begins at a few thousand weights: 401 × 401 come in twelve parts."""
    monkeypatch.setattr(long_texts, "WORK", 15_000)
    monkeypatch.setattr(long_texts, "LONG", 60_000)


def ask(given, second=None, **question):
    return answer(given, {"layer": 0, "head": 1, **question}, second)


def in_parts(given, second=None, **question):
    first = ask(given, second, **question)
    return first, [ask(given, second, **question, part=[i, first["parts"]]) for i in range(first["parts"])]


def dense(given):
    return given.record["one"].to_dense()[0, 1].double().numpy()


def test_the_parts_of_a_tile_join_to_its_means():
    given = lazy(is_causal=True)
    first, parts = in_parts(given, kind="tile", rows=[0, LENGTH], cols=[7, LENGTH], cells=192)
    assert first["parts"] == 12
    assert first["few"] == 1
    joined = np.concatenate([unpack(part["map"])[0] for part in parts])
    assert joined.shape == (192, 192)
    weights, rows = dense(given)[:, 7:], [row * LENGTH // 12 for row in range(13)]
    expected = [
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(weights[a:b])[None], (16, 192))[0].numpy()
        for a, b in pairwise(rows)
    ]
    np.testing.assert_allclose(joined, np.concatenate(expected), atol=1e-5)


def test_the_outline_of_a_tile_is_of_its_own_rows():
    given = lazy()
    outline = unpack(ask(given, kind="tile", rows=[100, 390], cols=[0, LENGTH], cells=192)["map"])[0]
    first = [100 + cell * 290 // 192 for cell in range(192)]
    expected = torch.nn.functional.adaptive_avg_pool1d(torch.from_numpy(dense(given)[first]), 192)
    np.testing.assert_allclose(outline, expected, atol=1e-5)


def test_a_small_tile_of_a_long_matrix_is_exact_at_once():
    given = lazy()
    found = ask(given, kind="tile", rows=[300, 331], cols=[11, 30], cells=192)
    assert "parts" not in found
    np.testing.assert_allclose(unpack(found["map"])[0], dense(given)[300:331, 11:30], atol=1e-5)


def test_links_of_a_key_come_in_parts_and_those_of_a_query_at_once():
    given = lazy()
    _, parts = in_parts(given, kind="links", token=7, side="key")
    links = sorted((link for part in parts for link in part["links"]), key=lambda link: -link[2])[:64]
    column = dense(given)[:, 7]
    assert [query for query, _, _ in links] == np.argsort(-column, kind="stable")[:64].tolist()
    assert [weight for _, _, weight in links] == pytest.approx(sorted(column, reverse=True)[:64], rel=1e-5)
    row = ask(given, kind="links", token=7, side="query")["links"]
    assert [weight for _, _, weight in row] == pytest.approx(sorted(dense(given)[7], reverse=True)[:64], rel=1e-5)


def test_kl_comes_in_parts_that_join_to_the_mean():
    given, second = lazy(0), lazy(1)
    _, parts = in_parts(given, second, kind="kl", model=1, **{"with": [0, 2]})
    nats = given.record["one"].heads([1]).kl(second.record["one"].heads([2]))[0, 0]
    mean = sum(part["mean"] * part["queries"] for part in parts) / LENGTH
    assert mean == pytest.approx(float(nats.mean()), rel=1e-5)
    most = max((one for part in parts for one in part["most"]), key=lambda one: one[1])
    assert most == [int(nats.argmax()), pytest.approx(float(nats.max()), rel=1e-4)]


def test_nothing_long_is_worked_out_for_an_answer():
    """Each answer computes only a share of the matrix: none needs the lse of the whole."""
    given = lazy()
    in_parts(given, kind="tile", rows=[0, LENGTH], cols=[0, LENGTH], cells=192)
    in_parts(given, kind="links", token=7, side="key")
    ask(given, kind="links", token=7, side="query")
    payload(given, live=True)
    assert given.record["one"]._lse is None


def test_a_first_picture_is_an_outline_and_says_so():
    given = lazy(is_causal=True)
    quick, whole = payload(given, live=True), payload(given)
    layer, exact = quick["layers"][0], whole["layers"][0]
    assert (layer["few"], exact["few"]) == (1, 0)
    side = layer["map"]["shape"][1]
    assert side == 20
    assert layer["links"]["stride"] == 21
    hidden = masked_cells(layer["masked"], (HEADS, side, side))[0]
    assert hidden[0, 2:].all()
    assert not hidden.diagonal().any()
    weights, keys = unpack(layer["links"]["weights"]), unpack(layer["links"]["keys"]).astype(int)
    for row in (0, 3, 19):
        expected = given.record["one"][0, 2, row * 21].double().numpy()
        np.testing.assert_allclose(weights[2, row], np.sort(expected)[::-1][:8], atol=1e-4)
        np.testing.assert_allclose(expected[keys[2, row]], weights[2, row], atol=1e-4)
    ours, theirs = (one["scores"]["breadth"]["values"][0] for one in (quick, whole))
    assert ours == pytest.approx(theirs, abs=0.05)
    assert quick["left_out"] is None
    assert set(quick["scores"]) == {"breadth"}


def test_a_second_model_is_outlined_too():
    given, second = lazy(0), lazy(1)
    quick = payload(given, second=second, live=True)["other"]
    assert quick["layers"][0]["few"] == 1
    assert quick["kl"][0] == pytest.approx(divergences(given, second)[0], rel=0.1)


def test_a_part_that_makes_no_sense_is_refused():
    for part in ([0, 5], [4, 4], "all", [1]):
        with pytest.raises(OptionError, match="part"):
            ask(lazy(), kind="links", token=7, side="key", part=part)


def test_a_short_text_has_neither_outline_nor_parts(monkeypatch):
    monkeypatch.setattr(long_texts, "WORK", 2**28)
    monkeypatch.setattr(long_texts, "LONG", 2**30)
    given = lazy()
    assert payload(given, live=True)["layers"][0]["few"] == 0
    assert "parts" not in ask(given, kind="tile", rows=[0, LENGTH], cols=[0, LENGTH], cells=192)
    assert "links" in ask(given, kind="links", token=7, side="key")

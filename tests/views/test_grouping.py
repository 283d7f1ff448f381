"""Tokens put together into words and lines: which tokens, the weights between them, and every view of them."""

import pytest
import torch

from clearhead import capture
from clearhead.errors import OptionError
from clearhead.views import grouping
from clearhead.views.grouping import GroupedMatrix, grouped, groups, spaced
from clearhead.views.listing import listing
from clearhead.views.page.payload import payload
from clearhead.views.page.questions import answer
from clearhead.views.page.saving import saved
from clearhead.views.rollout import rolled

LINES = "the lighthouse keeper\nwrote: the lighthouse keeper"


@pytest.fixture(scope="module")
def reading():
    return capture.read(capture.load("induction"), LINES)


def joined(pieces: list[str], units: str) -> list[str]:
    return ["".join(pieces[place] for place in group) for group in groups(pieces, [False] * len(pieces), units)]


@pytest.mark.parametrize(
    ("pieces", "words", "lines"),
    [
        (["The", " didn", "'", "t", " go", "."], ["The", " didn't", " go."], ["The didn't go."]),
        (["a", " ", "b", "\n", "c"], ["a", " b", "\nc"], ["a b\n", "c"]),
        (["It", " fell", ".", "\nIt", " hurt"], ["It", " fell.", "\nIt", " hurt"], ["It fell.", "\nIt hurt"]),
        (["x ", "y\n\n", "z"], ["x ", "y\n\n", "z"], ["x y\n\n", "z"]),
        (["今日", "は", " ", "晴", "れ"], ["今日", "は", " 晴", "れ"], ["今日は 晴れ"]),
        (["日", "", "本"], ["日", "本"], ["日本"]),
    ],
)
def test_tokens_are_put_together_as_people_read_them(pieces, words, lines):
    assert joined(pieces, "words") == words
    assert joined(pieces, "lines") == lines


def test_special_tokens_and_two_texts_stay_apart():
    pieces = ["", "un", "known", "", "un", "known", ""]
    special = [True, False, False, True, False, False, True]
    places = groups(pieces, special, "lines", [0, 0, 0, 0, 1, 1, 1])
    assert [list(group) for group in places] == [[0], [1, 2], [3], [4, 5], [6]]
    assert len(groups(["a", "b"], [False, False], "lines", [0, 1])) == 2
    assert spaced(["[CLS]", "un", "##known"], [True, False, False]) == [" [CLS]", " un", "known"]


@pytest.mark.parametrize("units", ["words", "lines"])
def test_weights_from_a_group_are_the_mean_and_to_a_group_the_sum(reading, units):
    result = grouped(reading, units)
    places = groups(reading.pieces, reading.special, units)
    first, last = ("the", "keeper") if units == "words" else ("the lighthouse keeper", "wrote: the lighthouse keeper")
    assert (result.tokens[1], result.tokens[-1]) == (first, last)
    for name, matrix in reading.record.items():
        dense = matrix.to_dense()[0]
        expected = torch.stack([
            torch.stack([dense[:, list(rows)][:, :, list(cols)].sum(-1).mean(-1) for cols in places], -1)
            for rows in places
        ], 1)  # fmt: skip
        torch.testing.assert_close(result.record[name].to_dense()[0], expected)
        torch.testing.assert_close(expected.sum(-1), torch.ones(expected.shape[:2]))


def test_every_view_takes_it(reading):
    result = grouped(reading, "words")
    data = payload(result, second=result, live=True)
    assert (data["units"], data["tokens"][2]) == ("words", "lighthouse")
    assert data["other"]["kl"] == [[0.0] * 4] * 2
    assert set(data["scores"]) == {"breadth", "reach"}
    assert listing(result, layer=1, head=2)["tokens"] == result.tokens
    assert b"lighthouse" in saved(result, "csv", layer=1, head=2)
    question = {"layer": 1, "head": 0, "token": 2, "side": "key"}
    links = answer(result, {"kind": "links", **question})["links"]
    assert {key for _, key, _ in links} == {2}
    assert answer(result, {"kind": "tile", "layer": 1, "head": 0, "rows": [0, 3], "cols": [1, 4], "cells": 9})["map"]
    with pytest.raises(OptionError, match="Show tokens"):
        answer(result, {"kind": "why", "layer": 1, "head": 0, "query": 2, "key": 1})
    assert grouped(rolled(reading), "words").record["rollout of all layers"].shape == (1, 1, 8, 8)


def test_a_decoder_and_keys_that_are_no_tokens_have_groups_of_their_own():
    weights = torch.rand(1, 2, 3, 5)
    matrix = GroupedMatrix(weights)
    assert matrix.heads([1]).shape == (1, 1, 3, 5)
    distance = (weights * (torch.arange(3.0)[:, None] + 2 - torch.arange(5.0)).abs()).sum(-1)
    torch.testing.assert_close(matrix.mean_distance(offset=2), distance)


def test_what_cannot_be_put_together_is_refused(reading, monkeypatch):
    assert grouped(reading, "tokens") is reading
    with pytest.raises(OptionError, match="Use tokens, words or lines"):
        grouped(reading, "letters")
    monkeypatch.setattr(grouping, "MOST", 2 * 4 * 8 * 8 - 1)
    with pytest.raises(OptionError, match="have 512 weights in all heads, and at most 511"):
        grouped(reading, "words")
    assert len(grouped(reading, "lines").tokens) == 3

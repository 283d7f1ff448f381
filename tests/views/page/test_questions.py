"""Tiles and links asked for while one zooms and points, and the notebook widget that passes them on."""

import numpy as np
import pytest
import torch

from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix
from clearhead.views.page.packing import masked_cells
from clearhead.views.page.questions import answer
from clearhead.views.rollout import rolled
from views.fake import Reading, Record, reading
from views.page.test_payload import unpack


def lazy(length=41, **options):
    generator = torch.Generator().manual_seed(length)
    query, key = (torch.randn(1, 3, length, 5, generator=generator) for _ in range(2))
    return Reading(Record(one=AttentionMatrix(query, key, **options)), [f"t{i}" for i in range(length)])


def tile(given, rows, cols, cells=64, head=1):
    return answer(given, {"kind": "tile", "layer": 0, "head": head, "rows": rows, "cols": cols, "cells": cells})


def test_a_small_region_comes_whole():
    given = lazy()
    found = unpack(tile(given, [5, 18], [11, 22])["map"])
    dense = given.record["one"].to_dense()[0, 1].double().numpy()
    np.testing.assert_allclose(found[0], dense[5:18, 11:22], atol=1e-5)


@pytest.mark.parametrize("make", [lambda: lazy(41), lambda: rolled(lazy(41))])
def test_a_large_region_comes_as_means(make):
    given = make()
    (matrix,) = given.record.values()
    head = matrix.shape[1] - 1
    found = unpack(tile(given, [1, 37], [3, 39], cells=6, head=head)["map"])
    part = matrix.to_dense()[0, head, 1:37, 3:39].double().numpy()
    np.testing.assert_allclose(found[0], part.reshape(6, 6, 6, 6).mean((1, 3)), atol=1e-5)


def test_masked_cells_of_a_tile_are_those_of_the_matrix():
    given = lazy(is_causal=True)
    hidden = np.triu(np.ones((41, 41), dtype=bool), 1)
    for rows, cols in (([0, 9], [0, 9]), ([5, 14], [7, 16]), ([20, 30], [0, 10])):
        said = tile(given, rows, cols)["masked"]
        np.testing.assert_array_equal(
            masked_cells(said, (1, rows[1] - rows[0], cols[1] - cols[0]))[0], hidden[slice(*rows), slice(*cols)]
        )


@pytest.mark.parametrize("side", ["query", "key"])
def test_links_are_exact_and_strongest_first(side):
    given = lazy()
    dense = given.record["one"].to_dense()[0, 2]
    found = answer(given, {"kind": "links", "layer": 0, "head": 2, "token": 7, "side": side})["links"]
    line = dense[7] if side == "query" else dense[:, 7]
    assert [weight for _, _, weight in found] == pytest.approx(line.sort(descending=True).values.tolist())
    assert all(dense[query, key] == pytest.approx(weight) for query, key, weight in found)


@pytest.mark.parametrize(
    "question",
    [
        {"kind": "tile", "layer": 0, "head": 9, "rows": [0, 4], "cols": [0, 4], "cells": 4},
        {"kind": "tile", "layer": 0, "head": 0, "rows": [50, 60], "cols": [0, 4], "cells": 4},
        {"kind": "tile", "layer": 0, "head": 0, "rows": "all", "cols": [0, 4], "cells": 4},
        {"kind": "tile", "layer": -1, "head": 0, "rows": [0, 4], "cols": [0, 4], "cells": 4},
        {"kind": "links", "layer": 0, "head": 0, "token": 99, "side": "query"},
        {"kind": "links", "layer": 0, "head": 0, "token": True, "side": "query"},
        {"kind": "weather", "layer": 0, "head": 0},
        {},
    ],
)
def test_a_question_that_makes_no_sense_is_refused(question):
    with pytest.raises(OptionError):
        answer(lazy(), question)


def test_the_widget_answers_under_the_number_asked():
    widget = pytest.importorskip("clearhead.views.widget", reason="anywidget is not installed")
    shown = widget.AttentionWidget(reading(["a", "b", "c"], layers=2, heads=2), layer=1, head=0)
    sent = []
    shown.send = sent.append
    shown._answer(shown, {"id": 3, "kind": "links", "layer": 1, "head": 0, "token": 2, "side": "query"}, [])
    shown._answer(shown, {"id": 4, "kind": "links", "layer": 8, "head": 0, "token": 2, "side": "query"}, [])
    assert sent[0]["id"] == 3
    assert len(sent[0]["answer"]["links"]) == 3
    assert "layers 0 to 1" in sent[1]["answer"]["error"]
    assert (shown.layer, shown.head) == (1, 0)
    assert "export default" in shown._esm

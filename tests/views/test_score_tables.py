"""Scores and rollout against their definitions, on dense weights and on a real AttentionMatrix."""

import numpy as np
import pytest
import torch

from clearhead import capture
from clearhead.matrix import AttentionMatrix
from clearhead.views.maps import tiles
from clearhead.views.page.payload import payload
from clearhead.views.rollout import rolled
from clearhead.views.score_tables import ABOUT, Table, tables
from views.fake import DenseMatrix, reading


def table(name, given):
    """One score as an array (layers, heads)."""
    return np.array(next(table.values for table in tables(given) if table.name == name), dtype=float)


def test_breadth_and_reach_follow_their_definitions():
    given = reading(11, layers=2, heads=3)
    for layer, matrix in enumerate(given.record.values()):
        for head, weights in enumerate(matrix.weights[0].double().numpy()):
            entropy = np.mean([-sum(w * np.log(w) for w in row if w > 0) for row in weights])
            assert table("breadth", given)[layer, head] == pytest.approx(entropy / np.log(11), abs=1e-5)
            places = np.arange(11)
            far = np.mean((weights * np.abs(places[:, None] - places)).sum(1))
            assert table("reach", given)[layer, head] == pytest.approx(far, abs=1e-4)


def test_the_scores_of_a_reading_are_those_of_capture():
    given = lazy_reading(13)
    rows = capture.scores(given)
    for name in ("previous token", "first token", "induction", "positional", "breadth"):
        expected = [getattr(row, name.replace(" ", "_")) for row in rows]
        np.testing.assert_allclose(table(name, given).flatten(), expected, atol=1e-6)
    assert {score.name for score in tables(given)} <= set(ABOUT)


def test_a_score_that_no_head_has_is_left_out_and_the_rest_is_ranked():
    assert "separator" not in {score.name for score in tables(lazy_reading(7))}
    score = Table("breadth", "", [[0.2, None], [0.9, 0.2]])
    assert score.ranked() == [(0.9, 1, 0), (0.2, 0, 0), (0.2, 1, 1)]


def lazy_reading(length):
    generator = torch.Generator().manual_seed(length)
    matrices = {}
    for layer in range(3):
        query, key = (torch.randn(1, 2, length, 5, generator=generator) for _ in range(2))
        matrices[f"layer.{layer}"] = AttentionMatrix(query, key)
    record = capture.Record.of(matrices)
    tokens = [f"t{i % 5}" for i in range(length)]
    return capture.Reading(record, tokens, "small", [i % 5 for i in range(length)], [False] * length, [0] * length)


@pytest.mark.parametrize("length", [7, 131])
def test_rollout_is_the_product_of_the_layers(length):
    given = lazy_reading(length)
    product = np.eye(length)
    for matrix in given.record.values():
        product = (0.5 * np.eye(length) + 0.5 * matrix.to_dense()[0].double().mean(0).numpy()) @ product
    out = rolled(given)
    (matrix,) = out.record.values()
    np.testing.assert_allclose(matrix.to_dense()[0, 0], product, atol=1e-5)
    values, places = matrix.topk(3)
    np.testing.assert_allclose(values[0, 0], -np.sort(-product)[:, :3], atol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(product, places[0, 0].numpy(), 1), values[0, 0], atol=1e-5)
    pooled = DenseMatrix(torch.tensor(product)[None, None]).pooled(5, 3)
    np.testing.assert_allclose(matrix.pooled(5, 3), pooled, atol=1e-5)
    assert payload(out)["layers"][0]["name"] == "rollout of all layers"
    np.testing.assert_allclose(tiles(matrix, 999, 999)[0], product, atol=1e-5)
    (row,) = table("breadth", out)
    entropy = -(product * np.log(np.maximum(product, 1e-30))).sum(1).mean()
    assert row[0] == pytest.approx(entropy / np.log(length), abs=1e-4)


def test_rollout_keeps_what_was_missed():
    given = reading(5)
    with pytest.raises(AttributeError):  # the stand-in cannot be multiplied, and says so itself
        rolled(given).record["rollout of all layers"].to_dense()
    assert rolled(lazy_reading(5)).record.missed == []

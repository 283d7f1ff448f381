"""Scores and rollout against their definitions, on dense weights and on a real AttentionMatrix."""

import numpy as np
import pytest
import torch

from clearhead.matrix import AttentionMatrix
from clearhead.views.payload import payload, tiles
from clearhead.views.rolled import rolled
from clearhead.views.scores import SCORES
from views.fake import DenseMatrix, Reading, Record, reading


def table(name, matrix):
    return next(score for score in SCORES if score.name == name).table([matrix])[0]


@pytest.fixture(params=["dense", "lazy"])
def matrix(request):
    """The same weights, stored and not stored."""
    generator = torch.Generator().manual_seed(3)
    query, key = (torch.randn(1, 5, 11, 7, generator=generator) for _ in range(2))
    lazy = AttentionMatrix(query, key, is_causal=True)
    return lazy if request.param == "lazy" else DenseMatrix(lazy.to_dense())


def test_scores_follow_their_definitions(matrix):
    weights = matrix.to_dense()[0].double().numpy()
    size = weights.shape[-1]
    places = np.arange(size)
    expected = {
        "previous": [np.mean([head[i, i - 1] for i in range(1, size)]) for head in weights],
        "next": [np.mean([head[i, i + 1] for i in range(size - 1)]) for head in weights],
        "own": [np.trace(head) / size for head in weights],
        "first": [head[:, 0].mean() for head in weights],
        "reach": [np.mean((head * np.abs(places[:, None] - places)).sum(1)) for head in weights],
        "spread": [
            np.mean([-sum(w * np.log(w) for w in row if w > 0) for row in head]) / np.log(size) for head in weights
        ],
    }
    assert set(expected) == {score.name for score in SCORES}
    for name, values in expected.items():
        np.testing.assert_allclose(table(name, matrix), values, atol=2e-6, err_msg=name)


def test_one_token_has_scores_too():
    one = DenseMatrix(torch.ones(1, 2, 1, 1))
    assert {score.name: score.table([one])[0] for score in SCORES} == {
        "spread": [0, 0], "reach": [0, 0], "previous": [0, 0], "own": [1, 1], "next": [0, 0], "first": [1, 1],
    }  # fmt: skip


def lazy_reading(length):
    generator = torch.Generator().manual_seed(length)
    record = Record()
    for layer in range(3):
        query, key = (torch.randn(1, 2, length, 5, generator=generator) for _ in range(2))
        record[f"layer.{layer}"] = AttentionMatrix(query, key)
    return Reading(record, [f"t{i}" for i in range(length)])


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
    np.testing.assert_allclose(
        table("spread", matrix), table("spread", DenseMatrix(torch.tensor(product)[None, None])), atol=1e-5
    )


def test_rollout_keeps_what_was_missed():
    given = reading(5)
    with pytest.raises(AttributeError):  # the stand-in cannot be multiplied, and says so itself
        rolled(given).record["rollout of all layers"].to_dense()
    assert rolled(lazy_reading(5)).record.missed == ()

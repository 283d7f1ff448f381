"""The data the web pictures draw from says what the matrix holds, and stays small."""

import base64
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearhead import AttentionMatrix
from clearhead.views.links import LINKS
from clearhead.views.page.packing import masked, masked_cells, pack
from clearhead.views.page.payload import payload
from views.fake import DenseMatrix, Reading, Record, reading


def unpack(packed):
    """Read a packed block the plain way, as the page does."""
    kinds = {"u8": "<u1", "u16": "<u2", "u32": "<u4"}
    whole = np.frombuffer(base64.b64decode(packed["data"]), dtype=kinds[packed["type"]])
    return whole.reshape(packed["shape"]) * packed["scale"]


def test_short_text_keeps_every_weight():
    given_ = reading(11, layers=2, heads=3)
    for layer, matrix in zip(payload(given_)["layers"], given_.record.values(), strict=True):
        np.testing.assert_allclose(unpack(layer["map"]), matrix.weights[0].double(), atol=1e-5)
        np.testing.assert_allclose(unpack(layer["thumb"]), matrix.weights[0].double(), atol=1 / 255)
        assert layer["top"] == pytest.approx(float(matrix.weights.max()))


def test_links_are_the_strongest_of_every_query():
    given_ = reading(13, layers=1, heads=2)
    (layer,) = payload(given_)["layers"]
    keys, weights = unpack(layer["links"]["keys"]), unpack(layer["links"]["weights"])
    dense = given_.record["layer.0.attention"].weights[0].double().numpy()
    for head in range(2):
        for query in range(13):
            order = np.argsort(-dense[head, query])[:LINKS]
            assert keys[head, query].tolist() == order.tolist()
            np.testing.assert_allclose(weights[head, query], dense[head, query, order], atol=1e-5)


def test_a_long_text_is_pooled_and_says_so():
    given_ = reading(509, layers=1, heads=7)
    data = payload(given_)
    (layer,) = data["layers"]
    side = layer["map"]["shape"][1]
    assert layer["map"]["shape"] == [7, side, side]
    assert side < 509
    assert f"{side} × {side}" in data["left_out"]
    assert unpack(layer["map"])[0].mean() == pytest.approx(1 / 509, rel=0.05)


def test_size_is_bounded_whatever_the_length():
    class Rows:
        def __init__(self, count):
            self.count = count

        def topk(self, k):
            return torch.linspace(0, 1, k).flip(0).expand(self.count, k), torch.arange(k).expand(self.count, k)

    class Huge(DenseMatrix):
        """Answers as a matrix of 40,000 × 40,000 would, without holding one."""

        def __init__(self):
            self.shape, self.dtype = torch.Size((1, 16, 40_000, 40_000)), torch.float32

        def to_dense(self):
            raise AssertionError("nobody asked for the whole matrix by name")

        def topk(self, k):
            values = torch.linspace(0, 1, k).flip(0).expand(1, 16, 40_000, k)
            return values, torch.arange(k).expand(1, 16, 40_000, k)

        def entropy(self):
            return torch.ones(1, 16, 40_000)

        def mean_distance(self):
            return torch.ones(1, 16, 40_000)

        def __getitem__(self, index):
            return Rows(len(range(40_000)[index[2]]))

        def pooled(self, rows, cols):
            return torch.full((1, 16, rows, cols), 1 / 40_000)

    record = Record(one=Huge(), two=Huge())
    data = payload(Reading(record, ["word"] * 40_000))
    assert len(json.dumps(data)) < 5_000_000
    assert "links are kept for every" in data["left_out"]
    assert "only breadth" in data["left_out"]
    assert list(data["scores"]) == ["breadth"]


def test_short_text_leaves_nothing_out():
    assert payload(reading(5))["left_out"] is None


def test_causal_masks_are_named_and_other_masks_are_listed():
    causal = reading(7, is_causal=True)
    assert payload(causal)["layers"][0]["masked"] == "causal"
    assert payload(reading(7))["layers"][0]["masked"] is None
    weights = torch.full((1, 2, 5, 5), 0.25)
    weights[..., 3] = 0
    data = payload(Reading(Record(padded=DenseMatrix(weights)), list("abcde")))
    assert masked_cells(data["layers"][0]["masked"], (2, 5, 5)).sum((0, 1)).tolist() == [0, 0, 0, 10, 0]


def test_each_head_is_hatched_by_its_own_mask_and_a_sharp_one_by_none():
    query = 1000 * torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    allow = torch.ones(1, 2, 5, 5, dtype=torch.bool)
    allow[0, 1, :, 3] = False
    matrix = AttentionMatrix(query, query, allow=allow)
    assert int((matrix.to_dense() == 0).sum()) > 5  # weights too small for float32, and yet not masked
    layer = payload(Reading(Record(one=matrix), list("abcde")))["layers"][0]
    for name in ("masked", "thumb_masked"):
        assert (masked_cells(layer[name], (2, 5, 5)) == ~allow[0].numpy()).all()
    sharp = payload(Reading(Record(one=AttentionMatrix(query, query)), list("abcde")))["layers"][0]
    assert sharp["masked"] is None


@pytest.mark.slow
@given(st.integers(1, 23), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=25)
def test_masked_cells_come_back_as_they_were(size, alike, random):
    heads = np.array([[[random.random() < 0.5 for _ in range(size)] for _ in range(size)] for _ in range(3)])
    cells = np.broadcast_to(heads[0], heads.shape) if alike else heads
    assert (masked_cells(masked(cells), cells.shape) == cells).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=31), st.sampled_from(["u8", "u16"]))
@settings(max_examples=50)
def test_packing_is_off_by_half_a_step_at_most(values, kind):
    array = np.array(values)
    packed = pack(array, kind, 1.0)
    assert np.abs(unpack(packed) - array).max() <= packed["scale"] / 2 + 1e-12


def test_first_is_a_link_between_far_words():
    tokens = ["[CLS]", "the", "animal", "did", "not", "cross", "as", "it", "slept", "[SEP]"]
    given_ = reading(tokens, layers=2, heads=3)
    for matrix in given_.record.values():
        matrix.weights[:] = 0.01
        matrix.weights[..., 0] = 0.9  # special tokens do not count
    given_.record["layer.1.attention"].weights[0, 2, 7, 2] = 0.6
    assert payload(given_)["first"] == {"layer": 1, "head": 2, "token": 7}


def test_an_empty_record_is_still_data():
    data = payload(Reading(Record(), ["a"]))
    assert data["layers"] == []
    assert json.loads(json.dumps(data)) == data

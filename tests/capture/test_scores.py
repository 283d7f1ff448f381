"""Head scores: heads built to do one thing score 1 at it; the dense definitions agree on the real model."""

import math

import pytest
import torch

from clearhead.capture import Record, induction_scores, read, score_record, scores
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix

from .conftest import SENTENCE

TOKENS = torch.tensor([[5, 7, 9, 5, 7, 9, 5, 3, 3, 7, 2]])
L = 11


def head(targets: list[int]) -> AttentionMatrix:
    """A head whose query i looks at key targets[i] and nowhere else."""
    query = torch.nn.functional.one_hot(torch.tensor(targets), L).float() * 60
    return AttentionMatrix(query[None, None], torch.eye(L)[None, None], scale=1.0)


def score(matrix: AttentionMatrix, special: list[bool] | None = None):
    return score_record(Record.of({"x": matrix}), TOKENS, special)[0]


def test_a_previous_token_head():
    found = score(head([0, *range(L - 1)]))
    assert found.previous_token == pytest.approx(1)
    assert (found.positional, found.offset) == (pytest.approx(10 / 11), -1)
    assert found.breadth == pytest.approx(0, abs=1e-6)


def test_a_first_token_head():
    assert score(head([0] * L)).first_token == pytest.approx(1)


def test_a_duplicate_token_head():
    last = {i: max((j for j in range(i) if TOKENS[0, j] == TOKENS[0, i]), default=i) for i in range(L)}
    found = score(head(list(last.values())))
    assert found.duplicate_token == pytest.approx(1)
    assert found.induction == pytest.approx(0, abs=1e-6)


def test_an_induction_head():
    after = {i: max((j + 1 for j in range(i) if TOKENS[0, j] == TOKENS[0, i]), default=i) for i in range(L)}
    assert score(head(list(after.values()))).induction == pytest.approx(1)


def test_a_separator_head():
    special = [True] + [False] * 9 + [True]
    assert score(head([10] * L), special).separator == pytest.approx(1)
    assert score(head([0] * L), special).separator == pytest.approx(0, abs=1e-6)
    assert math.isnan(score(head([0] * L)).separator)


def test_a_broad_head():
    flat = AttentionMatrix(torch.zeros(1, 1, L, 2), torch.zeros(1, 1, L, 2), is_causal=True)
    assert score(flat).breadth == pytest.approx(1)


def test_equals_the_dense_definitions_on_the_real_model(demo):
    reading = read(demo, SENTENCE + " " + SENTENCE)
    table = scores(reading)
    assert len(table) == 72
    tokens = torch.tensor(reading.token_ids)
    size = len(tokens)
    place = torch.arange(size)
    same = (tokens == tokens[:, None]) & (place < place[:, None])
    follows = torch.zeros(size, size, dtype=torch.bool)
    follows[:, 1:] = (tokens[:-1] == tokens[:, None]) & (place[1:] <= place[:, None])
    counted = same.any(1)
    for row in table:
        W = reading.record[row.layer].to_dense()[0, row.head].double()
        assert row.previous_token == pytest.approx(W.diagonal(-1).mean().item(), abs=1e-5)
        assert row.first_token == pytest.approx(W[1:, 0].mean().item(), abs=1e-5)
        assert row.duplicate_token == pytest.approx((W * same).sum(1)[counted].mean().item(), abs=1e-5)
        assert row.induction == pytest.approx((W * follows).sum(1)[counted].mean().item(), abs=1e-5)
        assert row.separator == pytest.approx(W[:, size - 1].mean().item(), abs=1e-5)
        assert row.breadth == pytest.approx((torch.special.entr(W).sum(1).mean() / math.log(size)).item(), abs=1e-5)
        best = W.argmax(1) - place
        assert row.positional == pytest.approx((best == row.offset).double().mean().item())


def test_the_induction_probe():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_embd=12, n_head=3, n_layer=2, vocab_size=61, n_positions=40)).eval()
    found = induction_scores(model, vocab_size=61, length=17, batch=2)
    assert found.shape == (2, 3)
    assert ((found >= 0) & (found <= 1)).all()
    # An untrained model looks at every position nearly alike.
    expected = (1 / torch.arange(18, 34)).mean()
    torch.testing.assert_close(found.mean(), expected, rtol=0.2, atol=0)
    with pytest.raises(OptionError, match="vocab_size"):
        induction_scores(model, vocab_size=2)


@pytest.mark.parametrize("ids", [[5, 3, 9], [[5, 3, 9]], "the cat sat"])
def test_token_ids_that_are_no_tensor_are_refused_with_a_reason(ids):
    record = Record.of({"x": head([0] * L)})
    with pytest.raises(OptionError, match=r"token_ids is a (list|str), expected a tensor of shape \(B, 11\)"):
        score_record(record, ids)
    with pytest.raises(OptionError, match=r"Write torch\.tensor"):
        score_record(record, TOKENS[:, :3].tolist())

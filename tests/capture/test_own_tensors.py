"""What a record holds is its own: nothing the model, or a later call, writes afterwards changes it."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture import observe


class Attention(nn.Module):
    """Passes on what it is given."""

    def forward(self, *tensors: Tensor, **options: object) -> Tensor:
        return F.scaled_dot_product_attention(*tensors, **options)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()

    def forward(self, *tensors: Tensor, **options: object) -> Tensor:
        return self.attention(*tensors, **options)


def weights(query: Tensor, key: Tensor, mask: Tensor | None = None) -> Tensor:
    logits = query @ key.mT * query.shape[-1] ** -0.5
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else logits + mask
    return logits.softmax(-1)


TRIANGLE = torch.ones(5, 5, dtype=torch.bool).tril()


@pytest.mark.parametrize("axes", [2, 4])
@pytest.mark.parametrize(
    ("mask", "later"),
    [
        (TRIANGLE, True),
        (torch.zeros(5, 5).masked_fill(~TRIANGLE, -torch.inf), 0.5),
        (torch.randn(5, 5, generator=torch.Generator().manual_seed(2)), -3.0),
    ],
    ids=["bool", "blocking", "adding"],
)
def test_a_mask_that_is_written_to_between_calls_and_after_them(mask: Tensor, later: float, axes: int) -> None:
    mask = mask.clone()[(None,) * (axes - 2)]
    query, key, value = torch.randn(3, 2, 3, 5, 7)
    model, expected = Model(), []
    with observe(model) as record:
        for column in (3, 4):
            mask[..., 0, column] = later
            model(query, key, value, mask)
            expected.append(weights(query, key, mask))
    mask[..., 0, 2] = later
    assert record.missed == []
    for matrix, right in zip(record.calls("attention"), expected, strict=True):
        torch.testing.assert_close(matrix.to_dense(), right)


def test_keys_that_an_earlier_call_saw_are_not_exchanged_for_a_later_calls() -> None:
    """The second call may not see the keys that the third has others of; the first saw them."""
    query, key, value = torch.randn(3, 1, 2, 5, 7)
    hidden = torch.arange(5).expand(5, 5) >= 2
    other = key.clone()
    other[:, :, :2] += 1
    calls = [(query, key, None), (query, key, hidden), (query, other, hidden)]
    model = Model()
    with observe(model) as record:
        for asking, read, mask in calls:
            model(asking, read, value, mask)
    for matrix, call in zip(record.calls("attention"), calls, strict=True):
        torch.testing.assert_close(matrix.to_dense(), weights(*call))


@pytest.mark.parametrize("single", ["query", "key"])
def test_one_batch_entry_serves_all_of_the_others(single: str) -> None:
    query, key, value = torch.randn(3, 2, 3, 5, 7)
    query, key = (query[:1], key) if single == "query" else (query, key[:1])
    model = Model()
    with observe(model) as record:
        model(query, key, value)
    torch.testing.assert_close(record["attention"].to_dense(), weights(query, key))


def test_two_axes_are_one_head_and_five_are_named_while_the_model_runs_on() -> None:
    model = Model()
    query, key, value = torch.randn(3, 5, 7)
    with observe(model) as record:
        model(query, key, value)
    torch.testing.assert_close(record["attention"].to_dense()[0, 0], weights(query, key))
    five = torch.randn(2, 3, 1, 5, 7)
    with observe(model) as record:
        model(five, five, five)
    assert "not (B, H, L, D)" in record.missed[0].reason

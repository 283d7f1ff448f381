"""A record owns its tensors: later writes of the model, or later calls, do not change it."""

import ctypes
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.capture import kept_copies, observe
from clearhead.capture.kept_copies import keep


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


WRITES = {
    "an operator": lambda tensor: tensor.add_(3.0),
    "its data": lambda tensor: tensor.data.fill_(2.0),
    "a view": lambda tensor: tensor[:, :, 1:].mul_(5.0),
    "a NumPy array": lambda tensor: tensor.detach().numpy().fill(1.0),
    "DLPack": lambda tensor: torch.from_dlpack(tensor.detach()).sub_(4.0),
    "its storage": lambda tensor: tensor.untyped_storage().fill_(7),
    "an address": lambda tensor: ctypes.memset(tensor.data_ptr(), 1, tensor.nbytes),
    "an output argument": lambda tensor: torch.add(torch.ones(tensor.shape), 1.0, out=tensor),
}


class Rewriting(nn.Module):
    """Attends, and then writes into its query and its key."""

    def __init__(self, write: Any) -> None:
        super().__init__()
        self.write = write

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = F.scaled_dot_product_attention(query, key, value)
        self.write(query)
        self.write(key)
        return out


@pytest.mark.parametrize("during", [True, False], ids=["during the pass", "after the block"])
@pytest.mark.parametrize("inference", [True, False], ids=["inference", "no grad"])
@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_queries_and_keys_that_are_written_to(write: Any, inference: bool, during: bool) -> None:
    """Also where they fill their memory, so that the record shares it until then."""
    with torch.inference_mode(inference), torch.no_grad():
        query, key, value = (torch.randn(2, 5, 3, 7).transpose(1, 2) for _ in range(3))
        expected = weights(query, key)
        model = Rewriting(write if during else lambda tensor: None)
        with observe(model) as record:
            model(query, key, value)
        if not during:
            write(query)
            write(key)
        assert not torch.equal(weights(query, key), expected)
        torch.testing.assert_close(record[""].to_dense(), expected)


def test_what_is_done_to_a_record_does_not_reach_the_model() -> None:
    query, key, value = torch.randn(3, 1, 2, 5, 7).unbind()
    query, key = query.clone(), key.clone()
    before = query.clone(), key.clone()
    model = Model()
    with observe(model) as record:
        model(query, key, value)
    record["attention"].q.zero_()
    record["attention"].k.zero_()
    torch.testing.assert_close((query, key), before)


def test_a_record_keeps_no_more_memory_than_its_queries_and_keys() -> None:
    """Parts of a joined product are copied: as views they would keep all of it alive."""
    joined = torch.randn(3, 1, 2, 5, 7)
    model = Model()
    with observe(model) as record:
        model(*joined)
    for kept in (record["attention"].q, record["attention"].k):
        assert kept.untyped_storage().nbytes() == kept.nbytes


def test_a_tensor_that_fills_its_memory_is_not_copied_until_it_is_written_to() -> None:
    tensor = torch.randn(1, 2, 5, 7)
    kept = keep(tensor)
    assert torch._C._is_cow_tensor(kept)
    assert torch._C._is_cow_tensor(tensor)
    tensor += 1
    assert not torch._C._is_cow_tensor(tensor)


def test_memory_that_torch_did_not_allocate_is_copied() -> None:
    array = np.ones((2, 3), np.float32)
    kept = keep(torch.from_numpy(array))
    array[:] = 5
    assert kept.tolist() == [[1.0] * 3] * 2


def test_without_copy_on_write_in_torch_every_tensor_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_copies, "_lazy_clone", None)
    tensor = torch.zeros(2, 3).requires_grad_()
    kept = keep(tensor)
    assert kept.data_ptr() != tensor.data_ptr()
    assert not kept.requires_grad

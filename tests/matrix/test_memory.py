"""No operation allocates a tensor of L·S elements: every tensor that torch allocates is checked."""

from collections.abc import Callable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clearhead import masks
from clearhead.matrix import AttentionMatrix, rollout

LENGTH = 769


class Largest(TorchDispatchMode):
    """Records the largest allocation of any operation, in elements. Views and meta tensors allocate nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        before = {leaf.untyped_storage().data_ptr() for leaf in tensors((args, kwargs))}
        for leaf in tensors(out):
            storage = leaf.untyped_storage()
            if leaf.device.type != "meta" and storage.data_ptr() not in before:
                self.elements = max(self.elements, storage.nbytes() // leaf.element_size())
        return out


def tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def largest(work: Callable[[], object]) -> int:
    with Largest() as watch:
        work()
    return watch.elements


def matrix(is_causal: bool = False, **options: object) -> AttentionMatrix:
    make = torch.Generator().manual_seed(1)
    query, key = torch.randn(2, 1, 1, LENGTH, 8, generator=make)
    return AttentionMatrix(query, key, is_causal=is_causal, **options)


OPERATIONS = {
    "A @ X": lambda A: A @ torch.ones(LENGTH, 3),
    "A.mT @ Y": lambda A: A.mT @ torch.ones(LENGTH, 3),
    "entropy": lambda A: A.entropy(),
    "received": lambda A: A.received(),
    "survey": lambda A: A.survey(),
    "allowed": lambda A: A.allowed(64, 64),
    "topk": lambda A: A.topk(8),
    "pooled": lambda A: A.pooled(64, 64),
    "mean_distance": lambda A: A.mean_distance(),
    "effective_keys": lambda A: A.effective_keys(),
    "mass_within": lambda A: A.mass_within(5),
    "mass_on": lambda A: A.mass_on([0, 1]),
    "pooled by max": lambda A: A.pooled(64, 64, reduce="max"),
    "kl": lambda A: A.kl(A),
    "inner": lambda A: A.inner(A),
    "diagonal": lambda A: A.diagonal(-1),
    "mean of heads": lambda A: A.mean_heads().topk(3),
    "value_weighted": lambda A: A.value_weighted(torch.ones(1, 1, LENGTH, 3)).received(),
    "a row": lambda A: A[0, 0, 17],
    "a block": lambda A: A[0, 0, 100:200, [5, 7, 11]],
    "rollout": lambda A: rollout([A, A]) @ torch.ones(LENGTH, 3),
    "rollout rows": lambda A: rollout([A, A]).rows([3, 5]),
}
KINDS = {
    "plain": lambda: matrix(),
    "causal": lambda: matrix(is_causal=True),
    "softcap": lambda: matrix(softcap=3.0),
    "window": lambda: matrix(reach=(-31, 17)),
    "shifted": lambda: matrix(reach=(None, 101)),
    "padding": lambda: matrix(allow=torch.arange(LENGTH) < 701),
    "sinks": lambda: matrix(sinks=torch.ones(1)),
    "alibi": lambda: matrix(alibi=torch.ones(1), alibi_offset=3),
    "rule": lambda: matrix(allow=masks.sliding_window(31) | masks.prefix(3)),
    "mask": lambda: matrix(allow=torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril(5)),
    "bias": lambda: matrix(bias=torch.zeros(LENGTH, LENGTH)),
}


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_tensor_of_the_matrix_size_is_allocated(kind: str, operation: str, monkeypatch):
    monkeypatch.setattr("clearhead.matrix.logits.BLOCK", 2**15)
    monkeypatch.setattr("clearhead.matrix.products.BLOCK", 2**15)
    monkeypatch.setattr("clearhead.matrix.questions.statistics.BLOCK", 2**15)
    monkeypatch.setattr("clearhead.matrix.questions.sweep.BLOCK", 2**15)
    monkeypatch.setattr("clearhead.kernels.portable.blockwise.BLOCK", 2**15)
    subject = KINDS[kind]()
    assert largest(lambda: OPERATIONS[operation](subject)) < LENGTH * LENGTH / 4


@pytest.mark.slow
def test_the_check_detects_the_dense_matrix():
    assert largest(lambda: matrix().to_dense()) >= LENGTH * LENGTH

"""Attention under a rule reads only the keys that the rule allows: forward, backward and statistics."""

import pytest
import torch

import clearhead
from clearhead import kernels, masks
from clearhead.kernels.calls import prepare
from clearhead.masks import BlockState, Mask
from clearhead.multihead import chunked_rule

LENGTH = 1009


class Dilated(Mask):
    """Runs of 101 positions: a query may attend keys whose run has the same parity as its own."""

    def rule(self, b, h, q, k):
        return (q // 101 - k // 101) % 2 == 0

    def state(self, rows, cols):
        kinds = {(r // 101 - c // 101) % 2 for r in (rows.start, rows.stop - 1) for c in (cols.start, cols.stop - 1)}
        small = len(rows) <= 101 and len(cols) <= 101
        return (
            (BlockState.FULL if kinds == {0} else BlockState.EMPTY) if small and len(kinds) == 1 else BlockState.MIXED
        )


def block_sparse() -> Mask:
    keep = torch.rand(16, 16, generator=torch.Generator().manual_seed(3)) < 0.3
    return masks.from_dense(keep.repeat_interleave(64, 0).repeat_interleave(64, 1)[:LENGTH, :LENGTH])


RULES = {
    "prefix and window": lambda: masks.prefix(70) | masks.sliding_window(101),
    "sinks and causal window": lambda: (masks.prefix(4) | masks.sliding_window(101)) & masks.causal(),
    "with a slope": lambda: (masks.prefix(4) | masks.sliding_window(101)) & masks.alibi(torch.tensor([0.02, 0.5])),
    "dilated": Dilated,
    "block-sparse": block_sparse,
    "documents": lambda: masks.document(torch.arange(LENGTH) // 211 % 3) & masks.causal(),
    "padding at the end": lambda: masks.padding(torch.tensor([131])) & (masks.prefix(5) | masks.sliding_window(67)),
}


@pytest.fixture(autouse=True)
def rules_stay_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "RULE_ENTRIES", 0)
    monkeypatch.setattr(chunked_rule, "ROWS", 128)


def needed(dense: torch.Tensor) -> int:
    """Count the pairs in blocks of ROWS queries and COLUMNS keys that have at least one allowed pair."""
    strips = dense.flatten(0, -3).any(0).split(chunked_rule.ROWS)
    blocks = (block for strip in strips for block in strip.split(chunked_rule.COLUMNS, 1))
    return sum(block.numel() for block in blocks if block.any())


@pytest.mark.parametrize("name", RULES)
def test_only_blocks_with_an_allowed_pair_are_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask, pairs, run = RULES[name](), [], kernels.run

    def counting(problem: kernels.Problem, kernel: str | None) -> kernels.Result:
        pairs.append(problem.query.shape[2] * problem.key.shape[2])
        return run(problem, kernel)

    monkeypatch.setattr(chunked_rule.kernels, "run", counting)
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, LENGTH, 7, generator=make, dtype=torch.float64).requires_grad_() for _ in range(3))
    out, lse = clearhead.attention(q, k, v, mask, return_lse=True)
    dense = mask.dense(LENGTH, LENGTH)
    # Blocks are found by halving, so their edges may miss multiples of COLUMNS by a few keys.
    assert needed(dense) * 0.9 <= sum(pairs) <= needed(dense) * 1.1
    grads = torch.autograd.grad((out * v.detach()).sum() + lse[lse.isfinite()].sum(), (q, k, v))
    monkeypatch.undo()
    if mask.bias is not None:
        dense = mask.bias.bias_block(range(LENGTH), range(LENGTH)).double().masked_fill(~dense, -torch.inf)
    expected, expected_lse = clearhead.attention(q, k, v, dense, return_lse=True)
    near = {"rtol": 2e-6, "atol": 2e-6} if mask.bias is not None else {}  # a rule's bias is float32
    torch.testing.assert_close((out, lse), (expected, expected_lse), **near)
    total = (expected * v.detach()).sum() + expected_lse[expected_lse.isfinite()].sum()
    torch.testing.assert_close(grads, torch.autograd.grad(total, (q, k, v)), **near)


@pytest.mark.parametrize("kernel", ["native", "torch", "reference"])
def test_keys_between_a_prefix_and_a_window_may_be_nan(kernel: str) -> None:
    if kernel == "native" and not kernels.targets():
        pytest.skip("the native library was not built on this machine")
    mask = ((masks.prefix(5) | masks.sliding_window(101)) & masks.causal()).shifted(LENGTH - 199)
    make = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, n, 7, generator=make) for n in (199, LENGTH, LENGTH))
    for tensor in (k, v):
        tensor[:, :, 64:640] = torch.nan
    tensors = [x.requires_grad_() for x in (q, k, v)]
    out, lse = clearhead.attention(*tensors, mask, return_lse=True, kernel=kernel)
    grads = torch.autograd.grad(out.square().sum() + lse.sum(), tensors)
    assert all(x.isfinite().all() for x in (out, lse, *grads))
    assert all(grad[:, :, 64:640].eq(0).all() for grad in grads[1:])


@pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")
@torch.no_grad()
def test_statistics_do_not_read_the_excluded_keys() -> None:
    mask = ((masks.prefix(5) | masks.sliding_window(101)) & masks.causal()).shifted(LENGTH - 199)
    q, k, v = (torch.randn(1, 2, n, 7) for n in (199, LENGTH, LENGTH))
    k[:, :, 128:640] = torch.nan
    _, matrix = clearhead.attention(q, k, v, mask, return_matrix=True)
    survey = matrix.survey()
    assert all(x.isfinite().all() for x in (survey.entropy, survey.maximum, survey.received, survey.mean_distance))
    assert survey.received[:, :, 128:640].eq(0).all()

"""A mask that is a rule stays one: attention, its gradients and its matrix allocate no L×S tensor."""

import pytest
import torch

import clearhead
from clearhead import kernels, masks
from highwater import taken_by_tensors

LENGTH = 6_007
pytestmark = pytest.mark.skipif(not kernels.targets(), reason="the native library was not built on this machine")
RULES = {
    "alibi": lambda: masks.causal() & masks.alibi(torch.tensor([0.1], requires_grad=True)),
    "global": lambda: masks.sliding_window(300) | masks.prefix(5),
    "global, alibi": lambda: (masks.sliding_window(300) | masks.prefix(5)) & masks.alibi(torch.tensor([0.1])),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make blocks small, so that only memory that grows with L·S can exceed the bound."""
    monkeypatch.setattr("clearhead.matrix.questions.sweep.BLOCK", 2**17)
    monkeypatch.setattr("clearhead.matrix.products.BLOCK", 2**17)
    monkeypatch.setattr("clearhead.spec.rule.PIECE", 2**15)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["alibi", pytest.param("global", marks=pytest.mark.stress), "global, alibi"])
def test_attention_and_its_matrix_under_a_rule(rule: str) -> None:
    mask = RULES[rule]()

    def work(length: int = LENGTH) -> None:
        q, k, v = (t.requires_grad_() for t in torch.randn(3, 1, 1, length, 4))
        out, matrix = clearhead.attention(q, k, v, mask, return_matrix=True)
        out.sum().backward()
        with torch.no_grad():
            matrix.survey()
            matrix @ torch.ones(length, 3)

    work(1_031)  # warm up: memory of imports and caches is not measured
    bytes_taken = taken_by_tensors(work)
    assert bytes_taken < LENGTH * LENGTH / 2


@pytest.mark.slow
def test_the_module_under_a_rule_beside_padding() -> None:
    layer = clearhead.MultiheadAttention(4, 1, batch_first=True, weights="matrix").eval()
    x, padding = torch.randn(1, LENGTH, 4), torch.arange(LENGTH)[None] > LENGTH - 9

    def work(x: torch.Tensor = x, padding: torch.Tensor = padding) -> None:
        with torch.no_grad():
            out, matrix = layer(x, x, x, attn_mask=RULES["global"](), key_padding_mask=padding)
            assert matrix.received()[0, 0, -8:].eq(0).all()
            assert out.isfinite().all()

    work(x[:, -1_031:], padding[:, -1_031:])
    bytes_taken = taken_by_tensors(work)
    assert bytes_taken < LENGTH * LENGTH / 2

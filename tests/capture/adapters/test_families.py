"""Small random models of many families: every matrix equals the model's eager weights; outputs stay bit for bit."""

import copy
import logging
from typing import Any

import pytest
import torch
from transformers.utils import logging as hf_logging

from clearhead.capture import observe
from clearhead.capture.adapters.transformers_interface import describe
from clearhead.matrix import AttentionMatrix

from ..families import BY_HAND, FAMILIES, NOT_CAPTURED, ids

FLOAT32_SOFTMAX = ["llama", "mistral, window", "qwen3", "gemma2, softcap, window", "gpt-neox", "opt", "swin, windows"]
KINDS = ("attentions", "encoder_attentions", "decoder_attentions", "cross_attentions")


@pytest.fixture(autouse=True, scope="module")
def quiet():
    before = hf_logging.get_verbosity()
    hf_logging.set_verbosity(logging.ERROR)
    yield
    hf_logging.set_verbosity(before)


def tensors(output: Any) -> list[torch.Tensor]:
    return [value for value in output.values() if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("name", {**FAMILIES, **BY_HAND})
def test_equals_the_models_eager_weights(name: str):
    make, inputs, count = (FAMILIES | BY_HAND)[name]
    torch.manual_seed(0)
    model = make().eval()
    config = copy.deepcopy(model.config)
    config._attn_implementation = "eager"
    twin = type(model)(config).eval()
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        plain = model(**inputs())
        with observe(model) as record:
            output = model(**inputs())
        eager = twin(**inputs(), output_attentions=True)
    assert record.missed == []
    assert len(record) == count
    assert tensors(plain)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(tensors(output), tensors(plain), strict=True))

    matrices = [matrix for module in record for matrix in record.calls(module)]
    weights = [layer for kind in KINDS for layer in (eager.get(kind) or ())]
    assert len(matrices) == len(weights)
    for matrix in matrices:
        dense = matrix.to_dense()
        # A row of padding that may attend nothing is uniform in eager, zero here (docs/decisions/0003).
        used = (matrix.lse > -torch.inf)[..., None]
        same = [w for w in weights if w.shape == dense.shape and ((dense - w) * used).abs().max() < 1e-5]
        assert same, f"no eager weights of {name} equal those of shape {dense.shape}"
        exact = same[0] * used
        torch.testing.assert_close(matrix.entropy(), torch.special.entr(exact).sum(-1), rtol=0, atol=1e-5)
        torch.testing.assert_close(matrix.received(), exact.sum(2), rtol=0, atol=1e-5)
        some = min(3, exact.shape[3])
        torch.testing.assert_close(matrix.topk(some)[0], exact.topk(some)[0], rtol=0, atol=1e-5)
        torch.testing.assert_close(matrix.effective_keys(), effective(exact), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", FLOAT32_SOFTMAX)
def test_a_float64_model_whose_softmax_is_float32_is_recorded(name: str):
    make, inputs, count = FAMILIES[name]
    torch.manual_seed(0)
    model = make().double().eval()
    model.set_attn_implementation("eager")
    given = {key: value.double() if value.is_floating_point() else value for key, value in inputs().items()}
    given.pop("attention_mask", None)  # the mask of a float64 model is -inf in float32, so that padding would be NaN
    with torch.no_grad(), observe(model) as record:
        model(**given)
    with torch.no_grad():
        eager = model(**given, output_attentions=True)
    assert (record.missed, len(record)) == ([], count)
    weights = [layer for kind in KINDS for layer in (eager.get(kind) or ())]
    for matrix in (matrix for module in record for matrix in record.calls(module)):
        dense, used = matrix.to_dense(), (matrix.lse > -torch.inf)[..., None]
        off = [((dense - w) * used).abs().max().item() for w in weights if w.shape == dense.shape]
        assert min(off) < 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("name", ["llama", "bert", "t5, position bias", "vit"])
def test_outputs_attentions_are_lazy_matrices(name: str):
    make, inputs, _ = FAMILIES[name]
    model = make().eval()
    with torch.no_grad():
        with observe(model) as record:
            output = model(**inputs(), output_attentions=True)
        after = model(**inputs(), output_attentions=True)
    lazy = [matrix for kind in KINDS for matrix in (output.get(kind) or ())]
    assert len(lazy) == len(record)
    dense = [matrix.to_dense() for matrix in record.values()]
    for matrix in lazy:
        assert isinstance(matrix, AttentionMatrix)
        assert any(torch.equal(matrix.to_dense(), other) for other in dense if other.shape == matrix.shape)
    assert not any(isinstance(layer, AttentionMatrix) for kind in KINDS for layer in (after.get(kind) or ()))


@pytest.mark.parametrize("name", NOT_CAPTURED)
def test_what_cannot_be_captured_is_named(name: str):
    make, reason = NOT_CAPTURED[name]
    model = make().eval()
    with torch.no_grad(), observe(model) as record:
        model(ids(88))
    assert len(record) == 0
    assert len(record.missed) == 2
    assert all(reason in item.reason for item in record.missed)


def effective(W: torch.Tensor) -> torch.Tensor:
    return W.sum(-1) ** 2 / (W**2).sum(-1).clamp_min(1e-30)


def test_what_torchs_function_ignores_is_not_recorded():
    """transformers 5.20 calls it for a model with a soft cap, and drops the cap."""
    query = torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(1))
    options = {"scaling": 0.5, "softcap": 0.25, "s_aux": torch.ones(2)}
    for implementation, ignored in (("sdpa", True), ("eager", False), ("flex_attention", False)):
        call = describe(torch.nn.Identity(), query, query, query, None, options, query, implementation)
        assert (call.attention.softcap is None, call.attention.sinks is None) == (ignored, ignored)
        assert call.attention.scale == 0.5

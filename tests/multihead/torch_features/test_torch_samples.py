"""torch's own sample inputs, which are in its wheel, through our function and our class."""

import copy
import sys
import types
import unittest
import warnings
from functools import cache

import pytest
import torch
import torch.nn.functional as F

import clearhead

# torch's test modules import expecttest for the base class of their own test cases, which are not used here.
sys.modules.setdefault("expecttest", types.SimpleNamespace(TestCase=unittest.TestCase))  # type: ignore[arg-type]

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@cache
def torchs_samples():
    """Return torch's entries for its function and for its class, whose import takes two seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own test modules warn on import
        from torch.testing._internal.common_methods_invocations import op_db
        from torch.testing._internal.common_modules import module_db
    function = next(op for op in op_db if op.name == "nn.functional.scaled_dot_product_attention")
    return function, next(info for info in module_db if info.module_cls is torch.nn.MultiheadAttention)


def wide(x):
    return x.detach().double().requires_grad_(x.requires_grad) if torch.is_tensor(x) and x.is_floating_point() else x


def no_worse(ours, theirs, exact):
    """Check the bound of docs/decisions/0005: at most twice torch's error in the same dtype, plus a small floor."""
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    torch.testing.assert_close(ours.isnan(), theirs.isnan())
    # The samples are in [-9, 9]; gradients are differences of products of two of them, and logits reach hundreds. The
    # reference for float64 is torch's float64, whose error is as large as ours.
    size = {torch.float64: 480.0, torch.float32: 20.0}.get(ours.dtype, 2.0)
    floor = 16 * torch.finfo(ours.dtype).eps * size
    assert (ours - exact).abs().amax() <= 2 * (theirs - exact).abs().amax() + floor


def gradients(out, tensors):
    generator = torch.Generator().manual_seed(7)
    upstream = torch.randn(out.shape, generator=generator).bfloat16().to(out.dtype)  # the same in every dtype
    expected = [t for t in tensors if isinstance(t, torch.Tensor) and t.requires_grad]
    return torch.autograd.grad(out, expected, upstream)


def flash(query, key, value, **options):
    """torch's flash attention for every rank: it needs four axes; with fewer, torch uses another implementation."""
    lead = torch.broadcast_shapes(*(t.shape[:-2] for t in (query, key, value)))
    four = (1,) * (2 - len(lead)) + lead
    out = F.scaled_dot_product_attention(*(t.expand(*four, *t.shape[-2:]) for t in (query, key, value)), **options)
    return out.reshape(*lead, *out.shape[-2:])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_sample_of_op_db_through_the_function(dtype):
    torch.manual_seed(0)
    samples = list(torchs_samples()[0].sample_inputs("cpu", dtype, requires_grad=True))
    assert len(samples) == 25
    for sample in samples:
        if (
            sample.kwargs["dropout_p"] > 0
        ):  # another generator: the same distribution, other draws (tested in test_dropout)
            assert clearhead.attention(sample.input, *sample.args, **sample.kwargs).shape == (
                F.scaled_dot_product_attention(sample.input, *sample.args, **sample.kwargs).shape
            )
            continue
        runs = []
        for function, convert in (
            (clearhead.attention, None),
            (F.scaled_dot_product_attention, None),
            (F.scaled_dot_product_attention, wide),
        ):
            args = [convert(t) if convert else t for t in (sample.input, *sample.args)]
            kwargs = {k: convert(t) if convert else t for k, t in sample.kwargs.items()}
            out = function(*args, **kwargs)
            runs.append([out, *gradients(out, [*args, *kwargs.values()])])
        for ours, theirs, exact in zip(*runs, strict=True):
            no_worse(ours, theirs, exact)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_sample_of_module_db_through_the_class(dtype, training):
    layer = torchs_samples()[1]
    samples = layer.module_inputs_func(layer, device="cpu", dtype=dtype, requires_grad=True, training=training)
    assert len(samples) == 64
    for sample in samples:
        build = sample.constructor_input
        theirs = torch.nn.MultiheadAttention(*build.args, **build.kwargs, dtype=dtype).train(training)
        ours = clearhead.MultiheadAttention(*build.args, **build.kwargs, dtype=dtype).train(training)
        ours.load_state_dict(theirs.state_dict())
        exact = copy.deepcopy(theirs).double()
        args, kwargs = sample.forward_input.args, sample.forward_input.kwargs
        runs = []
        for module, inputs in ((ours, args), (theirs, args), (exact, [wide(x) for x in args])):
            out, weights = module(*inputs, **kwargs)
            runs.append([out, weights, *gradients(out, [*inputs, *module.parameters()])])
        for mine, stock, truth in zip(*runs, strict=True):
            no_worse(mine, stock, truth)
        # The same inputs with a batch axis, which the samples' own reference uses.
        batched = sample.reference_fn(ours, *args, **kwargs)[0]
        torch.testing.assert_close(runs[0][0], batched)

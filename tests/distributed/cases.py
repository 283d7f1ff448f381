"""Calls of distributed attention, and the results of one process."""

from dataclasses import dataclass, field

import torch

import clearhead
from clearhead import distributed, masks

B, H, H_KV, D, E = 2, 4, 2, 11, 7
LENGTH = 48  # a multiple of 24, which zigzag needs for 1 to 4 ranks


@dataclass(frozen=True)
class Case:
    """Options of a call, by name; options with tensors are made in `options`."""

    given: dict = field(default_factory=dict)
    made: tuple = ()
    heads: bool = True  # whether heads may be exchanged for sequence

    def options(self, dtype):
        generator = torch.Generator().manual_seed(1)
        own = {name: _MAKE[name](generator, dtype) for name in self.made}
        if "table" in own:
            own["attn_mask"] = own.pop("table")
        if "padding" in own:
            own["attn_mask"] = own.pop("padding")
        return {**self.given, **own}


def _table(generator, dtype):
    return torch.randn(1, H, LENGTH, LENGTH, generator=generator).to(dtype).requires_grad_()


def _allow(generator, dtype):
    allow = torch.rand(B, 1, LENGTH, LENGTH, generator=generator) > 0.4
    allow[0, 0, 5] = False  # a row that may attend nothing
    return allow


_MAKE = {
    "table": _table,
    "attn_mask": _allow,
    "padding": lambda generator, dtype: (torch.arange(LENGTH) < 41).expand(B, 1, 1, LENGTH),
    "sinks": lambda generator, dtype: torch.randn(H, generator=generator).to(dtype).requires_grad_(),
}
DOCUMENTS = torch.arange(LENGTH)[None] // 11
CASES = {
    "plain": Case(),
    "causal": Case({"is_causal": True}),
    "soft cap and sinks": Case({"is_causal": True, "softcap": 3.0}, ("sinks",)),
    "window": Case({"attn_mask": masks.causal() & masks.sliding_window(7)}),
    "documents": Case({"attn_mask": masks.document(DOCUMENTS) & masks.causal()}),
    "alibi": Case({"attn_mask": masks.alibi(torch.linspace(0.1, 0.5, H)) & masks.causal()}),
    "relative": Case({"attn_mask": masks.relative(torch.linspace(-1, 1, 2 * 9 + 1).expand(H, -1))}, heads=False),
    "prefix": Case({"attn_mask": masks.causal() | masks.prefix(5)}),
    "padding": Case({}, ("padding",)),
    "dense": Case({}, ("attn_mask",), heads=False),
    "bias": Case({}, ("table",), heads=False),
    "dropout": Case({"is_causal": True, "dropout_p": 0.3}, heads=False),
}


def tensors(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (B, H, LENGTH, D), (B, H_KV, LENGTH, D), (B, H_KV, LENGTH, E)
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]


def learning(inputs, options):
    return [*inputs, *(value for value in options.values() if isinstance(value, torch.Tensor) and value.requires_grad)]


def loss_of(out, lse, upstream):
    lse = lse.masked_fill(lse == -torch.inf, 0)
    return (out.double() * upstream).sum() + lse.double().sum()


def alone(name, dtype):
    """Return output, lse and gradients of one process."""
    options = CASES[name].options(dtype)
    inputs = tensors(dtype)
    torch.manual_seed(5)
    out, lse = clearhead.attention(*inputs, enable_gqa=True, return_lse=True, **options)
    upstream = torch.randn(out.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    grads = torch.autograd.grad(loss_of(out, lse, upstream), learning(inputs, options))
    return [out.detach(), lse.detach(), *grads], upstream


def together(name, dtype, placement, algorithm, upstream):
    """Return the same computed by all ranks, whole on each."""
    options = CASES[name].options(dtype)
    inputs = tensors(dtype)
    torch.manual_seed(5)
    own = [distributed.shard(tensor, placement=placement) for tensor in inputs]
    out, lse = distributed.attention(
        *own, enable_gqa=True, placement=placement, algorithm=algorithm, return_lse=True, **options
    )
    loss = loss_of(out, lse, distributed.shard(upstream, placement=placement))
    grads = [grad.clone() for grad in torch.autograd.grad(loss, learning(inputs, options))]
    for grad in grads:
        torch.distributed.all_reduce(grad)
    whole = [distributed.gather(out, placement=placement), distributed.gather(lse, -1, placement=placement)]
    return [*whole, *grads]

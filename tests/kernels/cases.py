"""The problems on which every kernel is tested. Sizes are distinct primes, so that a transposed axis cannot pass."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clearhead.kernels import Problem


@dataclass(frozen=True)
class Case:
    """How to build a Problem; the defaults are B 2, H 3, L 37, S 53, D 7, D_v 7."""

    batch: int = 2
    heads: int = 3
    kv_heads: int = 3
    length: int = 37
    keys: int = 53
    width: int = 7
    value_width: int = 7
    spread: float = 1.0
    layout: str = "plain"
    is_causal: bool = False
    allow: str | None = None
    bias: tuple[int, ...] | None = None
    bias_runs: bool = False  # the bias is -inf except for one run of keys per query
    softcap: float | None = None
    sinks: bool = False
    dropout_p: float = 0.0
    reach: tuple[int | None, int | None] = (None, None)
    scale: float = 0.3
    head_scale: bool = False
    alibi: int | None = None  # the position of query 0; None = no slopes
    floor: float = 2e-6  # bound on a float32 gradient's error, relative to its largest entry

    def problem(self, dtype: torch.dtype = torch.float32, seed: int = 0) -> Problem:
        make = torch.Generator().manual_seed(seed)
        query = self._tensor(make, (self.batch, self.heads, self.length, self.width), dtype) * self.spread
        key = self._tensor(make, (self.batch, self.kv_heads, self.keys, self.width), dtype)
        value = self._tensor(make, (self.batch, self.kv_heads, self.keys, self.value_width), dtype)
        full = (self.batch, self.heads, self.length, self.keys)
        return Problem(
            query=_with_layout(query, self.layout),
            key=_with_layout(key, self.layout),
            value=_with_layout(value, self.layout),
            scale=self.scale,
            is_causal=self.is_causal,
            allow=None if self.allow is None else _allow(self.allow, full, make),
            bias=None if self.bias is None else self._bias(make, dtype),
            softcap=self.softcap,
            sinks=self._tensor(make, (self.heads,), dtype) if self.sinks else None,
            dropout_p=self.dropout_p,
            seed=seed + 11,
            reach=self.reach,
            alibi=None if self.alibi is None else torch.rand(self.heads, generator=make).to(dtype) / 8,
            first_query=self.alibi or 0,
            head_scale=self._tensor(make, (self.heads,), dtype) if self.head_scale else None,
        )

    def _tensor(self, make: torch.Generator, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.randn(shape, generator=make).to(dtype)

    def _bias(self, make: torch.Generator, dtype: torch.dtype) -> Tensor:
        bias = self._tensor(make, self._sized(self.bias), dtype)
        return bias.masked_fill(~_runs(bias.shape, make), -torch.inf) if self.bias_runs else bias

    def _sized(self, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the full size of the axes marked 1 in a tuple such as (0, 0, 1, 1), and 1 for the others."""
        full = (self.batch, self.heads, self.length, self.keys)[-len(axes) :]
        return tuple(size if keep else 1 for size, keep in zip(full, axes, strict=True))


def _with_layout(tensor: Tensor, layout: str) -> Tensor:
    """Return the same numbers with other strides."""
    if layout == "blhd":  # the layout of a projection: heads interleaved in the model's width
        return tensor.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "padded":  # a slice of a wider buffer, starting at an odd offset
        wide = tensor.new_full((*tensor.shape[:-1], tensor.shape[-1] + 5), torch.nan)
        wide[..., 3:-2] = tensor
        return wide[..., 3:-2]
    if layout == "columns":  # last axis not contiguous
        return tensor.mT.contiguous().mT
    if layout == "expanded":
        return tensor[:1].expand(tensor.shape)
    return tensor


def _runs(shape: torch.Size | tuple[int, ...], make: torch.Generator) -> Tensor:
    """Return True in one run of the last axis; every seventh run is empty, and neighbours' runs are far apart."""
    ends = torch.randint(shape[-1] + 1, (*shape[:-1], 2), generator=make).sort(-1).values
    ends.view(-1, 2)[3::7] = 0
    place = torch.arange(shape[-1])
    return (ends[..., :1] <= place) & (place < ends[..., 1:])


def _allow(kind: str, full: tuple[int, ...], make: torch.Generator) -> Tensor:
    batch, _, length, keys = full
    if kind == "lengths":  # padding: one sequence of the batch is shorter
        allow = torch.ones(batch, 1, 1, keys, dtype=torch.bool)
        allow[-1, ..., keys // 3 :] = False
        return allow
    if kind == "matrix":  # (L, S), some rows empty
        allow = torch.rand(length, keys, generator=make) < 0.5
        allow[length // 2 : length // 2 + 3] = False
        return allow
    if kind == "full":
        allow = torch.rand(full, generator=make) < 0.3
        allow[:, :, -1] = False
        return allow
    if kind == "runs":
        return _runs((length, keys), make)
    if kind == "middle":  # padding at both ends
        return _runs((batch, 1, 1, keys), make)
    if kind == "nothing":
        return torch.zeros(1, 1, 1, 1, dtype=torch.bool)
    if kind == "rows":  # (B, 1, L, 1): whole rows on or off
        return torch.rand(batch, 1, length, 1, generator=make) < 0.5
    raise ValueError(kind)


_BASE = Case()
CASES: dict[str, Case] = {
    "full": _BASE,
    "causal": replace(_BASE, is_causal=True),
    "causal, more queries than keys": replace(_BASE, is_causal=True, length=61, keys=23),
    "negative scale": replace(_BASE, scale=-0.3, length=131),
    "negative scale, causal": replace(_BASE, scale=-0.3, is_causal=True),
    "scale of 0, causal": replace(_BASE, scale=0.0, is_causal=True),
    "scale of 0, mask": replace(_BASE, scale=0.0, allow="matrix"),
    "grouped": replace(_BASE, heads=6, kv_heads=2),
    "grouped causal": replace(_BASE, heads=6, kv_heads=2, is_causal=True),
    "one key head": replace(_BASE, heads=5, kv_heads=1),
    "value wider": replace(_BASE, value_width=19),
    "value narrower": replace(_BASE, width=19, value_width=3),
    "heads interleaved": replace(_BASE, layout="blhd"),
    "slice of a wider buffer": replace(_BASE, layout="padded"),
    "last axis strided": replace(_BASE, layout="columns"),
    "expanded batch": replace(_BASE, layout="expanded"),
    "several blocks": replace(_BASE, batch=1, heads=2, kv_heads=1, length=131, keys=307, width=41, value_width=41),
    "several blocks causal": replace(
        _BASE, batch=1, heads=2, kv_heads=2, length=307, keys=307, width=67, value_width=67, is_causal=True
    ),
    # The backward pass splits the rows of a key head that is alone.
    "a lone head": replace(
        _BASE, batch=1, heads=1, kv_heads=1, length=101, is_causal=True, sinks=True, bias=(1, 1, 1, 1)
    ),
    "a lone key head": replace(
        _BASE, batch=1, heads=7, kv_heads=1, bias=(1, 0, 1, 1), dropout_p=0.3, alibi=16, head_scale=True, allow="rows"
    ),
    # Rows with a stride of a multiple of 1 KiB are copied if several tiles read them.
    "values far apart": replace(
        _BASE, batch=1, heads=8, kv_heads=8, length=131, keys=149, width=5, value_width=32, layout="blhd"
    ),
    "padding": replace(_BASE, allow="lengths"),
    "padding causal": replace(_BASE, allow="lengths", is_causal=True),
    "mask": replace(_BASE, allow="matrix"),
    "mask causal": replace(_BASE, allow="matrix", is_causal=True),
    "runs of keys": replace(_BASE, batch=1, length=37, keys=307, allow="runs"),
    "runs of keys, few queries": replace(_BASE, length=3, keys=307, allow="runs"),
    "padding at both ends": replace(_BASE, batch=3, keys=307, allow="middle"),
    "bias of runs": replace(_BASE, batch=1, keys=307, bias=(1, 1, 1, 1), bias_runs=True),
    "bias of runs, window": replace(_BASE, keys=67, bias=(1, 1), bias_runs=True, reach=(-11, 23)),
    "bias per key of a run": replace(_BASE, keys=307, bias=(1, 0, 0, 1), bias_runs=True, allow="runs"),
    "mask per head": replace(_BASE, allow="full"),
    "whole rows off": replace(_BASE, allow="rows"),
    "nothing allowed": replace(_BASE, allow="nothing"),
    "bias": replace(_BASE, bias=(1, 1, 1, 1)),
    "bias shared": replace(_BASE, bias=(1, 1), is_causal=True),
    "bias per key": replace(_BASE, bias=(1, 0, 0, 1), allow="lengths"),
    "bias per row": replace(_BASE, bias=(0, 1, 1, 0)),
    "softcap": replace(_BASE, softcap=1.7, spread=3.0),
    "softcap causal bias": replace(_BASE, softcap=1.7, is_causal=True, bias=(0, 1, 1, 1)),
    "sinks": replace(_BASE, sinks=True),
    "sinks, empty rows": replace(_BASE, sinks=True, allow="matrix"),
    "sinks causal grouped": replace(_BASE, sinks=True, heads=6, kv_heads=2, is_causal=True),
    "dropout": replace(_BASE, dropout_p=0.3, keys=307),
    "dropout causal grouped": replace(_BASE, dropout_p=0.3, heads=6, kv_heads=3, is_causal=True),
    "one query": replace(_BASE, length=1),
    "one query, many keys": replace(_BASE, length=1, keys=1031, batch=1),
    "window": replace(_BASE, reach=(-5, 3)),
    "window, causal": replace(_BASE, reach=(-7, None), is_causal=True, length=131, keys=307, heads=2, kv_heads=2),
    "causal after a cache": replace(_BASE, reach=(None, 16)),
    "window, mask, bias": replace(_BASE, reach=(-19, 11), allow="matrix", bias=(0, 0, 1, 1)),
    "reach that leaves rows empty": replace(_BASE, reach=(-9, -4), length=71),
    "few queries, window after a cache": replace(_BASE, length=3, keys=1031, batch=1, reach=(900, 1028)),
    "few queries": replace(_BASE, length=3, keys=1031, batch=1, heads=6, kv_heads=2, value_width=19),
    "few queries causal": replace(_BASE, length=3, keys=5, heads=6, kv_heads=2, is_causal=True),
    "few queries, mask, bias": replace(_BASE, length=4, allow="full", bias=(1, 1, 1, 1)),
    "few queries, padding, sinks": replace(_BASE, length=2, allow="lengths", sinks=True, heads=5, kv_heads=1),
    "few queries, softcap, dropout": replace(_BASE, length=3, softcap=1.7, spread=3.0, dropout_p=0.3, keys=257),
    "bias shared by heads, long": replace(_BASE, heads=4, kv_heads=2, length=307, keys=67, bias=(1, 0, 1, 1)),
    "bias of one number": replace(_BASE, bias=(1, 1), length=1, keys=1),
    "bias per key of a head, grouped": replace(_BASE, heads=6, kv_heads=2, bias=(0, 1, 0, 1), is_causal=True),
    "alibi": replace(_BASE, alibi=0, length=131, keys=307),
    "alibi causal, grouped, sinks": replace(_BASE, alibi=0, is_causal=True, heads=6, kv_heads=2, sinks=True),
    "alibi after a cache, window, mask": replace(_BASE, alibi=16, reach=(-19, 16), allow="matrix", softcap=1.7),
    "alibi, bias, padding, dropout": replace(_BASE, alibi=-3, bias=(0, 1, 1, 1), allow="lengths", dropout_p=0.3),
    # Rows whose last columns fill no vector, and rows narrower than one: what lies beside them is NaN.
    "few queries, wide rows with a rest": replace(
        _BASE, length=5, keys=307, batch=1, heads=6, kv_heads=2, width=83, value_width=67, layout="padded"
    ),
    "few queries, narrow rows": replace(_BASE, length=3, keys=307, width=3, value_width=13, layout="padded"),
    "few queries, alibi": replace(_BASE, alibi=1028, length=3, keys=1031, batch=1, heads=6, kv_heads=2),
    "scale per head": replace(_BASE, head_scale=True, length=131, keys=307),
    "scale per head, grouped, causal, softcap, bias": replace(
        _BASE, head_scale=True, heads=6, kv_heads=2, is_causal=True, softcap=1.7, bias=(0, 1, 1, 1)
    ),
    "scale per head, sinks, alibi, dropout": replace(
        _BASE, head_scale=True, sinks=True, alibi=3, dropout_p=0.3, heads=6, kv_heads=3, scale=-0.3
    ),
    "few queries, scale per head": replace(_BASE, head_scale=True, length=3, keys=1031, batch=1, heads=6, kv_heads=2),
    "one key": replace(_BASE, keys=1),
    "one of each": replace(_BASE, length=1, keys=1, width=1, value_width=1),
    "no query": replace(_BASE, length=0),
    "no key": replace(_BASE, keys=0),
    "no key, sinks": replace(_BASE, keys=0, sinks=True),
    "no batch": replace(_BASE, batch=0),
    "no width": replace(_BASE, width=0),
    "no value width": replace(_BASE, value_width=0),
    "few queries, no width": replace(_BASE, length=3, width=0),
    "few queries, no value width": replace(_BASE, length=3, value_width=0),
    # A float32 lse near 1e4 has an error of 1e-3, and so have the weights that backward recomputes from it.
    "large logits": replace(_BASE, spread=5e3, is_causal=True, floor=2e-3),
    # Decode sums a logit in another order than backward, so the two differ by an ulp or two of 1e4 more.
    "few queries, large logits": replace(_BASE, length=1, keys=2053, batch=1, spread=5e3, floor=4e-3),
}

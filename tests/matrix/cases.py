"""The matrices that every operation is tested on. Sizes are distinct primes, so that a transposed axis cannot pass."""

from dataclasses import dataclass

import torch
from torch import Tensor

import reference
from clearhead import masks
from clearhead.matrix import AttentionMatrix

B, H, L, S, D = 2, 6, 23, 31, 5
IDS = torch.arange(B)[:, None] + torch.arange(S) // 7
# Masks that stay rules; row 4 of the last one may attend nothing.
RULES = {
    "global": masks.sliding_window(4) | masks.prefix(3),
    "documents": masks.causal(offset=6) & masks.document(IDS[:, 3 : 3 + L], IDS),
    "heads": masks.from_dense((torch.arange(H * L * S) % 3 > 0).view(H, L, S) & (torch.arange(L) != 4)[:, None]),
}


@dataclass(frozen=True)
class Case:
    """How to build a matrix, and the same matrix dense in float64."""

    heads: int = H
    kv_heads: int = H
    length: int = L
    keys: int = S
    is_causal: bool = False
    allow: str | None = None
    bias: str | None = None
    softcap: float | None = None
    sinks: bool = False
    spread: float = 1.0
    scale: float | None = 0.7
    head_scale: bool = False
    reach: tuple[int | None, int | None] = (None, None)
    alibi: int | None = None  # the position of query 0; None = no slopes

    def tensors(self, dtype: torch.dtype) -> dict[str, Tensor | None]:
        make = torch.Generator().manual_seed(3)

        def randn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=make).to(dtype)

        def mask(kind: str | None) -> tuple[int, ...]:
            return {
                "dense": (B, self.heads, self.length, self.keys),
                "shared": (self.length, self.keys),
                "keys": (B, 1, 1, self.keys),
                "rows": (B, 1, self.length, 1),
            }[kind or "dense"]

        allow: Tensor | masks.Mask | None = None
        if self.allow in RULES:
            allow = RULES[self.allow]
        elif self.allow is not None:
            allow = torch.rand(mask(self.allow), generator=make) < 0.6
            if self.allow in ("dense", "shared", "rows"):
                allow[..., 4, :] = False  # a row that may attend nothing
        return {
            "query": randn(B, self.heads, self.length, D) * self.spread,
            "key": randn(B, self.kv_heads, self.keys, D),
            "allow": allow,
            "bias": None if self.bias is None else randn(*mask(self.bias)),
            "sinks": randn(self.heads) if self.sinks else None,
            "alibi": None if self.alibi is None else randn(self.heads).abs() / 4,
        } | ({"scale": 0.7 * randn(self.heads)} if self.head_scale else {})

    def options(self) -> dict[str, object]:
        return {
            **({} if self.head_scale else {"scale": self.scale}), "is_causal": self.is_causal, "softcap": self.softcap, "reach": self.reach,
            "alibi_offset": self.alibi or 0,
        }  # fmt: skip

    def matrix(self, dtype: torch.dtype = torch.float32) -> AttentionMatrix:
        return AttentionMatrix(**self.tensors(dtype), **self.options())

    def dense(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """(weights, logits), each (B, H, L, S), float64, from the same tensors."""
        return dense(self.tensors(dtype), self.options())


def dense(tensors: dict[str, Tensor | None], options: dict[str, object]) -> tuple[Tensor, Tensor]:
    scale = tensors["scale"] if "scale" in tensors else options["scale"]
    scale = D**-0.5 if scale is None else scale[:, None, None].double() if isinstance(scale, Tensor) else scale
    rest = {name: value for name, value in tensors.items() if name in ("allow", "bias")}
    if isinstance(rest["allow"], masks.Mask):
        rest["allow"] = rest["allow"].dense(tensors["query"].shape[2], tensors["key"].shape[2])
    plain = {"scale": scale, "is_causal": options["is_causal"], "softcap": options["softcap"]}
    logits = reference.logits(tensors["query"], tensors["key"], **plain, **rest)
    distance = torch.arange(logits.shape[3]) - torch.arange(logits.shape[2])[:, None]
    if tensors["alibi"] is not None:
        logits = logits - tensors["alibi"].double()[:, None, None] * (distance - options["alibi_offset"]).abs()
    for limit, beyond in zip(options["reach"], (torch.lt, torch.gt), strict=True):
        if limit is not None:
            logits = logits.masked_fill(beyond(distance, limit), -torch.inf)
    return reference.weights(logits, reference.lse(logits, tensors["sinks"])), logits


CASES = {
    "plain": Case(),
    "default scale": Case(scale=None),
    "scale below zero": Case(scale=-0.4, is_causal=True),
    "large logits": Case(spread=30.0),
    "causal": Case(is_causal=True),
    "causal, more rows": Case(length=31, keys=23, is_causal=True),
    "causal, square": Case(length=29, keys=29, is_causal=True),
    "one row": Case(length=1),
    "one key": Case(keys=1),
    "shared heads": Case(kv_heads=2),
    "shared heads, causal": Case(kv_heads=3, is_causal=True, length=29, keys=29),
    "window": Case(reach=(-5, 3), length=29, keys=29),
    "window, shared heads, sinks": Case(reach=(-3, None), kv_heads=2, sinks=True),
    "causal, shifted": Case(reach=(None, 8)),
    "band away from the corner, bias": Case(reach=(4, 9), bias="dense"),
    "window, causal, padding, softcap": Case(reach=(-4, 4), is_causal=True, allow="keys", softcap=1.3),
    "nothing in reach": Case(reach=(40, None)),
    "mask": Case(allow="dense"),
    "shared mask, causal": Case(allow="shared", is_causal=True),
    "padding": Case(allow="keys"),
    "padding, causal, shared heads": Case(allow="keys", is_causal=True, kv_heads=2),
    "padded rows": Case(allow="rows"),
    "padded rows, sinks": Case(allow="rows", sinks=True),  # an empty row's lse is then its sink, not -inf
    "bias": Case(bias="dense"),
    "bias of keys": Case(bias="keys", kv_heads=1),
    "bias and mask, causal": Case(bias="shared", allow="dense", is_causal=True),
    "softcap": Case(softcap=1.3),
    "softcap, causal, padding": Case(softcap=1.3, is_causal=True, allow="keys"),
    "sinks": Case(sinks=True),
    "sinks, causal, shared heads": Case(sinks=True, is_causal=True, kv_heads=2),
    "scale per head": Case(head_scale=True),
    "scale per head, shared heads, causal, sinks": Case(head_scale=True, kv_heads=2, is_causal=True, sinks=True),
    "scale per head, softcap, bias, alibi": Case(head_scale=True, softcap=1.3, bias="dense", alibi=8),
    "scale per head, rule": Case(head_scale=True, allow="heads"),
    "rule": Case(allow="global"),
    "rule of batch entries and a reach, shared heads": Case(allow="documents", kv_heads=2, reach=(-11, None)),
    "rule of heads, sinks, softcap, alibi": Case(allow="heads", sinks=True, softcap=1.3, alibi=0),
    "alibi": Case(alibi=8),
    "alibi, shared heads, causal, sinks": Case(alibi=0, kv_heads=2, is_causal=True, sinks=True, length=29, keys=29),
    "alibi, bias, mask": Case(alibi=-3, bias="shared", allow="dense"),
    "sinks, softcap, bias, mask": Case(sinks=True, softcap=2.1, bias="dense", allow="dense"),
}

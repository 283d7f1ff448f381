"""HookCache: a record under the names that TransformerLens gives a model's activations, computed on use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearhead.errors import CaptureError
from clearhead.matrix import AttentionMatrix, indexing

if TYPE_CHECKING:
    from clearhead.capture.record import Record

_ATTENTION = ("q", "k", "v", "z", "rot_q", "rot_k", "pattern", "attn_scores", "result")  # what is under `attn`


class HookCache(Mapping[str, Tensor]):
    """Hook name -> tensor, read like the cache of TransformerLens' `run_with_cache`.

    Each tensor is computed on access and not kept. `cache["pattern", 3]` is short for
    `cache["blocks.3.attn.hook_pattern"]`.

    Attributes:
        left_out: attention modules that have no hook name, with the reason.
    """

    def __init__(self, entries: Mapping[str, Callable[[], Tensor]], left_out: Mapping[str, str]) -> None:
        self._entries = dict(entries)
        self.left_out = dict(left_out)

    def __getitem__(self, name: str | tuple[str, int]) -> Tensor:
        full = hook_name(*name) if isinstance(name, tuple) else name
        if full not in self._entries:
            raise KeyError(f"there is no {full!r}. The names: {', '.join(self._entries) or 'none'}")
        return self._entries[full]()

    def __contains__(self, name: object) -> bool:
        return (hook_name(*name) if isinstance(name, tuple) else name) in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"HookCache({len(self)} names: {', '.join(list(self)[:4])} …)"


def hook_name(hook: str, layer: int) -> str:
    """The full name of a short one: ("pattern", 3) -> "blocks.3.attn.hook_pattern"."""
    hook = {"scores": "attn_scores", "attn": "pattern"}.get(hook, hook)
    return f"blocks.{layer}.{'attn.' if hook in _ATTENTION else ''}hook_{hook}"


def hook_cache(record: Record, *, rotary: bool | None = None) -> HookCache:
    """Return the cache of a record: the last call of each layer.

    Args:
        record: from `observe`.
        rotary: whether queries and keys are rotated before they are multiplied; None: as the observed model's modules
            and configuration say.
    """
    model = record._passes[0][0] if record._passes else None
    rotary = _rotates(model) if rotary is None else rotary
    kinds: dict[str, list[str]] = {}
    left_out: dict[str, str] = {}
    sides = {name: _side(record, name) for name in record}
    two_sided = any(side.startswith("decoder") for side in sides.values())
    for name, side in sides.items():
        if side == "other" and set(sides.values()) != {"other"}:
            left_out[name] = "its queries are not the text's tokens"
        else:
            kinds.setdefault(side, []).append(name)
    entries: dict[str, Callable[[], Tensor]] = {}
    for side, names in kinds.items():
        stem, part = ("decoder", "cross_attn") if side == "decoder cross" else ("encoder", "attn")
        stem = "decoder" if side == "decoder" else stem
        for layer, name in zip(_layers(names), names, strict=True):
            prefix = f"{stem if two_sided else 'blocks'}.{layer}.{part}.hook_"
            rotated = rotary and side != "decoder cross"
            entries |= {prefix + hook: make for hook, make in _of_layer(record, name, rotated).items()}
    return HookCache(entries, left_out)


def _of_layer(record: Record, name: str, rotary: bool) -> dict[str, Callable[[], Tensor]]:
    """Return the tensors of a layer: short name -> function that computes it."""
    A = record[name]
    prefix = "rot_" if rotary else ""
    entries: dict[str, Callable[[], Tensor]] = {
        f"{prefix}q": lambda: A.q.transpose(1, 2),
        f"{prefix}k": lambda: A.k.transpose(1, 2),
        "attn_scores": partial(_logits, A),
        "pattern": A.to_dense,
    }
    if A.v is not None:
        entries["v"] = lambda: record.v(name).transpose(1, 2)  # type: ignore[union-attr]
        entries["z"] = lambda: A.z.transpose(1, 2)
        try:
            results = record.contributions(name)
        except CaptureError:
            return entries
        entries["result"] = lambda: results.to_dense().transpose(1, 2)
    return entries


def _logits(A: AttentionMatrix) -> Tensor:
    """(B, H, L, S): scaled, biased and masked, before the softmax; -inf where a query may not attend."""
    indexing.guard(
        A.shape, A.dtype, indexing.LIMIT, "the attention scores", "Ask for A[b, h, rows, cols] of the record"
    )
    batch, heads, rows, cols = A.shape
    logits = A._wide
    blocks = [logits.block(b, slice(0, heads), slice(0, rows), slice(0, cols)) for b in range(batch)]
    return torch.stack(blocks).to(A.dtype)


def _side(record: Record, name: str) -> str:
    where = record.positions(name)[-1]
    if where.queries.sequence == "decoder" and where.keys.sequence != "decoder":
        return "decoder cross"
    return where.queries.sequence


def _layers(names: list[str]) -> list[int]:
    """Return the number of each layer: the number in its name that increases, or else its index in the record."""
    numbers = [[int(part) for part in name.split(".") if part.isdigit()] for name in names]
    if {len(parts) for parts in numbers} == {1}:
        layers = [parts[0] for parts in numbers]
        if layers == sorted(set(layers)):
            return layers
    return list(range(len(names)))


def _rotates(model: nn.Module | None) -> bool:
    if model is None:
        return False
    config: Any = getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    if any(getattr(config, name, None) is not None for name in ("rope_parameters", "rotary_dim")):
        return not getattr(config, "alibi", False)
    return any("rotary" in type(module).__name__.lower() for module in model.modules())

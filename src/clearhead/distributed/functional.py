"""`clearhead.distributed.attention`: attention over a sequence that is sharded over ranks."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clearhead.arguments import refuse_unreadable
from clearhead.distributed import dtensor, heads, ring
from clearhead.distributed.call import Call
from clearhead.distributed.exchange import Ranks
from clearhead.distributed.matrix import ShardedAttentionMatrix
from clearhead.distributed.placement import CONTIGUOUS, pieces
from clearhead.errors import OptionError, RanksError, ShapeError, shape_text
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.layout import Layout
from clearhead.kernels.calls.prepare import prepare
from clearhead.masks import Bias, Mask
from clearhead.masks.lower import split_alibi, split_reach
from clearhead.spec import Attention

RING, HEADS = "ring", "heads"
# What every rank says of its call, in this order; those of AGREE must be equal.
_REPORTED = (
    "ok", "L", "S", "B", "H", "H_kv", "D", "E", "dtype", "is_causal", "mask", "learns", "dropout_p", "scale", "softcap",
    "sinks", "seed",
)  # fmt: skip
_AGREE = _REPORTED[3:-1]
_NO_MASK, _BY_KEYS, _BY_ROWS, _RULE = range(4)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Mask | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    *,
    mesh: Any = None,
    placement: str = CONTIGUOUS,
    algorithm: str | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    return_lse: bool = False,
    return_matrix: bool = False,
    kernel: str | None = None,
) -> Any:
    """Compute exact softmax attention over a sequence of which each rank holds a part.

    The arguments are those of `clearhead.attention`, and each rank passes its own part of the queries and of the keys.
    Every rank of the mesh makes the same call.

    Args:
        query: (B, H, L_r, D), this rank's queries; or a DTensor, sharded over its sequence axis.
        key: (B, H_kv, S_r, D), this rank's keys.
        value: (B, H_kv, S_r, E).
        attn_mask: one of clearhead.masks, in positions of the whole sequence; or a tensor broadcastable to
            (B, H, L_r, S) or (B, H, L, S): this rank's rows or all rows, always with all keys in order of position.
            Sequences packed without padding: clearhead.masks.document.
        dropout_p: the same weights are dropped as on one process, by rank 0's random state.
        is_causal: position i of the queries may attend positions 0..i.
        mesh: a DeviceMesh of one axis or a process group; None = all processes, or a DTensor's own mesh.
        placement: which positions a rank holds: "contiguous", the r-th run; or "zigzag", of 2n runs the r-th and the
            (2n-1-r)-th, which gives every rank the same work under a causal mask. `shard` cuts a tensor so.
        algorithm: "ring" (keys and values travel, and each rank computes its rows), "heads" (each rank computes all
            rows of some heads), or None for whichever sends less and shares the work evenly.
        return_matrix: also return the weights of this rank's rows as a ShardedAttentionMatrix.

    Returns:
        out (B, H, L_r, E), a DTensor where query is one; or a tuple (out[, lse][, matrix]). lse is (B, H, L_r).
        Gradients flow to query, key, value, biases and sinks. The gradient of an (H,) tensor is this rank's part; the
        sum over ranks is the whole, as data-parallel wrappers form it.

    Raises:
        RanksError: torch.distributed is not started, the calls of the ranks differ, or a rank has ended.
        ShapeError, DtypeError, OptionError: as `clearhead.attention`, on the rank that made the mistake; the others
            raise RanksError.

    Memory: O(B·H·(L_r + S_r)·D): what a rank holds, and the keys and values of two other ranks.

    Source: Liu et al. 2023 (ring attention); Jacobs et al. 2023 (Ulysses); Brandon et al. 2023 (striped placement).

    Example: on one process.
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> q, k, v = torch.randn(3, 1, 2, 8, 4)
        >>> attention(q, k, v, is_causal=True).shape
        torch.Size([1, 2, 8, 4])
        >>> dist.destroy_process_group()
    """
    own, mesh = dtensor.own(mesh, query=query, key=key, value=value, sinks=sinks)
    ranks = Ranks.of(mesh)
    options = {"attn_mask": attn_mask, "dropout_p": dropout_p, "is_causal": is_causal, "softcap": softcap}
    given = _agree(ranks, lambda: _describe(own, scale, enable_gqa, options), own["query"])
    call, layout, described = _plan(ranks, given, placement, kernel)
    how = choose(given, algorithm, placement)
    if how == HEADS:
        # A rule is evaluated for gathered keys, whose band and slopes it must know itself: none of it is taken out.
        whole = described if call.rule is None else given.unmasked.change(rule=attn_mask)
        result = heads.run(call, layout.query, layout.key, layout.value, whole)
    else:
        result = ring.run(call, layout.query, layout.key, layout.value, described)
    out, lse = layout.outward(result.out), result.lse
    matrix = None
    if return_matrix:
        weights = described.change(dropout_p=0.0, seed=0)
        matrix = ShardedAttentionMatrix(call, layout.query, layout.key, layout.value, weights, lse)
    back = dtensor.like(query, out)
    if not (return_lse or return_matrix):
        return back
    parts = (back, layout.outward(lse) if return_lse else None, matrix)
    return tuple(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True)
class Given:
    """A call as all ranks made it.

    Attributes:
        layout, attention: this rank's tensors, and what lies between Q·Kᵀ and the weights.
        unmasked: the attention without what a mask of clearhead.masks says.
        rule, added: the parts of its mask that are evaluated in blocks.
        mask: which kind of mask it is.
        reported: what each rank reports of its call, by name.
    """

    layout: Layout
    attention: Attention
    unmasked: Attention
    rule: Mask | None
    added: Bias | None
    attn_mask: Any
    mask: int
    reported: list[dict[str, int]]

    def every(self, name: str) -> list[int]:
        """What each rank reports of one thing."""
        return [numbers[name] for numbers in self.reported]


def choose(given: Given, algorithm: str | None, placement: str) -> str:
    """How to share the work: the algorithm asked for, or the one that sends less and is balanced.

    Raises:
        OptionError: heads cannot be shared out here.
    """
    reported, ranks = given.reported[0], len(given.reported)
    why_not = _refuses_heads(given, ranks)
    if algorithm not in (None, RING, HEADS):
        raise OptionError(f"algorithm={algorithm!r} is not known. Use 'ring', 'heads', or None to choose.")
    if algorithm == HEADS and why_not is not None:
        raise OptionError(f"algorithm='heads' cannot compute this: {why_not}. Use algorithm='ring'.")
    if algorithm is not None or why_not is not None or ranks == 1:
        return algorithm or RING
    both = reported["D"] + reported["E"]
    queries, keys = sum(given.every("L")) * reported["H"] * both, sum(given.every("S")) * reported["H_kv"] * both
    unbalanced = bool(reported["is_causal"]) and placement == CONTIGUOUS
    return HEADS if unbalanced or queries + keys < ranks * keys else RING


def _refuses_heads(given: Given, ranks: int) -> str | None:
    reported = given.reported[0]
    if reported["H"] % ranks or reported["H_kv"] % ranks:
        return f"{ranks} ranks do not divide {reported['H']} query heads and {reported['H_kv']} key heads"
    if reported["dropout_p"]:
        return "a dropout pattern is drawn for all heads together"
    if given.mask == _BY_ROWS:
        return "each rank has the mask of its own rows"
    if given.rule is not None and given.rule.sizes()[1] is not None:
        return "the mask differs by head"
    if given.added is not None or (given.rule is not None and given.attn_mask.bias is not None):
        return "the mask adds biases and is more than a band"
    return None


def _describe(own: dict[str, Any], scale: Any, enable_gqa: bool, options: dict[str, Any]) -> Given:
    """Check this rank's call, and describe it."""
    query, key, value, sinks = own["query"], own["key"], own["value"], own["sinks"]
    attn_mask = options["attn_mask"]
    checks.tensors(query, key, value)
    refuse_unreadable(query=query, key=key, value=value, sinks=sinks)
    dropout_p, scale = checks.number("dropout_p", options["dropout_p"]), checks.number("scale", scale)
    checks.dropout(dropout_p)
    if dropout_p == 1:
        raise OptionError("dropout_p is 1, which drops every weight. Multiply the output by 0.")
    if attn_mask is not None and options["is_causal"]:
        raise OptionError(
            "attn_mask is given and is_causal is True; expected one of them. "
            "Write the causal part into the mask: attn_mask=clearhead.masks.causal() & your_mask."
        )
    layout, problem = prepare(
        query, key, value, None, options["is_causal"], scale, enable_gqa, options["softcap"], sinks, float(dropout_p)
    )
    attention, rule, added, kind = problem.attention, None, None, _NO_MASK
    if isinstance(attn_mask, Mask):
        reach, rule = split_reach(attn_mask.allow)
        slopes, offset, added = split_alibi(attn_mask.bias)
        slopes = slopes if slopes is None else slopes.to(query.device)
        attention = attention.under(Attention.of(reach=reach, alibi=slopes, first_query=offset))
        kind = _RULE
    elif attn_mask is not None:
        kind = (
            _BY_ROWS if isinstance(attn_mask, Tensor) and attn_mask.dim() > 1 and attn_mask.shape[-2] > 1 else _BY_KEYS
        )
    return Given(layout, attention, problem.attention, rule, added, attn_mask, kind, [])


def _agree(ranks: Ranks, describe: Any, query: Any) -> Given:
    """This rank's call, once it is known that every rank made the same one.

    A rank whose own call is wrong says so to the others before it raises, so that none waits.
    """
    device = query.device if isinstance(query, Tensor) else torch.device("cpu")
    try:
        given = describe()
    except Exception:
        ranks.gather_numbers([0] * len(_REPORTED), device)
        raise
    reported = [dict(zip(_REPORTED, numbers, strict=True)) for numbers in ranks.gather_numbers(_numbers(given), device)]
    wrong = [rank for rank, numbers in enumerate(reported) if not numbers["ok"]]
    if wrong:
        raise RanksError(
            f"rank {wrong[0]} refused its own call, so this rank does not compute. Look at that rank's error."
        )
    for name in _AGREE:
        values = [numbers[name] for numbers in reported]
        if len(set(values)) > 1:
            other = next(rank for rank, each in enumerate(values) if each != values[0])
            shown = f" (rank 0 has {values[0]}, rank {other} has {values[other]})" if name in "BHDEH_kv" else ""
            raise RanksError(
                f"the calls of rank 0 and rank {other} differ in {name}{shown}. "
                f"Every rank makes the same call with its own part of the sequence."
            )
    return replace(given, reported=reported)


def _numbers(given: Given) -> list[int]:
    layout, attention = given.layout, given.attention
    (batch, heads, length, width), (_, kv_heads, keys, _) = layout.query.shape, layout.key.shape
    tensors = (layout.query, layout.key, layout.value)
    learns = torch.is_grad_enabled() and (any(t.requires_grad for t in tensors) or bool(attention.learning()))
    learns = learns or (torch.is_grad_enabled() and getattr(given.attn_mask, "requires_grad", False))
    seed = int(torch.randint(2**62, (), device="cpu")) if attention.dropout_p else 0
    return [
        1, length, keys, batch, heads, kv_heads, width, layout.value.shape[3], checks.DTYPES.index(layout.query.dtype),
        int(attention.is_causal), given.mask, int(learns), _bits(attention.dropout_p), _bits(attention.scale),
        _bits(attention.softcap or 0.0), int(attention.sinks is not None), seed,
    ]  # fmt: skip


def _bits(number: float) -> int:
    """A float as an integer that is equal for equal floats."""
    return int(struct.unpack("<q", struct.pack("<d", float(number)))[0])


def _plan(ranks: Ranks, given: Given, placement: str, kernel: str | None) -> tuple[Call, Layout, Attention]:
    layout, reported = given.layout, given.reported[0]
    call = Call(
        ranks,
        pieces(placement, given.every("L")),
        pieces(placement, given.every("S")),
        reported["B"],
        reported["H_kv"],
        reported["D"],
        reported["E"],
        given.rule,
        given.added,
        kernel,
    )
    attention = given.attention
    length, keys = call.total(call.query_pieces), call.total(call.key_pieces)
    if given.mask == _RULE:
        whole = layout.query.new_empty(0).expand(reported["B"], reported["H"], length, 0)
        checks.rule(given.attn_mask, whole, layout.key.new_empty(0).expand(1, 1, keys, 0), False)
    elif given.mask != _NO_MASK:
        attention = attention.change(**_own_rows(call, layout, given.attn_mask, length, keys))
    if attention.dropout_p:
        attention = attention.change(seed=reported["seed"])
    return call, layout, attention


def _own_rows(call: Call, layout: Layout, mask: Tensor, length: int, keys: int) -> dict[str, Tensor]:
    """A mask tensor with this rank's rows and all keys, as the field of an attention that it is."""
    own = layout.query.shape[2]
    if mask.dim() > 1 and mask.shape[-2] == length != own:
        parts = [mask[..., piece.positions, :] for piece in call.query_pieces[call.ranks.rank]]
        mask = torch.cat(parts, -2)
    if mask.dim() > 1 and mask.shape[-1] not in (1, keys):
        raise ShapeError(
            f"attn_mask has {mask.shape[-1]} keys, the whole sequence has {keys} "
            f"({shape_text('attn_mask', mask.shape, '')}). Each rank passes its own rows over all keys; to mask the "
            f"padding of packed batches use clearhead.masks.padding."
        )
    checks.mask(mask, (*layout.lead, own, keys), layout.query, False)
    inward = layout.inward(mask)
    return {"allow" if mask.dtype is torch.bool else "bias": inward}

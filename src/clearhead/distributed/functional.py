"""`clearhead.distributed.attention`: attention over a sequence that is sharded over ranks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from clearhead.distributed import agreement, comparing, dtensor, heads, ring
from clearhead.distributed.agreement import AgreedCall
from clearhead.distributed.call import HEADS, RING, Call
from clearhead.distributed.exchange import Ranks
from clearhead.distributed.matrix import ShardedAttentionMatrix
from clearhead.distributed.placement import CONTIGUOUS, pieces
from clearhead.errors import OptionError, ShapeError, shape_text
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.layout import Layout
from clearhead.masks import Mask
from clearhead.spec import Attention


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
    """Compute exact softmax attention over a sequence that is sharded over ranks.

    The arguments are those of `clearhead.attention`; each rank passes its own part of the queries and of the keys.
    Every rank of the mesh must make the same call.

    Args:
        query: (B, H, L_r, D), this rank's queries; or a DTensor, sharded over its sequence axis.
        key: (B, H_kv, S_r, D), this rank's keys.
        value: (B, H_kv, S_r, E).
        attn_mask: one of clearhead.masks, in positions of the whole sequence; or a tensor broadcastable to
            (B, H, L_r, S) or (B, H, L, S): this rank's rows or all rows, always with all keys in order of position.
            Sequences packed without padding: clearhead.masks.document.
        dropout_p: the pattern is that of one process with rank 0's random state.
        is_causal: the query at position i may attend positions 0..i.
        mesh: a DeviceMesh of one axis or a process group; None = all processes, or a DTensor's own mesh.
        placement: which positions a rank holds: "contiguous", the r-th run; or "zigzag", the r-th and the (2n-1-r)-th
            of 2n runs, which gives every rank the same work under a causal mask. `shard` makes these parts.
        algorithm: "ring" (keys and values travel, and each rank computes its rows), "heads" (each rank computes all
            rows of some heads), or None for the one that sends less and balances the work.
        return_matrix: also return the weights of this rank's rows as a ShardedAttentionMatrix.

    Returns:
        out (B, H, L_r, E), a DTensor if query is one; or a tuple (out[, lse][, matrix]). lse is (B, H, L_r). Gradients
        flow to query, key, value, biases and sinks. The gradient of an (H,) tensor is this rank's part; its sum over
        ranks, which data-parallel wrappers compute, is the whole gradient.

    Raises:
        RanksError: torch.distributed is not initialised, the calls of the ranks differ, or a rank has ended.
        ShapeError, DtypeError, OptionError: as `clearhead.attention`, on the rank with the wrong arguments; the others
            raise RanksError.

    Memory: O(B·H·(L_r + S_r)·D): the rank's own part, and the keys and values of two other ranks.

    Source: Liu et al. 2023 (ring attention); Jacobs et al. 2023 (Ulysses); Brandon et al. 2023 (striped placement).

    Example: on one process.
        >>> import torch.distributed as dist
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> q, k, v = torch.randn(3, 1, 2, 8, 4)
        >>> attention(q, k, v, is_causal=True).shape
        torch.Size([1, 2, 8, 4])
        >>> dist.destroy_process_group()
    """
    try:
        own, mesh = dtensor.own(mesh, query=query, key=key, value=value, sinks=sinks)
    except Exception:
        agreement.refuse(mesh, query)
        raise
    ranks = Ranks.of(mesh)
    options = {
        "attn_mask": attn_mask,
        "dropout_p": dropout_p,
        "is_causal": is_causal,
        "scale": scale,
        "enable_gqa": enable_gqa,
        "softcap": softcap,
        "placement": placement,
        "algorithm": algorithm,
        "kernel": kernel,
    }
    given = agreement.agree(ranks, own, options)
    call, layout, described = _plan(ranks, given, placement, kernel)
    chosen, number = choose(given, algorithm, placement), given.reports[0].number
    if chosen == HEADS:
        # The rule is evaluated for gathered keys, so its band and slopes stay part of it.
        whole = described if call.rule is None else given.unmasked.change(rule=attn_mask)
        learns = bool(given.reports[0].learns)
        result = heads.run(call, layout.query, layout.key, layout.value, whole, number, learns=learns)
    else:
        result = ring.run(call, layout.query, layout.key, layout.value, described, number)
    answers = [dtensor.like(query, layout.outward(result.out))]
    if return_lse:
        answers.append(layout.outward(result.lse))
    if return_matrix:
        weights = described.change(dropout_p=0.0, seed=0)
        answers.append(ShardedAttentionMatrix(call, layout.query, layout.key, layout.value, weights, result.lse))
    return answers[0] if len(answers) == 1 else tuple(answers)


def choose(given: AgreedCall, algorithm: str | None, placement: str) -> str:
    """Return the given algorithm, or the one that sends less and balances the work.

    Raises:
        OptionError: the given algorithm is "heads", which does not support this call.
    """
    first, ranks = given.reports[0], len(given.reports)
    reason = _refuses_heads(given, ranks)
    if algorithm == HEADS and reason is not None:
        raise OptionError(f"algorithm='heads' does not support this call: {reason}. Use algorithm='ring'.")
    if algorithm is not None or reason is not None or ranks == 1:
        return algorithm or RING
    both = first.width + first.value_width
    queries = sum(given.lengths) * first.heads * both
    keys = sum(given.key_lengths) * first.kv_heads * both
    unbalanced = bool(first.is_causal) and placement == CONTIGUOUS
    return HEADS if unbalanced or queries + keys < ranks * keys else RING


def _refuses_heads(given: AgreedCall, ranks: int) -> str | None:
    first = given.reports[0]
    if first.heads % ranks or first.kv_heads % ranks:
        return f"{ranks} ranks do not divide {first.heads} query heads and {first.kv_heads} key heads"
    if first.dropout_p:
        return "the dropout pattern is drawn for all heads together"
    if any(report.by_rows for report in given.reports):
        return "the mask has rows, and each rank has only its own"
    if given.rule is not None and given.rule.sizes()[1] is not None:
        return "the mask differs by head"
    if given.added is not None or (given.rule is not None and given.attn_mask.bias is not None):
        return "the mask has a bias and is more than a band"
    return None


def _plan(ranks: Ranks, given: AgreedCall, placement: str, kernel: str | None) -> tuple[Call, Layout, Attention]:
    layout, first = given.layout, given.reports[0]
    call = Call(
        ranks,
        query_pieces=pieces(placement, given.lengths),
        key_pieces=pieces(placement, given.key_lengths),
        batch=first.batch,
        kv_heads=first.kv_heads,
        width=first.width,
        value_width=first.value_width,
        rule=given.rule,
        added=given.added,
        kernel=kernel,
    )
    attention = given.attention
    length, keys = call.total(call.query_pieces), call.total(call.key_pieces)
    if given.mask != agreement.NO_MASK:
        own = _checked_rule if given.mask == agreement.RULE else _own_rows
        made = comparing.together(ranks, lambda: own(call, layout, given.attn_mask, length, keys), layout.query)
        attention = attention.change(**made)
    if attention.dropout_p:
        attention = attention.change(seed=first.seed)
    return call, layout, attention


def _checked_rule(call: Call, layout: Layout, mask: Mask, length: int, keys: int) -> dict[str, Tensor]:
    """Check the sizes of one of clearhead.masks, which adds no field to the attention."""
    whole = layout.query.new_empty(0).expand(call.batch, layout.query.shape[1], length, 0)
    checks.rule(mask, whole, layout.key.new_empty(0).expand(1, 1, keys, 0), False)
    return {}


def _own_rows(call: Call, layout: Layout, mask: Tensor, length: int, keys: int) -> dict[str, Tensor]:
    """Return a mask tensor, cut to this rank's rows and all keys, as a field of the attention."""
    own = layout.query.shape[2]
    if mask.dim() > 1 and 1 != mask.shape[-2] == length != own:
        parts = [mask[..., piece.positions, :] for piece in call.query_pieces[call.ranks.rank]]
        mask = torch.cat(parts, -2)
    if mask.dim() > 1 and mask.shape[-1] not in (1, keys):
        raise ShapeError(
            f"attn_mask has {mask.shape[-1]} keys, but the whole sequence has {keys} "
            f"({shape_text('attn_mask', mask.shape, '')}). Pass this rank's rows over all keys; to mask the "
            f"padding of packed batches use clearhead.masks.padding."
        )
    checks.mask(mask, (*layout.lead, own, keys), layout.query, False)
    inward = layout.inward(mask)
    return {"allow" if mask.dtype is torch.bool else "bias": inward}

"""The products A @ X and Aᵀ @ Y, computed by the attention kernels in O((L + S)·W) memory.

A rectangle of the matrix is an attention too; its share of the whole rows is exp(lse_part - lse).
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import kernels
from clearhead.matrix.logits import BLOCK, NEG_INF, Logits, blocks, finite
from clearhead.spec import repeat_heads

# Kernels are tuned for head widths, so wider operands are multiplied in pieces.
WIDEST = 128


def forward(logits: Logits, columns: Tensor, lse: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Multiply the whole matrix by columns.

    Args:
        logits: the matrix, in the dtype to compute in.
        columns: (B, H_kv or H, S, W), the same dtype.
        lse: (B, H, L), the log-sum-exp of the rows, sinks included; None = computed on the way.

    Returns:
        out (B, H, L, W); lse (B, H, L); mass (B, H, L), the sum of the weights of each row: 1, less with sinks, 0 in an
        empty row.
    """
    out, bare = _run(logits.change(sinks=None), columns)
    if lse is None:
        if logits.attention.sinks is None:
            return out, bare, (bare > NEG_INF).to(out.dtype)
        lse = torch.logaddexp(bare, logits.attention.sinks.to(bare.dtype)[:, None])
    mass = torch.exp(bare - finite(lse))
    return out * mass.unsqueeze(-1).to(out.dtype), lse, mass


def normaliser(logits: Logits) -> Tensor:
    """Return the log-sum-exp of each row, sinks included: (B, H, L)."""
    column = logits.query.new_zeros(1, 1, 1, 1).expand(*logits.key.shape[:3], 1)
    return forward(logits, column)[1]


def partial(logits: Logits, columns: Tensor, lse: Tensor, rows: slice, cols: slice) -> Tensor:
    """Multiply one rectangle of the matrix by columns.

    Args:
        logits: the whole matrix.
        columns: (B, H_kv or H, cols, W).
        lse: (B, H, L), the log-sum-exp of the whole rows.
        rows, cols: the rectangle, each a slice with start and stop.

    Returns:
        (B, H, rows, W): Σ over the rectangle's keys of weight · column.
    """
    out, part_lse = _run(logits.change(sinks=None).part(rows, cols), columns)
    return out * torch.exp(part_lse - finite(lse[:, :, rows])).unsqueeze(-1).to(out.dtype)


def transposed(logits: Logits, lse: Tensor, columns: Tensor) -> Tensor:
    """Compute Aᵀ @ columns, by forward passes alone where possible.

    With queries [s·K, 1] and keys [Q, -lse], softmax over the original queries gives out′ and lse′ with
    Aᵀ Y = exp(lse′) · out′. The band is mirrored.

    Args:
        logits: the matrix, float32 or wider.
        lse: (B, H, L), the log-sum-exp of its rows.
        columns: (B, H, L, W).

    Returns:
        (B, H, S, W).
    """
    own = logits.attention
    if not replace(own, alibi=None).is_bilinear or logits.has_dense_mask:
        return _transposed_blockwise(logits, lse, columns)
    heads = logits.shape[1]
    if own.allow is not None and own.allow.shape[3] == 1:  # a fully masked row has no weights, with sinks or without
        lse = lse.masked_fill(~own.allow[..., 0], NEG_INF)
    # An empty row must have weight 0. exp(-1e7) is 0, and unlike -inf, -1e7 stays finite inside a product. With a much
    # larger number the rounding error in float32 exceeds 1, and the kernels' exp of it could be anything.
    offsets = torch.where(lse == NEG_INF, -1e7, -lse).unsqueeze(-1)
    swapped_key = torch.cat([logits.query, offsets.to(logits.query.dtype)], dim=-1)
    key = repeat_heads(logits.key, heads)
    swapped_query = torch.cat([key * own.multiplier, torch.ones_like(key[..., :1])], dim=-1)
    mirrored = replace(own, allow=None, sinks=None).transposed().unscaled()
    out, columns_lse = _run(Logits(swapped_query, swapped_key, mirrored), columns)
    out = out * torch.exp(columns_lse).unsqueeze(-1).to(out.dtype)
    if own.allow is not None and own.allow.shape[3] > 1:
        out = out.masked_fill(~own.allow.transpose(2, 3), 0.0)
    return out


@kernels.in_own_dtype
def _transposed_blockwise(logits: Logits, lse: Tensor, columns: Tensor) -> Tensor:
    batch, heads, _, keys = logits.shape
    sums: dict[tuple[int, int], Tensor] = {}
    for block in blocks(logits):
        part = block.weights(lse).transpose(-1, -2) @ columns[block.batch, block.heads, block.rows]
        part = F.pad(part, (0, 0, block.cols.start, keys - block.cols.stop))
        where = (block.batch, block.heads.start)
        sums[where] = sums[where] + part if where in sums else part
    if not sums:
        return columns.new_zeros(batch, heads, keys, columns.shape[-1])
    starts = sorted({head for _, head in sums})
    return torch.stack([torch.cat([sums[b, head] for head in starts]) for b in range(batch)])


def _run(logits: Logits, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Compute one attention with `columns` as its values, for any width, number of heads and mask."""
    own = logits.attention
    if own.scale <= 0:  # torch's flash operator multiplies a masked -inf by it, which gives NaN (torch 2.13)
        logits = Logits(own.scale_query(logits.query), logits.key, own.unscaled())
    batch, heads, rows, keys = logits.shape
    width, dim = columns.shape[-1], logits.query.shape[-1]
    key = logits.key if columns.shape[1] == logits.key.shape[1] else repeat_heads(logits.key, heads)
    piece_width = max(dim, min(width, WIDEST))
    query, key = _widen(logits.query, piece_width), _widen(key, piece_width)
    step = rows
    if logits.has_dense_mask:
        # A kernel may convert a boolean mask to float, so pass a few rows at a time.
        step = logits.rows_at_once(BLOCK)
    outs, lses = [], []
    for start in range(0, rows, max(step, 1)):
        piece = replace(logits, query=query, key=key)
        if step < rows:
            piece = piece.part(slice(start, min(start + step, rows)), slice(0, keys))
        results = [
            kernels.run(problem(piece, _widen(part, piece_width))) for part in columns.split(piece_width, dim=-1)
        ]
        outs.append(torch.cat([result.out for result in results], dim=-1)[..., :width])
        lses.append(results[0].lse)
    if not outs:
        return columns.new_zeros(batch, heads, 0, width), columns.new_zeros(batch, heads, 0)
    return (outs[0], lses[0]) if len(outs) == 1 else (torch.cat(outs, dim=2), torch.cat(lses, dim=2))


def problem(logits: Logits, value: Tensor) -> kernels.Problem:
    """Return the problem whose weights, before sinks, are the matrix. A rule becomes a tensor."""
    attention = replace(
        logits.attention.join_biases(), sinks=None, rule=None, allow=logits.allowed(range(logits.shape[2]))
    )
    return kernels.Problem(logits.query, logits.key, value, attention)


def _widen(tensor: Tensor, width: int) -> Tensor:
    """Append zero columns, which change no product: equal widths allow the fastest kernels."""
    return tensor if tensor.shape[-1] >= width else F.pad(tensor, (0, width - tensor.shape[-1]))

"""Variable-length sequences without padding: packed with offsets, or as torch's nested tensors."""

import math
from typing import Any

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.arguments import checked
from clearhead.errors import OptionError, ShapeError, shape_text
from clearhead.kernels.calls import checks
from clearhead.multihead.fused import fused
from clearhead.spec import Attention, divide_heads


@checked()
def attention_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: Tensor,
    key_offsets: Tensor | None = None,
    *,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    return_lse: bool = False,
    kernel: str | None = None,
) -> Any:
    """Compute attention within each of several sequences packed one after the other.

    Args:
        query: (T, H, D), the queries of all sequences.
        key: (U, H_kv, D); H_kv divides H.
        value: (U, H_kv, E).
        offsets: (N + 1,) integers from 0 to T: sequence n is query[offsets[n]:offsets[n + 1]].
        key_offsets: the same for key and value; default `offsets`.
        dropout_p, is_causal, scale, softcap, sinks, kernel: as in `attention`; causal is within each sequence.
        return_lse: also return lse, (T, H).
    Returns:
        out (T, H, E), or (out, lse).
    Raises:
        ShapeError: the offsets do not ascend from 0 to the length.
    Memory: O(T·H·D), without padding.

    Example:
        >>> q, k, v = torch.randn(3, 7, 2, 8)
        >>> out = attention_varlen(q, k, v, torch.tensor([0, 3, 7]))
        >>> import clearhead
        >>> first = clearhead.attention(*(x[:3].transpose(0, 1) for x in (q, k, v))).transpose(0, 1)
        >>> torch.allclose(out[:3], first, atol=1e-6)
        True
    """
    kernels.refuse_tracing("attention_varlen, whose slices depend on the values of its offsets")
    checks.tensors(query, key, value)
    query, key, value = kernels.autocast(query, key, value)
    checks.inputs(query, key, value)
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.dim() != 3:
            raise ShapeError(f"{name} must have axes T,H,D ({shape_text(name, tensor.shape, '')}).")
    heads = tuple(tensor.shape[1] for tensor in (query, key, value))
    if heads[1] != heads[2] or divide_heads(heads[0], heads[1]) < 0:
        raise ShapeError(f"query, key and value have {heads} heads; expected H, H_kv, H_kv where H_kv divides H.")
    checks.widths(*(tensor.transpose(0, 1) for tensor in (query, key, value)))
    dropout_p, scale, softcap = map(checks.number, (dropout_p, scale, softcap))
    checks.dropout(dropout_p)
    checks.options(scale, softcap, sinks, query.shape[1], query)
    rows = _bounds("offsets", offsets, query.shape[0])
    cols = (
        rows
        if key_offsets is None and len(key) == len(query)
        else _bounds("key_offsets", offsets if key_offsets is None else key_offsets, key.shape[0])
    )
    if len(rows) != len(cols):
        raise ShapeError(
            f"offsets give {len(rows) - 1} sequences, key_offsets {len(cols) - 1}; expected the same number."
        )
    scale = scale if scale is not None else 1 / math.sqrt(query.shape[-1] or 1)
    outs, lses = [query.new_empty(0, query.shape[1], value.shape[2])], [query.new_empty(0, query.shape[1])]
    lses[0] = lses[0].to(torch.promote_types(query.dtype, torch.float32))
    attention = Attention.of(scale, is_causal=is_causal, softcap=softcap, sinks=sinks, dropout_p=float(dropout_p))
    for n in range(len(rows) - 1):
        parts = (query[rows[n] : rows[n + 1]], key[cols[n] : cols[n + 1]], value[cols[n] : cols[n + 1]])
        q, k, v = (part.transpose(0, 1).unsqueeze(0) for part in parts)
        result = fused(kernels.Problem(q, k, v, attention), kernel)
        outs.append(result.out[0].transpose(0, 1))
        lses.append(result.lse[0].transpose(0, 1))
    out = torch.cat(outs)
    return (out, torch.cat(lses)) if return_lse else out


def _bounds(name: str, offsets: Tensor, total: int) -> list[int]:
    """Check the offsets; return them as numbers."""
    if not isinstance(offsets, Tensor) or offsets.dim() != 1 or offsets.is_floating_point() or offsets.is_complex():
        given = f"{offsets.dtype} of shape {tuple(offsets.shape)}" if isinstance(offsets, Tensor) else repr(offsets)
        raise ShapeError(f"{name} is {given}; expected a tensor of N + 1 integers, torch.tensor([0, ..., {total}]).")
    bounds = [int(bound) for bound in offsets.tolist()]
    if not bounds or bounds[0] != 0 or bounds[-1] != total or bounds != sorted(bounds):
        raise ShapeError(
            f"{name} is {bounds}; expected N + 1 numbers for N sequences, ascending from 0 to {total}. "
            f"From lengths: torch.nn.functional.pad(lengths.cumsum(0), (1, 0))."
        )
    return bounds


def attention_nested(query: Tensor, key: Tensor, value: Tensor, call: Any, options: dict[str, Any]) -> Any:
    """Compute `attention` on nested tensors (N, H, j, D), one sequence at a time; the output is nested too.

    Args:
        call: `attention` for plain tensors.
        options: its other arguments. A mask, lse or matrix has no nested form and is refused.
    """
    kernels.refuse_tracing("attention on nested tensors")
    for name in ("attn_mask", "return_lse", "return_matrix"):
        if options.get(name) is not None and options.get(name) is not False:
            raise OptionError(
                f"{name} is not supported with nested tensors. Use offsets (attention_varlen) or padding."
            )
    if not (query.is_nested and key.is_nested and value.is_nested):
        raise OptionError("some of query, key and value are nested and some are not. Nest all three, or none.")
    components = zip(query.unbind(), key.unbind(), value.unbind(), strict=True)
    outs = [call(q, k, v, **{**options, "enable_gqa": True}) for q, k, v in components]
    if query.layout == torch.jagged:
        # Jagged tensors store their ragged axis next to the batch, (N, j, H, E); this one is a view (N, H, j, E).
        values = torch.cat([out.transpose(0, 1) for out in outs])
        nested = torch.nested.nested_tensor_from_jagged(values, query.transpose(1, 2).offsets())  # type: ignore[attr-defined]
        return nested.transpose(1, 2)
    return torch.nested.as_nested_tensor(outs)


def to_padded(nested: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """Pad a nested (N, j, E): return (N, L, E), its key_padding_mask (N, L), True = padding, and the lengths."""
    lengths = [len(part) for part in nested.unbind()]
    padded = torch.nested.to_padded_tensor(nested, 0.0)
    places = torch.arange(padded.shape[1], device=padded.device)
    return padded, places >= torch.tensor(lengths, device=padded.device)[:, None], lengths


def to_nested(padded: Tensor, lengths: list[int], layout: torch.layout) -> Tensor:
    """Invert `to_padded`: drop the padding and nest the rows."""
    parts = [row[:length] for row, length in zip(padded, lengths, strict=True)]
    return torch.nested.as_nested_tensor(parts, layout=layout)

"""Validation of the arguments of attention. Called once, before anything is computed.

Each error also has the built-in type that torch raises for the same mistake.
"""

import sys
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any, cast

import torch
from torch import Tensor

from clearhead.errors import DeviceError, DtypeError, OptionError, RankError, ShapeError, shape_text
from clearhead.kernels.native.library import library, reads_tensors
from clearhead.kernels.tracing import untraced
from clearhead.masks import Mask
from clearhead.spec import divide_heads
from clearhead.spec.validation import broadcasts

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def axes(rank: int, last: str = "L,D") -> str:
    """Return the axis letters of a tensor with that many axes.

    >>> axes(4), axes(3, "S,D"), axes(5)
    ('B,H,L,D', 'B,S,D', '*,B,H,L,D')
    """
    return {2: "", 3: "B,", 4: "B,H,"}.get(rank, "*,B,H,") + last


def tensors(query: Any, key: Any, value: Any) -> None:
    """Check that the three tensors are tensors."""
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if not isinstance(tensor, Tensor):
            raise DtypeError(
                f"{name} is a {type(tensor).__name__}, expected a torch.Tensor. Make one with torch.tensor()."
            )


@untraced
def number(value: Any) -> Any:
    """Convert a tensor without axes, or numpy's number, to a number, as torch does; return anything else unchanged."""
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Real):
        return float(value)
    if not isinstance(value, Tensor) or value.dim() != 0 or value.requires_grad or value.is_complex():
        return value
    return value.item()


def inputs(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check that the three tensors have one floating dtype, one device, and at least two axes."""
    named = (("query", query, "L,D"), ("key", key, "S,D"), ("value", value, "S,D"))
    for name, tensor, last in named:
        if tensor.dim() < 2:
            raise RankError(
                f"{name} has {tensor.dim()} axes, expected at least 2, (..., {last}) "
                f"({shape_text(name, tensor.shape, '')}). Add the missing axes with unsqueeze."
            )
    for name, tensor, _ in named[1:]:
        if tensor.dtype != query.dtype:
            raise DtypeError(
                f"{name} is {tensor.dtype}, query is {query.dtype}. Convert one of them: {name}.to({query.dtype})."
            )
        if tensor.device != query.device:
            raise DeviceError(
                f"{name} is on {tensor.device}, query is on {query.device}. Move it: {name}.to(query.device)."
            )
    if query.dtype not in DTYPES:
        raise DtypeError(
            f"query, key and value are {query.dtype}; attention supports "
            f"{', '.join(str(dtype).removeprefix('torch.') for dtype in DTYPES)}. Convert with .to(torch.float32)."
        )


def widths(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check head_dim of query against key, and the length of key against value."""
    if key.shape[-1] != query.shape[-1]:
        raise ShapeError(
            f"key has head_dim {key.shape[-1]}, query has head_dim {query.shape[-1]} "
            f"({_shape('key', key, 'S,D')}; {_shape('query', query)}). "
            f"Use the same embed_dim // num_heads for both projections."
        )
    if key.shape[-2] != value.shape[-2]:
        raise ShapeError(
            f"key has length {key.shape[-2]}, value has length {value.shape[-2]} "
            f"({_shape('key', key, 'S,D')}; {_shape('value', value, 'S,D')}). Each key needs one value."
        )


def broadcast_batches(shapes: Sequence[Sequence[int]], query: Tensor, key: Tensor, value: Tensor) -> list[int]:
    """Return the broadcast batch axes of the three tensors, or raise an error with their shapes."""
    try:
        return list(torch.broadcast_shapes(*shapes))
    except RuntimeError:
        raise ShapeError(
            f"the batch axes of query, key and value do not broadcast "
            f"({_shape('query', query)}; {_shape('key', key, 'S,D')}; {_shape('value', value, 'S,D')}). "
            f"Give each batch axis one size in all three, or size 1."
        ) from None


def grouped_heads(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> int:
    """Return the number of heads of (B, H, ·, ·) tensors whose batches are already broadcast."""
    heads, kv_heads, value_heads = query.shape[1], key.shape[1], value.shape[1]
    if enable_gqa:
        for name, count in (("key", kv_heads), ("value", value_heads)):
            if divide_heads(heads, count) < 0:
                raise ShapeError(
                    f"{name} has {count} heads, which does not divide query's {heads} "
                    f"({_shape('query', query)}; {_shape(name, key if name == 'key' else value, 'S,D')}). "
                    f"With enable_gqa each {name} head serves the same number of query heads."
                )
        return heads
    counts = [count for count in (heads, kv_heads, value_heads) if count != 1]  # in torch.jit.trace they are tensors
    if any(count != counts[0] for count in counts):
        gqa = kv_heads == value_heads and heads % max(kv_heads, 1) == 0
        hint = "Pass enable_gqa=True to share key heads." if gqa else "Give all three the same H, or H = 1."
        raise ShapeError(
            f"query has {heads} heads, key {kv_heads}, value {value_heads} "
            f"({_shape('query', query)}; {_shape('key', key, 'S,D')}; {_shape('value', value, 'S,D')}). {hint}"
        )
    return counts[0] if counts else 1


def mask(attn_mask: Any, full: Sequence[int], query: Tensor, is_causal: bool) -> None:
    """Check a mask tensor against the logits' own shape, (..., L, S)."""
    if not isinstance(attn_mask, Tensor):
        raise DtypeError(
            f"attn_mask is a {type(attn_mask).__name__}, expected a bool or float tensor, or one of clearhead.masks."
        )
    if is_causal:
        raise OptionError(
            "attn_mask is given and is_causal is True; expected one of them. "
            "Write the causal part into the mask: attn_mask=clearhead.masks.causal() & your_mask, is_causal=False."
        )
    if attn_mask.dtype not in (torch.bool, torch.float32, query.dtype):
        raise DtypeError(
            f"attn_mask is {attn_mask.dtype}, expected torch.bool (True = may attend) or {query.dtype} "
            f"(added to the logits). Convert it: attn_mask.bool() or attn_mask.to(query.dtype)."
        )
    if attn_mask.device != query.device:
        raise DeviceError(f"attn_mask is on {attn_mask.device}, query is on {query.device}. Move it with .to().")
    shape, letters = tuple(attn_mask.shape), axes(len(full), "L,S")
    if len(shape) < 2:
        raise RankError(
            f"attn_mask has {len(shape)} axes, expected at least 2, (L, S) = {tuple(full[-2:])}. "
            f"For one value per key use attn_mask[None, :]."
        )
    if not broadcasts(shape, full):
        swap = shape[-2:] == (full[-1], full[-2]) and full[-1] != full[-2]
        hint = " It looks transposed: queries are rows, keys are columns; use attn_mask.mT." if swap else ""
        raise ShapeError(
            f"attn_mask does not broadcast to the logits ({shape_text('attn_mask', shape, '')}; "
            f"logits.shape={tuple(full)}, axes {letters}). Give each axis its full size or 1.{hint}"
        )


@untraced
def rule(attn_mask: Mask, query: Tensor, key: Tensor, is_causal: bool) -> None:
    """Check one of clearhead.masks against (B, H, L, S)."""
    if is_causal:
        raise OptionError(
            f"attn_mask is {attn_mask!r} and is_causal is True; expected one of them. "
            f"Write the causal part into the mask: masks.causal() & attn_mask."
        )
    full = (*query.shape[:3], key.shape[2])
    for letter, own, size in zip("BHLS", attn_mask.sizes(), full, strict=True):
        if own is not None and own != size:
            raise ShapeError(
                f"attn_mask is for {letter} = {own}, but the logits have {letter} = {size} "
                f"({attn_mask!r}; logits.shape={full}, axes B,H,L,S). Make the mask for these sizes."
            )


def warn_zero_one(attn_mask: Tensor, name: str = "attn_mask") -> None:
    """Warn if a float mask contains only 0 and 1: it would be added to the logits, and mask nothing.

    Not checked: a mask that requires a gradient, one of over a million numbers, and one on another device, where a
    check would synchronise.
    """
    if attn_mask.requires_grad or not attn_mask.is_cpu or not 0 < attn_mask.numel() <= 1 << 20:
        return
    if not starts_with_0_or_1(attn_mask) or float(attn_mask.amin()) not in (0, 1):
        return  # decides most masks after reading one number
    ones = attn_mask == 1
    if bool(ones.any()) and bool((ones | (attn_mask == 0)).all()):
        warnings.warn(
            f"{name} is a float mask of zeros and ones: it is added to the logits and masks nothing. "
            f"If 1 means 'may attend', pass {name}.bool().",
            UserWarning,
            stacklevel=3,
        )


def starts_with_0_or_1(tensor: Tensor) -> bool:
    """Return whether the first number of a float tensor is 0 or 1. Takes under 1 µs: every float mask is checked."""
    answer = library.starts_with_0_or_1(tensor) if reads_tensors else -1
    return tensor[(0,) * tensor.dim()].item() in (0, 1) if answer < 0 else bool(answer)


def flag(value: Any, name: str) -> bool:
    """Return a truth value, given as a bool, as 0 or 1, or as a tensor or NumPy's number without axes."""
    if isinstance(value, bool | torch.SymBool):
        return cast(bool, value)
    number = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(number, int | float) and number in (0, 1):
        return bool(number)
    is_mask = hasattr(value, "shape") or isinstance(value, Mask)
    shown, hint = (f"a {type(value).__name__}", " Pass a mask as attn_mask.") if is_mask else (repr(value), "")
    raise DtypeError(f"{name} is {shown}, expected True or False.{hint}")


def dropout(dropout_p: float) -> None:
    """Check that dropout_p is a probability."""
    if isinstance(dropout_p, bool) or not isinstance(dropout_p, int | float) or not 0 <= dropout_p <= 1:
        raise OptionError(f"dropout_p is {dropout_p!r}, expected a probability, 0 <= dropout_p <= 1.")


def options(scale: float | Tensor | None, softcap: float | None, sinks: Any, heads: int, query: Tensor) -> None:
    """Check scale, softcap and sinks."""
    if isinstance(scale, Tensor) and scale.dim() > 0:
        if tuple(scale.shape) != (heads,) or not scale.is_floating_point():
            raise ShapeError(
                f"scale is {scale.dtype} of shape {tuple(scale.shape)}, expected a number, or one per query head, "
                f"floating point, ({heads},) ({_shape('query', query)})."
            )
    elif scale is not None and not isinstance(scale, int | float | torch.SymFloat):
        raise DtypeError(f"scale is a {type(scale).__name__}, expected a float, or None for 1/sqrt(head_dim).")
    if softcap is not None and not isinstance(softcap, int | float | torch.SymFloat):
        raise DtypeError(f"softcap is a {type(softcap).__name__}, expected a positive number, or None for no cap.")
    if softcap is not None and not 0 < softcap <= sys.float_info.max:
        raise OptionError(f"softcap is {softcap!r}, expected a positive number, or None for no cap.")
    if sinks is None:
        return
    if not isinstance(sinks, Tensor) or not sinks.is_floating_point():
        raise DtypeError("sinks must be a float tensor with one logit per head.")
    if tuple(sinks.shape) != (heads,):
        raise ShapeError(
            f"sinks has shape {tuple(sinks.shape)}, expected one logit per query head, ({heads},) "
            f"({_shape('query', query)})."
        )


def _shape(name: str, tensor: Tensor, last: str = "L,D") -> str:
    return shape_text(name, tensor.shape, axes(tensor.dim(), last))

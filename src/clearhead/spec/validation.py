"""Validation of an attention against the sizes of query and key."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clearhead.errors import DeviceError, DtypeError, OptionError, ShapeError, shape_text
from clearhead.spec.attention import FIELDS, Attention
from clearhead.spec.fields import Axes, Field


def validate(attention: Attention, full: Sequence[int], device: torch.device) -> None:
    """Check that an attention fits (B, H, L, S) and a device. Takes a microsecond where it has no tensors.

    Raises:
        ShapeError, DtypeError, DeviceError, OptionError: names the field; says what was expected and how to fix it.
    """
    for name, tensor in attention.tensors().items():
        row = FIELDS[name]
        if row.axes is Axes.HEADS:
            _check_heads(row, tensor, full[1])
        else:
            _check_pairs(row, tensor, full)
        if tensor.device != device:
            raise DeviceError(
                f"{name} is on {tensor.device}, query is on {device}. Move them to one device with .to()."
            )
    if not 0 <= attention.dropout_p < 1:
        raise OptionError(f"dropout_p is {attention.dropout_p}, expected 0 <= dropout_p < 1.")
    if attention.softcap is not None and not attention.softcap > 0:
        raise OptionError(f"softcap is {attention.softcap}, expected a positive number, or None for no cap.")


def broadcasts(shape: Sequence[int], full: Sequence[int]) -> bool:
    """Return whether a shape broadcasts to another: each axis, counted from the last, has its full size or 1.

    >>> broadcasts((1, 5), (2, 3, 5)), broadcasts((3, 1), (2, 3, 5)), broadcasts((2, 5), (2, 3, 5))
    (True, True, False)
    """
    return len(shape) <= len(full) and all(
        size in (1, whole) for size, whole in zip(reversed(shape), reversed(full), strict=False)
    )


def _check_pairs(row: Field, tensor: Tensor, full: Sequence[int]) -> None:
    if row.axes is Axes.KEYS:
        full = (*full[:2], 1, full[3])
    if not broadcasts(tensor.shape, full):
        axes = "(B, H, 1, S)" if row.axes is Axes.KEYS else "(B, H, L, S)"
        raise ShapeError(
            f"{row.name} does not broadcast to {axes} = {tuple(full)} ({shape_text(row.name, tensor.shape)}). "
            f"Give each axis its full size or 1."
        )
    if row.boolean and tensor.dtype != torch.bool:
        raise DtypeError(f"{row.name} is {tensor.dtype}, expected torch.bool (True = may attend). Use bias to add.")
    if not row.boolean and not tensor.is_floating_point():
        raise DtypeError(
            f"{row.name} is {tensor.dtype}, expected a floating-point dtype. Use allow for a boolean mask."
        )


def _check_heads(row: Field, tensor: Tensor, heads: int) -> None:
    if tensor.shape != (heads,) or not tensor.is_floating_point():
        raise ShapeError(
            f"{row.name} must be floating point with one number per query head, shape ({heads},) "
            f"({shape_text(row.name, tensor.shape, 'H')}, {tensor.dtype})."
        )

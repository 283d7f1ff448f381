"""The dtypes of sums and of the lse; torch.autocast: cast the arguments of attention as it does, or disable it."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums, and of numbers per head, for tensors of `dtype`: never narrower than float32."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def lse_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of the lse between forward and backward.

    float64 for float32: recomputed from a float32 lse, float32 weights have an error of 1e-5 if logits are in the
    hundreds.
    """
    return torch.float64 if dtype is torch.float32 else wide(dtype)


def autocast(*tensors: Any) -> tuple[Any, ...]:
    """Return the arguments as torch.autocast casts them for scaled_dot_product_attention.

    Floating-point tensors, including masks, get the dtype set for their device; float64 and everything else stay.

    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     [x.dtype for x in autocast(torch.ones(2), torch.ones(2).double(), torch.ones(2).bool())]
    [torch.bfloat16, torch.float64, torch.bool]
    """
    return tuple(x if not isinstance(x, Tensor) or not _is_cast(x) else x.to(_dtype(x)) for x in tensors)


def is_autocast(device: torch.device) -> bool:
    """Return whether torch.autocast is enabled for tensors of a device."""
    return device.type != "meta" and torch.is_autocast_enabled(device.type)


def in_own_dtype(function: F) -> F:
    """Decorate a function to run without torch.autocast, so that products keep the dtype of their operands."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        devices = [device for device in ("cpu", "cuda", "mps", "xpu") if torch.is_autocast_enabled(device)]
        if not devices:
            return function(*args, **options)
        with torch.autocast(devices[0], enabled=False):
            return call(*args, **options)

    return cast(F, call)


def _is_cast(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype is not torch.float64 and is_autocast(tensor.device)


def _dtype(tensor: Tensor) -> torch.dtype:
    return torch.get_autocast_dtype(tensor.device.type)

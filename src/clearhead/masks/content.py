"""The content of a mask: a checksum, which ranks of a distributed call compare, and whether it needs a gradient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from clearhead.masks.mask import Mask


def checksum(mask: Mask) -> int:
    """Return a checksum of a mask's classes, numbers and tensors, all of them.

    >>> from clearhead.masks import document
    >>> checksum(document([0, 0, 1])) == checksum(document([0, 1, 1]))
    False
    """
    made = 0
    for part in _parts(mask):
        made = crc32(part, made)
    return made


def needs_gradient(mask: Mask | None) -> bool:
    """Return whether a tensor inside a mask requires a gradient."""
    return any(tensor.requires_grad for tensor in _tensors(mask))


def _parts(value: Any) -> Iterator[Any]:
    """Yield bytes that determine a value; of an unknown class its repr, without the memory addresses in it."""
    if isinstance(value, Mask):
        yield type(value).__qualname__.encode()
        value = vars(value)
    if isinstance(value, dict):
        for name in sorted(value, key=str):
            yield str(name).encode()
            yield from _parts(value[name])
    elif isinstance(value, list | tuple):
        yield str(len(value)).encode()
        for item in value:
            yield from _parts(item)
    elif isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        yield f"{value.dtype}{value.shape}".encode() + value.tobytes()
    else:
        yield re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)).encode()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mask):
        yield from _tensors(list(vars(value).values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)

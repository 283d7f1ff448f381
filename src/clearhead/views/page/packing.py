"""Pack arrays as JSON: base64 of little-endian unsigned integers with a scale, and masks as "causal" or bits."""

import base64
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

DTYPES = {"u8": "<u1", "u16": "<u2", "u32": "<u4"}  # numbers.js has the same names


def pack(values: NDArray[Any], kind: str, top: float) -> dict[str, Any]:
    """Quantise values in [0, top] to unsigned integers.

    >>> pack(np.array([[0.0, 0.5, 1.0]]), "u8", 1.0)
    {'type': 'u8', 'shape': [1, 3], 'scale': 0.00392156862745098, 'data': 'AID/'}
    """
    dtype = DTYPES[kind]
    steps = np.iinfo(dtype).max
    scale = top / steps if top > 0 else 1.0
    whole = np.rint(np.clip(values / scale, 0, steps)).astype(dtype)
    return {"type": kind, "shape": list(values.shape), "scale": scale, "data": _base64(whole)}


def unpacked(packed: dict[str, Any]) -> NDArray[np.float32]:
    """Return the values that `pack` was given, to its precision.

    >>> unpacked(pack(np.array([[0.0, 1.0]]), "u8", 1.0)).tolist()
    [[0.0, 1.0]]
    """
    whole = np.frombuffer(base64.b64decode(packed["data"]), DTYPES[packed["type"]]).reshape(packed["shape"])
    return (whole * packed["scale"]).astype(np.float32)


def pack_indices(values: NDArray[Any], size: int) -> dict[str, Any]:
    """Pack positions below `size`, exactly."""
    kind = "u16" if size <= 1 << 16 else "u32"
    return {"type": kind, "shape": list(values.shape), "scale": 1, "data": _base64(values.astype(DTYPES[kind]))}


def pack_bits(values: NDArray[np.bool_]) -> dict[str, Any]:
    """Pack booleans, eight per byte, the first in the highest bit.

    >>> pack_bits(np.array([[True, False, True]]))
    {'type': 'bits', 'shape': [1, 3], 'scale': 1, 'data': 'oA=='}
    """
    return {"type": "bits", "shape": list(values.shape), "scale": 1, "data": _base64(np.packbits(values))}


def masked(cells: NDArray[np.bool_]) -> str | dict[str, Any] | None:
    """Return masked cells (H, r, c) briefly: None, "causal", or bits, (r, c) if all heads are alike, else (H, r, c)."""
    if not cells.any():
        return None
    first, (rows, cols) = cells[0], cells.shape[1:]
    if not (cells == first).all():
        return pack_bits(cells)
    if rows == cols and bool((first == np.triu(np.ones((rows, cols), dtype=np.bool_), 1)).all()):
        return "causal"
    return pack_bits(first)


def masked_cells(packed: str | dict[str, Any] | None, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return the cells that `masked` described, as an array (H, r, c), True = masked."""
    if packed is None:
        return np.zeros(shape, dtype=np.bool_)
    if isinstance(packed, str):
        return np.broadcast_to(np.triu(np.ones(shape[1:], dtype=np.bool_), 1), shape)
    bits = np.frombuffer(base64.b64decode(packed["data"]), dtype="u1")
    cells = np.unpackbits(bits, count=prod(packed["shape"])).reshape(packed["shape"]).astype(np.bool_)
    return np.broadcast_to(cells, shape)


def _base64(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")

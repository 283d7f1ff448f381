"""A[b, h, rows, cols] by torch's indexing rules, computing only the requested entries."""

import math
import operator
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import PlaceError, TooLargeError
from clearhead.matrix.logits import BLOCK, NEG_INF, Logits, finite, weigh
from clearhead.sizes import size_text

LIMIT = 2**28  # bytes up to which a dense result needs no explicit permission: 256 MiB


def index(logits: Logits, lse: Tensor, key: Any) -> Tensor:
    """Return the weights at `key`, with the shape of `dense[key]` in torch.

    Args:
        logits: the matrix, in the dtype to compute in.
        lse: (B, H, L), the log-sum-exp of its rows.
        key: the index expression between the brackets.

    Raises:
        PlaceError: torch could not index a tensor of this shape with `key`.
        TooLargeError: the result is larger than LIMIT bytes.
    """
    # Index a tensor on the meta device, which has a shape and no memory, to get the result's shape from torch.
    try:
        parts = tuple(_as_index(part) for part in (key if isinstance(key, tuple) else (key,)))
        _check_masks(parts, logits.shape)
        shape = torch.empty(logits.shape, device="meta")[_on(parts, "meta")].shape
    except (IndexError, RuntimeError, TypeError, ValueError) as error:
        raise PlaceError(
            f"the matrix has shape {logits.shape}, axes B,H,L,S, and cannot be indexed like this: {error}. "
            "Give up to four ints, slices or index tensors, as to a dense tensor."
        ) from error
    guard(shape, logits.query.dtype, LIMIT, "this part of the matrix", "Take fewer heads, rows or columns at a time")
    advanced = [part for part in parts if isinstance(part, Tensor)]
    if len(advanced) > 1 or any(part.dtype == torch.bool and part.dim() > 1 for part in advanced):
        return _pointwise(logits, lse, parts, shape)
    return outer(logits, lse, _axes(parts, logits)).reshape(shape)


def outer(logits: Logits, lse: Tensor, axes: list[Tensor]) -> Tensor:
    """Return the weights (b, h, rows, cols) at the outer product of four lists of indices."""
    if any(axis.numel() == 0 for axis in axes):
        return logits.query.new_zeros([axis.numel() for axis in axes])
    rows, cols = (_compact(axis) for axis in axes[2:])
    batches, heads = logits.shape[:2]
    together = BLOCK // (heads * axes[2].numel() * axes[3].numel())  # batch entries per table
    if together and [_compact(axis) for axis in axes[:2]] == [slice(0, batches), slice(0, heads)]:
        parts = [slice(start, min(start + together, batches)) for start in range(0, batches, together)]
        tables = [
            weigh((logits if len(parts) == 1 else logits.batch(part)).table(rows, cols), lse[part, :, rows])
            for part in parts
        ]
        return tables[0] if len(tables) == 1 else torch.cat(tables)
    return torch.stack(
        [
            torch.stack(
                [
                    weigh(logits.block(batch, slice(head, head + 1), rows, cols)[0], lse[batch, head, rows])
                    for head in axes[1].tolist()
                ]
            )
            for batch in axes[0].tolist()
        ]
    )


def whole(logits: Logits) -> tuple[Tensor, Tensor] | None:
    """Return all weights and their lse from one pass; None for more than BLOCK weights, or if a gradient is needed."""
    attention = logits.attention
    tensors = (logits.query, logits.key, *attention.tensors().values())
    if math.prod(logits.shape) > BLOCK or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return None
    every = slice(0, logits.shape[2]), slice(0, logits.shape[3])
    table = logits.table(*every)
    lse = table.logsumexp(-1)
    if attention.sinks is not None:
        lse = torch.logaddexp(lse, attention.sinks[:, None].to(lse.dtype))
    return weigh(table, lse), lse


def everything(logits: Logits) -> list[Tensor]:
    """Return the indices of the whole matrix, for `outer`."""
    return [torch.arange(size, device=logits.query.device) for size in logits.shape]


def guard(shape: tuple[int, ...], dtype: torch.dtype, limit: int | None, subject: str, remedy: str) -> None:
    """Refuse a result of more than `limit` bytes; None means no limit.

    Raises:
        TooLargeError: the message has the size, the limit and the remedy.
    """
    size = torch.Size(shape).numel() * dtype.itemsize
    if limit is not None and size > limit:
        raise TooLargeError(
            f"{subject} takes {size_text(size)} (shape {tuple(shape)}, {dtype}); the limit is "
            f"{size_text(limit)}. {remedy}."
        )


def position(name: str, place: Any, size: int) -> int:
    """Return an index on an axis, counted from 0.

    Args:
        name: the caller's name for the index, for the message.
        place: an int, or an integer tensor or NumPy number with one element; a negative one counts from the end.
        size: the size of the axis.

    Raises:
        PlaceError: `place` is not an integer, or is outside the axis.
    """
    boolean = isinstance(place, bool) or getattr(place, "dtype", None) in (torch.bool, bool)
    try:
        where = None if boolean else operator.index(place)
    except TypeError:
        where = None
    if where is None:
        raise PlaceError(f"{name}={place!r} is not an integer. Use {_range(size)}.")
    if not -size <= where < size:
        raise PlaceError(f"{name}={where} is outside an axis of size {size}. Use {_range(size)}.")
    return where % size


def refuse_masked(logits: Logits, query: int, key: int, head: int, batch: int) -> None:
    """Refuse a pair that the mask excludes, whose logit is -inf.

    Raises:
        PlaceError: the message has the keys that the query may attend.
    """
    row = logits.block(batch, slice(head, head + 1), slice(query, query + 1), slice(0, logits.shape[3])).flatten()
    if row[key] > NEG_INF:
        return
    free = (row > NEG_INF).nonzero().flatten().tolist()
    remedy = (
        f"Choose one of the {len(free)} keys it may attend, between {free[0]} and {free[-1]}"
        if free
        else "It may attend no key: choose another query"
    )
    raise PlaceError(
        f"query {query} may not attend key {key} (head {head}, batch {batch}): the mask makes this logit -inf, which "
        f"has no parts. {remedy}."
    )


def _range(size: int) -> str:
    return f"0..{size - 1}, or -1 for the last" if size else "a matrix that is not empty"


def _as_index(part: Any) -> Any:
    """Convert lists and arrays to tensors, and a tensor without axes to an int; ints, slices, None and ... stay."""
    if isinstance(part, (int, slice)) or part is None or part is Ellipsis:
        return part
    tensor = part if isinstance(part, Tensor) else torch.as_tensor(part, device="cpu")
    if tensor.is_floating_point():
        raise TypeError(f"indices must be integers, not {tensor.dtype}")
    return int(tensor) if tensor.dim() == 0 and tensor.dtype != torch.bool else tensor


def _check_masks(parts: tuple[Any, ...], shape: tuple[int, ...]) -> None:
    """Check that each boolean mask has the size of its axes, which is lost once `_on` converts it to positions."""

    def axes(part: Any) -> int:
        if isinstance(part, Tensor) and part.dtype == torch.bool:
            return part.dim()
        return 0 if part is None or part is Ellipsis else 1

    axis = 0
    for part in parts:
        if part is Ellipsis:
            axis += len(shape) - sum(axes(other) for other in parts)
        elif isinstance(part, Tensor) and part.dtype == torch.bool and shape[axis : axis + part.dim()] != part.shape:
            raise IndexError(f"a mask of shape {tuple(part.shape)} on axes of sizes {shape[axis : axis + part.dim()]}")
        axis += axes(part)


def _on(parts: tuple[Any, ...], device: str) -> tuple[Any, ...]:
    """Move the index to another device. Boolean masks become positions, because a meta tensor cannot hold values."""
    moved: list[Any] = []
    for part in parts:
        if isinstance(part, Tensor) and part.dtype == torch.bool:
            moved.extend(where.to(device) for where in part.nonzero(as_tuple=True))
        else:
            moved.append(part.to(device) if isinstance(part, Tensor) else part)
    return tuple(moved)


def _axes(parts: tuple[Any, ...], logits: Logits) -> list[Tensor]:
    """Return the indices along each of the four axes, for a key with at most one tensor."""
    given = [part for part in parts if part is not None]
    missing = len(logits.shape) - sum(part is not Ellipsis for part in given)
    if not any(part is Ellipsis for part in given):
        given.append(Ellipsis)
    full: list[Any] = []
    for part in given:
        full.extend([slice(None)] * missing if part is Ellipsis else [part])
    device = logits.query.device
    return [_positions(part, size).to(device) for part, size in zip(full, logits.shape, strict=True)]


def _positions(part: Any, size: int) -> Tensor:
    if isinstance(part, slice):
        return torch.tensor(range(*part.indices(size)), dtype=torch.long, device="cpu")
    if isinstance(part, Tensor) and part.dtype == torch.bool:
        return part.nonzero().flatten()
    where = torch.as_tensor(part, device=part.device if isinstance(part, Tensor) else "cpu").flatten().long()
    _check_bounds(where, size)
    return where % size if size else where


def _check_bounds(where: Tensor, size: int) -> None:
    """Check the bounds of an index tensor, which the meta device cannot do."""
    if where.numel() and not (-size <= int(where.min()) and int(where.max()) < size):
        raise PlaceError(f"an index is outside an axis of size {size}: {where.tolist()[:8]}. Use -{size}..{size - 1}.")


def _compact(positions: Tensor) -> "slice | Tensor":
    """Return a slice if the positions are consecutive: indexing with a slice is a view, with a list a copy."""
    first, last = int(positions[0]), int(positions[-1])
    run = last - first + 1 == positions.numel() and bool((positions.diff() == 1).all())
    return slice(first, last + 1) if run else positions


def _pointwise(logits: Logits, lse: Tensor, parts: tuple[Any, ...], shape: torch.Size) -> Tensor:
    """Return the weights for several index tensors, which torch pairs elementwise. Each entry is a dot product."""
    places = []
    for axis, size in enumerate(logits.shape):
        # A range along one axis, expanded over the others without memory; indexing it gives the indices on that axis.
        view = [1] * len(logits.shape)
        view[axis] = size
        indices = torch.arange(size, device="cpu").view(view).expand(logits.shape)
        try:
            places.append(indices[_on(parts, "cpu")].flatten().to(logits.query.device))
        except IndexError as error:
            raise PlaceError(f"the matrix has shape {logits.shape}, axes B,H,L,S: {error}.") from error
    step = max(BLOCK // logits.query.shape[-1], 1)
    entries = []
    for batch, head, row, col in zip(*(place.split(step) for place in places), strict=True):
        entries.append(torch.exp(logits.at(batch, head, row, col) - finite(lse[batch, head, row])))
    return torch.cat(entries).reshape(shape)

"""Decide which axis of a product is batch, heads, queries, keys or width."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from clearhead.capture.softmax_tracing.contraction import Axes, Axis, Contraction
from clearhead.capture.softmax_tracing.layouts import arranged
from clearhead.capture.softmax_tracing.position_codes import batch_and_heads

_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads", "num_head", "nheads", "h")


@dataclass(frozen=True, slots=True)
class Hints:
    """What a module's attributes and arguments say about its axes.

    Attributes:
        heads: its number of heads; None if no attribute says.
        batches: the sizes of the first two axes of its arguments.
        batched: False if all its arguments have two axes or fewer.
        input: the sizes of the first two axes of its tokens: the first argument of three axes or more.
    """

    heads: int | None = None
    batches: frozenset[int] = frozenset()
    batched: bool = True
    input: frozenset[int] = frozenset()

    @classmethod
    def of(cls, module: nn.Module, given: tuple[object, ...]) -> Hints:
        """Return the hints of a module and its arguments."""
        values = (getattr(module, name, None) for name in _HEADS)
        heads = next((n for n in values if isinstance(n, int) and not isinstance(n, bool) and n > 0), None)
        tensors = [t for t in given if isinstance(t, Tensor) and t.dim() > 1 and t.is_floating_point()]
        sizes = frozenset(size for t in tensors for size in t.shape[:2])
        tokens = next((t for t in tensors if t.dim() > 2), None)
        first = frozenset(tokens.shape[:2]) if tokens is not None else frozenset()
        return cls(heads, sizes, not tensors or any(t.dim() > 2 for t in tensors), first)

    def in_blocks(self, shape: Sequence[int], key: Tensor) -> bool:
        """Whether weights (B, H, L, S) belong to blocks of the module's input: neither B nor L is a size of it.

        Of an input of one block, B is a size of it, and of others by chance. There the first keys of (B, H, S, D) are L
        that are zero, the block before the first, and S is no size of any argument.
        """
        batch, _, rows, keys = shape
        if not self.input or batch not in self.input:
            return bool(self.input) and rows not in self.input
        return 1 < rows < keys and keys not in self.batches and bool((key[:1, :, :rows] == 0).all())


@dataclass(frozen=True, slots=True)
class Roles:
    """The axes of a product of queries and keys by role; `merged` heads share the only axis of the batch."""

    batch: Axes
    heads: Axes
    rows: Axes
    keys: Axes
    width: Axes
    key_side: int
    merged: int = 1


SHARED_AXIS = "takes its softmax along an axis that queries and keys share"
AMBIGUOUS = "has axes of sizes {sizes} beside its queries and keys, and nothing tells the batch from the heads"


def split_merged(product: Contraction, groups: list[Axes]) -> tuple[Contraction, list[Axes]]:
    """Return a product with an axis that merges batch and heads split into two; `groups` names its logits' axes."""
    for axis in product.result:
        parts = batch_and_heads(product, axis)
        if parts is None or 1 in parts[:2]:
            continue
        batch, heads, heads_first = parts
        product = product.split(axis, (heads, batch) if heads_first else (batch, heads))
        names: Axes = (f"{axis}.0", f"{axis}.1")
        groups = [tuple(b for a in group for b in (names if a == axis else (a,))) for group in groups]
    return product, groups


def assign_roles(product: Contraction, softmax: Axes, hints: Hints) -> Roles | str:
    """Return the role of each axis, given the axes the softmax runs over, or the reason why they are not known."""
    own = (product.own(0), product.own(1))
    sides = [s for s in (0, 1) if softmax and set(softmax) <= own[s] and not set(softmax) & set(product.axes[1 - s])]
    if not sides:
        sides = [s for s in (0, 1) if softmax and set(softmax) <= own[s] - own[1 - s]]
    if not sides:
        return SHARED_AXIS
    side = sides[0]
    alone = [a for a in product.result if a in product.axes[1 - side] and a not in own[side]]
    positions = [a for a in alone if _is_batch(product, a)]
    rows = tuple((positions if len(positions) >= len(softmax) else alone)[-len(softmax) :])
    rest = [a for a in product.result if a not in rows and a not in softmax]
    split = _split(product, rest, 1 - side, hints)
    if split is None:
        return AMBIGUOUS.format(sizes=" and ".join(str(product.sizes[a]) for a in rest))
    batch, heads, merged = split
    return Roles(batch, heads, rows, softmax, product.summed, side, merged)


def _is_batch(product: Contraction, axis: Axis) -> bool:
    parts = batch_and_heads(product, axis)
    return parts is not None and parts[0] > 1


def _split(product: Contraction, rest: list[Axis], side: int, hints: Hints) -> tuple[Axes, Axes, int] | None:
    """Return (batch, heads, merged): the axes beside queries and keys, in the result's order; None if ambiguous.

    Args:
        product: the product of queries and keys.
        rest: these axes.
        side: which operand holds the queries.
        hints: the module's hints.
    """
    sizes = product.sizes
    wide = [a for a in rest if sizes[a] > 1]
    parts = [batch_and_heads(product, a) for a in wide]
    if all(part is not None for part in parts):
        heads = tuple(a for a, part in zip(wide, parts, strict=True) if part is not None and part[0] == 1)
        if heads or hints.heads in (None, 1):
            return tuple(a for a in rest if a not in heads), heads, 1
    if len(rest) < 2:
        return _split_one(rest, sizes, hints)
    if hints.heads is not None:
        first, second = sizes[rest[0]], math.prod(sizes[a] for a in rest[1:])
        if first == hints.heads != second and second in hints.batches:
            return tuple(rest[1:]), (rest[0],), 1
        for cut in range(len(rest) - 1, 0, -1):
            if math.prod(sizes[a] for a in rest[cut:]) == hints.heads:
                return tuple(rest[:cut]), tuple(rest[cut:]), 1
    queries = [a for a in product.axes[side] if a in wide]
    if queries != [a for a in wide if a in queries]:  # batch comes first in the queries or in the logits, not in both
        given = [a for a in wide if sizes[a] in hints.batches]
        if len(given) != 1:
            return None
        return (given[0],), tuple(a for a in rest if a != given[0]), 1
    return (rest[0],), tuple(rest[1:]), 1


def _split_one(rest: list[Axis], sizes: Mapping[Axis, int], hints: Hints) -> tuple[Axes, Axes, int] | None:
    if not rest:
        return (), (), 1
    size = sizes[rest[0]]
    if not hints.batched:
        return (), tuple(rest), 1
    if hints.heads is None and hints.batches and size not in hints.batches:
        return None  # perhaps batch and heads merged
    single = size in hints.batches and hints.heads is not None and size // hints.heads not in hints.batches
    if hints.heads is None or size % hints.heads or single:
        return tuple(rest), (), 1
    return tuple(rest), (), hints.heads


def arranged_by_role(
    product: Contraction, assigned: Roles, logits: Tensor, groups: list[Axes]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return logits (B, H, L, S), query (B, H, L, D) and key (B, H_kv, S, D); `groups` names the axes of `logits`."""
    names = [a for group in groups for a in group]
    new = {group[0]: place for place, group in enumerate(groups) if group and str(group[0]).startswith("new")}
    sizes = product.sizes | {a: logits.shape[place] for a, place in new.items()}
    batch = (*(a for a, place in new.items() if place == 0), *assigned.batch)
    heads = (*(a for a, place in new.items() if place > 0), *assigned.heads)
    apart = logits.reshape([sizes[a] for a in names])
    table = arranged(apart, names, [batch, heads, assigned.rows, assigned.keys], sizes)
    query = _operand(product, 1 - assigned.key_side, [batch, heads, assigned.rows, assigned.width], sizes)
    own = product.own(assigned.key_side)
    few = tuple(a for place, a in enumerate(heads) if set(heads[: place + 1]) <= own)
    several = heads if set(heads) & own - set(few) else few  # one key head for each group of query heads, if so
    key = _operand(product, assigned.key_side, [batch, several, assigned.keys, assigned.width], sizes)
    if assigned.merged > 1:
        table, query, key = (t.reshape(-1, assigned.merged, *t.shape[2:]) for t in (table, query, key))
    return table, query, key


def _operand(product: Contraction, side: int, groups: list[Axes], sizes: Mapping[Axis, int]) -> Tensor:
    """Return one operand with its axes in groups, without axes of size 1 that only broadcast to the other operand."""
    tensor, own = product.tensors[side], product.own(side)
    for place, axis in reversed(list(enumerate(product.axes[side]))):
        if axis not in own:
            tensor = tensor.select(place, 0)
    return arranged(tensor, [a for a in product.axes[side] if a in own], groups, sizes)

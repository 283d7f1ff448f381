"""WeightedValues: a product of weights and values in a model's own axes, read and written as heads' outputs z."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.capture.softmax_tracing import layouts
from clearhead.capture.softmax_tracing.axis_roles import Hints, Roles, arranged_by_role, assign_roles, split_merged
from clearhead.capture.softmax_tracing.contraction import Axes, Axis, Contraction
from clearhead.capture.softmax_tracing.traces import Softmax, placed


@dataclass(frozen=True, slots=True)
class WeightedValues:
    """A product of weights and values, with the index in (B, H, L, S) of each weight.

    Attributes:
        out: the product.
        product: its operands and axes.
        side: which operand holds the weights.
        places: int64, in the shape of that operand: ((b·H + h)·L + row)·S + key.
        shape: (B, H, L, S).
        again: whether these weights multiplied other values before, so that the outputs are a sum.
    """

    out: Tensor
    product: Contraction
    side: int
    places: Tensor
    shape: tuple[int, int, int, int]
    again: bool = False

    @classmethod
    def of(
        cls,
        out: Tensor,
        product: Contraction,
        side: int,
        softmax: Softmax,
        now: layouts.Layout,
        logits: Described | str,
    ) -> WeightedValues | None:
        """Describe a product whose weights have layout `now`; None if a weight stands for several or has no role."""
        repeated = any(stride == 0 and size > 1 for size, stride in zip(now.shape, now.stride(), strict=True))
        if repeated or isinstance(logits, str):
            return None
        index = torch.arange(softmax.weights.logits.numel(), device=out.device).view(softmax.weights.logits.shape)
        table = arranged_by_role(logits.product, logits.roles, index, logits.groups)[0]
        if table.numel() != index.numel():
            return None
        flat = torch.empty_like(index).view(-1)
        flat[table.flatten()] = torch.arange(table.numel(), device=out.device)
        kept = softmax.weights.layout
        places = torch.empty_strided(kept.shape, kept.stride(), dtype=torch.int64, device=out.device)
        places.copy_(flat.view(index.shape))
        whole = layouts.placed(places, now)
        batch, heads, rows, keys = table.shape
        return cls(out, product, side, whole, (batch, heads, rows, keys)) if _is_whole(product, side) else None

    @property
    def z(self) -> Tensor:
        """(B, H, L, D_v): the heads' outputs; 0 where this product is not of them."""
        return self._read(self.out)

    def rows_of(self, head: int) -> int:
        """Return how many of the B·L rows of a head this product computes."""
        return int((self._rows()[1] // self.shape[2] % self.shape[1] == head).sum())

    def weigh(self, head: int, weights: Tensor) -> Tensor:
        """Return (B, L, D_v): the values summed with other weights of one head, (B, L, S)."""
        all_heads = weights.new_zeros(self.shape)
        all_heads[:, head] = weights
        operands = list(self.product.tensors)
        operands[self.side] = all_heads.reshape(-1)[self.places].to(self.out.dtype)
        return self._read(_multiply(self.product, operands))[:, head]

    def write(self, z: Tensor) -> Tensor:
        """Return the product, in its own axes, with other outputs z, (B, H, L, D_v)."""
        order, codes = self._rows()
        moved = self.out.permute(order)
        rows = z.reshape(-1, z.shape[-1])[codes]
        inverse = sorted(range(len(order)), key=order.__getitem__)
        return rows.reshape(moved.shape).permute(inverse).contiguous()

    def _read(self, out: Tensor) -> Tensor:
        order, codes = self._rows()
        moved = out.permute(order)
        rows = moved.reshape(len(codes), -1)
        batch, heads, length, _ = self.shape
        z = rows.new_zeros(batch * heads * length, rows.shape[-1])
        return z.index_copy(0, codes, rows).view(batch, heads, length, -1)

    def _rows(self) -> tuple[list[int], Tensor]:
        """Return the result's axes with those of the weights first, and (b·H + h)·L + row of each of its rows."""
        axes, places = self.product.axes[self.side], self.places
        for axis in self.product.summed:
            places = places.narrow(axes.index(axis), 0, 1)
        kept = [axis for axis in axes if axis not in self.product.summed]
        places = places.squeeze([axes.index(axis) for axis in self.product.summed])
        first = [axis for axis in self.product.result if axis in kept]
        codes = places.permute([kept.index(axis) for axis in first]).flatten() // self.shape[3]
        order = [self.product.result.index(axis) for axis in first]
        order += [place for place, axis in enumerate(self.product.result) if axis not in kept]
        return order, codes


@dataclass(frozen=True, slots=True)
class Described:
    """The product of queries and keys behind a softmax, and the role of each of its axes."""

    product: Contraction
    roles: Roles
    groups: list[Axes]


def _is_whole(product: Contraction, side: int) -> bool:
    """Whether the weights are repeated along no axis of the result."""
    sizes = product.sizes
    return all(size == sizes[axis] for axis, size in zip(product.axes[side], product.tensors[side].shape, strict=True))


def _multiply(product: Contraction, operands: list[Tensor]) -> Tensor:
    names: dict[Axis, int] = {axis: place for place, axis in enumerate(product.sizes)}
    left, right = ([names[axis] for axis in axes] for axes in product.axes)
    # A broadcast operand has size 1 there, which einsum's lists of axes allow.
    return torch.einsum(operands[0], left, operands[1], right, [names[axis] for axis in product.result])


def described_product(hints: Hints, softmax: Softmax, logits: Tensor) -> Described | str:
    """Return the product behind a softmax and the roles of its axes, or the reason why they are not known."""
    made, axis = softmax.product, softmax.weights.axis
    known = None if made is None else placed(made, softmax.logits_layout)
    if known is None or axis is None:
        if softmax.sources > 1:
            return f"puts its logits together from {softmax.sources} products, each of queries and keys of its own"
        return "moves its logits between the product and the softmax, so that they have no queries and keys"
    product, groups = split_merged(*known)
    along: tuple[Axis, ...] = groups[axis] or (product.result[max(axis - logits.dim(), -len(product.result))],)
    axis_roles = assign_roles(product, along, hints)
    if isinstance(axis_roles, str):
        return axis_roles
    return Described(product, axis_roles, groups)

"""Convert the shapes that callers may pass, with two axes or more and broadcast batches, to (B, H, L, D) and back."""

from dataclasses import dataclass

from torch import Tensor

from clearhead.kernels.calls import checks
from clearhead.spec import repeat_heads


@dataclass(frozen=True, slots=True)
class Layout:
    """Query, key and value as (B, H, L, D), (B, H_kv, S, D), (B, H_kv, S, D_v), and how to convert results back.

    Attributes:
        lead: the axes before L in the caller's output, and in the logits: (*lead, L, S).
        batch_is_third: the caller has three axes, B,L,D, so a mask of three axes is B,L,S.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    lead: tuple[int, ...]
    batch_is_third: bool

    @property
    def full(self) -> tuple[int, ...]:
        """The shape of the caller's logits, (*lead, L, S)."""
        return (*self.lead, self.query.shape[2], self.key.shape[2])

    def inward(self, mask: Tensor) -> Tensor:
        """Convert a mask that broadcasts to `full` to one for (B, H, L, S). Copies only with more than four axes."""
        if self.batch_is_third and mask.dim() == 3:
            return mask.unsqueeze(1)
        if len(self.lead) <= 2 or mask.dim() <= 3:
            return mask
        outer = mask.shape[:-3]
        if all(size == 1 for size in outer):
            return mask.reshape(1, *mask.shape[-3:])
        return mask.expand(*self.lead[:-1], *mask.shape[-3:]).flatten(0, -4)

    def outward(self, tensor: Tensor) -> Tensor:
        """Convert (B, H, L, ...) back to the caller's axes, (*lead, L, ...)."""
        return tensor.reshape(*self.lead, *tensor.shape[2:])


def arrange(query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool) -> Layout:
    """Return the three tensors as (B, H, L, D): views, and a copy only if several batch axes are broadcast.

    Three axes are B,L,D without `enable_gqa`; with it, or next to a tensor with more axes, they are H,L,D. A single key
    head with many query heads stays single, because the kernels share it.

    Raises:
        ShapeError: widths, lengths, batches or heads do not fit.
    """
    checks.widths(query, key, value)
    if query.dim() == key.dim() == value.dim() == 4 and query.shape[0] == key.shape[0] == value.shape[0]:
        batches = list(query.shape[:1])  # the most common call
    else:
        rank = max(query.dim(), key.dim(), value.dim())
        third = rank == 3 and not enable_gqa
        query, key, value = (_four_axes(tensor, third) for tensor in (query, key, value))
        shapes = [tensor.shape[:-3] for tensor in (query, key, value)]
        batches = checks.broadcast_batches(shapes, query, key, value)
        query, key, value = (_expand_batches(tensor, batches) for tensor in (query, key, value))
        heads = checks.grouped_heads(query, key, value, enable_gqa)
        lead = () if rank == 2 else tuple(batches) if third else (heads,) if rank == 3 else (*batches, heads)
        return Layout(*_share_heads(query, key, value, heads), lead, third)
    heads = checks.grouped_heads(query, key, value, enable_gqa)
    return Layout(*_share_heads(query, key, value, heads), (*batches, heads), False)


def _four_axes(tensor: Tensor, third_is_batch: bool) -> Tensor:
    if tensor.dim() == 3 and third_is_batch:
        return tensor.unsqueeze(1)
    while tensor.dim() < 4:
        tensor = tensor.unsqueeze(0)
    return tensor


def _expand_batches(tensor: Tensor, batches: list[int]) -> Tensor:
    if list(tensor.shape[:-3]) != batches:
        tensor = tensor.expand(*batches, *tensor.shape[-3:])
    return tensor.flatten(0, -4)


def _share_heads(query: Tensor, key: Tensor, value: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Broadcast a single query head; keep key and value heads grouped if both have the same number."""
    if query.shape[1] != heads:
        query = query.expand(-1, heads, -1, -1)
    if key.shape[1] != value.shape[1]:
        key, value = repeat_heads(key, heads), repeat_heads(value, heads)
    return query, key, value

"""`Mask`: a rule over (batch, head, query, key) that decides whether the query may attend the key."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.errors import OptionError
from clearhead.spec.rule import BlockState, Sizes, in_pieces, indices

if TYPE_CHECKING:
    from clearhead.masks.bias import Bias


class Mask:
    """Where queries may attend. Combine with `&` (both), `|` (either), `~` (not).

    Masks are rules, not tensors: no L×S tensor is allocated until `block` or `dense` is called. Pass one as `attn_mask`
    to `clearhead.attention`.

    A subclass implements `rule`, and `state` if it can decide without evaluating every entry.

    Example:
        >>> from clearhead import masks
        >>> print(masks.causal() & masks.sliding_window(3) | masks.prefix(1))
        causal() & sliding_window(3) | prefix(1), queries down, keys right
        ■···············
        ■■··············
        ■■■·············
        ■■■■············
        ■·■■■···········
        ■··■■■··········
        ■···■■■·········
        ■····■■■········
        ■·····■■■·······
        ■······■■■······
        ■·······■■■·····
        ■········■■■····
        ■·········■■■···
        ■··········■■■··
        ■···········■■■·
        ■············■■■
    """

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return whether query q may attend key k: bool, of the indices' broadcast shape or one that expands to it."""
        raise NotImplementedError

    def state(self, rows: range, cols: range) -> BlockState:
        """Return whether a block is EMPTY, FULL or MIXED over every batch entry and head."""
        return BlockState.MIXED

    def sizes(self) -> Sizes:
        """Return the B, H, L, S that the mask requires; None where any size is accepted."""
        return (None, None, None, None)

    def block(self, rows: range, cols: range, *, device: torch.device | str | None = None) -> Tensor:
        """Return the mask's entries for a block.

        Args:
            rows, cols: consecutive query and key positions.
        Returns:
            bool, broadcastable to (B, H, len(rows), len(cols)); an axis the mask does not depend on has size 1.
        """
        batch, heads, *_ = self.sizes()
        at = torch.device(device) if device is not None else torch.get_default_device()
        b, h, q, k = indices(1 if batch is None else batch, 1 if heads is None else heads, rows, cols, device=at)
        return in_pieces(lambda piece: self.rule(b, h, piece, k), q, b.numel() * h.numel() * k.numel())

    def dense(self, length: int, keys: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
        """Return the whole mask, bool (B or 1, H or 1, L, S).

        >>> from clearhead import masks
        >>> masks.causal().dense(2)[0, 0].tolist()
        [[True, False], [True, True]]
        """
        keys = length if keys is None else keys
        answer = self.block(range(length), range(keys), device=device)
        return answer.expand(*answer.shape[:2], length, keys)

    def blocks(self, length: int, keys: int, size: int) -> list[list[BlockState]]:
        """Return the state of every block of size × size, as a list of rows."""
        columns = [range(c, min(c + size, keys)) for c in range(0, keys, size)]
        return [[self.state(range(r, min(r + size, length)), cols) for cols in columns] for r in range(0, length, size)]

    def shifted(self, past: int) -> "Mask":
        """Return the mask for queries that start at position `past`, as after a KV cache that holds `past` keys.

        Raises:
            OptionError: past is negative, and the mask is defined for queries from position 0.
        """
        if past < 0 and self.sizes()[2] is not None:
            raise OptionError(
                f"({self!r}).shifted({past}): the mask is not defined for queries before position 0. Use past >= 0."
            )
        return self if past == 0 else Shifted(self, past)

    @property
    def allow(self) -> "Mask | None":
        """The part that restricts where queries may attend; None for a bias alone."""
        return self

    @property
    def bias(self) -> "Bias | None":
        """The part that is added to the logits; None for most masks."""
        return None

    def __and__(self, other: "Mask") -> "Mask":
        return NotImplemented if other.bias is not None else And(self, other)  # then Bias.__rand__ joins them

    def __or__(self, other: "Mask") -> "Mask":
        if other.bias is not None:
            raise OptionError(f"{self!r} | {other!r}: a bias cannot be an alternative. Combine it with &.")
        return Or(self, other)

    def __invert__(self) -> "Mask":
        return Not(self)

    def __str__(self) -> str:
        from clearhead.masks.picture import picture

        return picture(self)

    @property
    def mask_mod(self) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The rule as torch's flex_attention expects it: a plain function of (b, h, q_idx, kv_idx)."""
        return lambda b, h, q_idx, kv_idx: self.rule(b, h, q_idx, kv_idx)

    def to_block_mask(self, length: int, keys: int, *, batch: int | None = None, heads: int | None = None) -> object:
        """Return the mask as a BlockMask of torch's flex_attention, which cannot hold a bias: use a score_mod.

        Raises:
            OptionError: the mask has a bias.
        """
        from torch.nn.attention.flex_attention import create_block_mask

        if self.bias is not None:
            raise OptionError(f"{self!r} has a bias, which a BlockMask cannot hold. Convert its .allow part alone.")
        own_batch, own_heads, *_ = self.sizes()
        return create_block_mask(self.mask_mod, batch or own_batch, heads or own_heads, length, keys, device="cpu")


class And(Mask):
    """Where both masks allow."""

    def __init__(self, left: Mask, right: Mask) -> None:
        self.left, self.right = left, right

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.left.rule(b, h, q, k) & self.right.rule(b, h, q, k)

    def state(self, rows: range, cols: range) -> BlockState:
        states = {self.left.state(rows, cols), self.right.state(rows, cols)}
        if BlockState.EMPTY in states:
            return BlockState.EMPTY
        return BlockState.FULL if states == {BlockState.FULL} else BlockState.MIXED

    def sizes(self) -> Sizes:
        return joint_sizes(self, self.left, self.right)

    def __repr__(self) -> str:
        return " & ".join(f"({m!r})" if isinstance(m, Or) else repr(m) for m in (self.left, self.right))


class Or(Mask):
    """Where either mask allows."""

    def __init__(self, left: Mask, right: Mask) -> None:
        self.left, self.right = left, right

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.left.rule(b, h, q, k) | self.right.rule(b, h, q, k)

    def state(self, rows: range, cols: range) -> BlockState:
        states = {self.left.state(rows, cols), self.right.state(rows, cols)}
        if BlockState.FULL in states:
            return BlockState.FULL
        return BlockState.EMPTY if states == {BlockState.EMPTY} else BlockState.MIXED

    def sizes(self) -> Sizes:
        return joint_sizes(self, self.left, self.right)

    def __repr__(self) -> str:
        return f"{self.left!r} | {self.right!r}"


class Not(Mask):
    """Where the mask does not allow."""

    _OPPOSITE = {  # noqa: RUF012 — a constant
        BlockState.EMPTY: BlockState.FULL,
        BlockState.FULL: BlockState.EMPTY,
        BlockState.MIXED: BlockState.MIXED,
    }

    def __init__(self, inner: Mask) -> None:
        self.inner = inner

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return ~self.inner.rule(b, h, q, k)

    def state(self, rows: range, cols: range) -> BlockState:
        return self._OPPOSITE[self.inner.state(rows, cols)]

    def sizes(self) -> Sizes:
        return self.inner.sizes()

    def __repr__(self) -> str:
        return f"~({self.inner!r})" if isinstance(self.inner, And | Or) else f"~{self.inner!r}"


class Shifted(Mask):
    """A mask for queries that start at a later position."""

    def __init__(self, inner: Mask, past: int) -> None:
        self.inner, self.past = inner, past

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.inner.rule(b, h, q + self.past, k)

    def state(self, rows: range, cols: range) -> BlockState:
        return self.inner.state(range(rows.start + self.past, rows.stop + self.past), cols)

    def sizes(self) -> Sizes:
        return shifted_sizes(self.inner, self.past)

    def __repr__(self) -> str:
        return f"({self.inner!r}).shifted({self.past})"


def joint_sizes(whole: Mask, *parts: Mask) -> Sizes:
    """Return the sizes that several masks require together, axis by axis."""
    answer: list[int | None] = []
    for letter, sizes in zip("BHLS", zip(*(part.sizes() for part in parts), strict=True), strict=True):
        known = {size for size in sizes if size is not None}
        if len(known) > 1:
            raise OptionError(
                f"{whole!r}: its parts have different {letter}: {sorted(known)}. Combine masks of the same sizes."
            )
        answer.append(known.pop() if known else None)
    return (answer[0], answer[1], answer[2], answer[3])


def shifted_sizes(inner: Mask, past: int) -> Sizes:
    """Return the sizes of a mask without its first `past` queries."""
    batch, heads, length, keys = inner.sizes()
    return (batch, heads, None if length is None else length - past, keys)

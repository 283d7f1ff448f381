"""Biases: terms added to the logits, alone or together with a mask."""

import torch
from torch import Tensor

from clearhead.errors import OptionError
from clearhead.masks.mask import And, Mask, joint_sizes, shifted_sizes
from clearhead.spec.rule import BlockState, Sizes, indices


class Bias(Mask):
    """A term added to the logits. Combine it with masks by `&`, with other biases by `+`.

    A subclass implements `values`.
    """

    def values(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return what is added to the logit of query q and key k in head h of batch entry b.

        The indices broadcast; the result is float, of their broadcast shape or one that expands to it.
        """
        raise NotImplementedError

    @property
    def allow(self) -> Mask | None:
        """The mask that comes with the bias: None."""
        return None

    @property
    def bias(self) -> "Bias | None":
        """The bias itself."""
        return self

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Return True: a bias allows every pair."""
        return torch.ones((), dtype=torch.bool, device=q.device)

    def state(self, rows: range, cols: range) -> BlockState:
        """Return FULL: a bias allows every pair."""
        return BlockState.FULL

    def bias_block(self, rows: range, cols: range, *, device: torch.device | str | None = None) -> Tensor:
        """Return the bias of a block: float, broadcastable to (B, H, len(rows), len(cols))."""
        batch, heads, *_ = self.sizes()
        return self.values(
            *indices(1 if batch is None else batch, 1 if heads is None else heads, rows, cols, device=device)
        )

    def shifted(self, past: int) -> "Bias":
        """Return the bias for queries that come after `past` keys of a KV cache."""
        return self if past == 0 else ShiftedBias(self, past)

    def __and__(self, other: Mask) -> Mask:
        bias = self if other.bias is None else Sum(self, other.bias)
        return bias if other.allow is None else Biased(other.allow, bias)

    def __rand__(self, other: Mask) -> Mask:
        return Biased(other, self)

    def __or__(self, other: Mask) -> Mask:
        raise OptionError(f"{self!r} | {other!r}: a bias cannot be an alternative. Combine it with &.")

    def __invert__(self) -> Mask:
        raise OptionError(f"~{self!r}: a bias has no opposite. Invert the mask first, then & the bias.")

    def __add__(self, other: "Bias") -> "Bias":
        return Sum(self, other)


class ShiftedBias(Bias):
    """A bias for queries that start at a later position."""

    def __init__(self, inner: Bias, past: int) -> None:
        self.inner, self.past = inner, past

    def values(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.inner.values(b, h, q + self.past, k)

    def sizes(self) -> Sizes:
        return shifted_sizes(self.inner, self.past)

    def __repr__(self) -> str:
        return f"({self.inner!r}).shifted({self.past})"


class Sum(Bias):
    """The sum of two biases."""

    def __init__(self, left: Bias, right: Bias) -> None:
        self.left, self.right = left, right

    def values(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.left.values(b, h, q, k) + self.right.values(b, h, q, k)

    def sizes(self) -> Sizes:
        return joint_sizes(self, self.left, self.right)

    def __repr__(self) -> str:
        return f"{self.left!r} + {self.right!r}"


class Biased(Mask):
    """A mask and a bias together."""

    def __init__(self, mask: Mask, bias: Bias) -> None:
        self._allow, self._bias = mask, bias

    @property
    def allow(self) -> Mask:
        return self._allow

    @property
    def bias(self) -> Bias:
        return self._bias

    def rule(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self._allow.rule(b, h, q, k)

    def state(self, rows: range, cols: range) -> BlockState:
        return self._allow.state(rows, cols)

    def sizes(self) -> Sizes:
        return joint_sizes(self, self._allow, self._bias)

    def shifted(self, past: int) -> Mask:
        return Biased(self._allow.shifted(past), self._bias.shifted(past))

    def __and__(self, other: Mask) -> Mask:
        allow = self._allow if other.allow is None else And(self._allow, other.allow)
        return Biased(allow, self._bias if other.bias is None else Sum(self._bias, other.bias))

    def __rand__(self, other: Mask) -> Mask:
        return Biased(And(other, self._allow), self._bias)

    def __or__(self, other: Mask) -> Mask:
        raise OptionError(
            f"({self!r}) | {other!r}: a bias cannot be an alternative. Combine the masks first, then & it."
        )

    def __invert__(self) -> Mask:
        raise OptionError(f"~({self!r}): a bias has no opposite. Invert the mask first, then & the bias.")

    def __repr__(self) -> str:
        return f"{self._allow!r} & {self._bias!r}"

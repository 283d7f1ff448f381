"""`Attention`: everything between Q·Kᵀ and the weights, in one value. Slicing and saving follow from its fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import OptionError
from clearhead.spec import band as bands
from clearhead.spec import rule as rules
from clearhead.spec.band import EVERYWHERE, Band
from clearhead.spec.fields import ROW, Axes, Field, evaluated, number, tensor
from clearhead.spec.rule import Rule


@dataclass(frozen=True, slots=True)
class Attention:
    """Describe the logits, softcap(Q Kᵀ · scale) + bias + key_bias - alibi·distance, masked, and their softmax.

    Query i of a computation has position first_query + i, and key j has position first_key + j. A shard, a chunk or the
    queries after a KV cache are described this way, as a part of a larger attention.

    Attributes:
        scale: logit multiplier, no unit.
        head_scale: (H,) a factor on `scale` for each query head, as in QK-norm (Henry et al. 2020); None = 1.
        band_low, band_high: a query may attend a key only where band_low <= key position - query position <= band_high;
            None = no limit on that side. A causal mask is (None, 0), a sliding window of w is (1 - w, 0).
        allow: bool, broadcastable to (B, H, L, S), True = may attend; None = everything.
        rule: a further mask, given as a rule that is evaluated in pieces; None = everything.
        bias: float, broadcastable to (B, H, L, S), added to the logits; None = nothing.
        key_bias: float, broadcastable to (B, H, 1, S), added to the logits too. It is separate from `bias` because the
            sum may be an L×S tensor even where neither of them is. None = nothing.
        alibi: (H,) slopes: slope · |query position - key position| is subtracted from a logit, after the soft cap
            (Press et al. 2022); None = nothing.
        softcap: logits become softcap·tanh(logits / softcap) before bias and mask; None = off.
        sinks: (H,) one extra logit per head, which takes weight and has no value; None = none.
        dropout_p: probability in [0, 1) that a weight is dropped; the rest are multiplied by 1/(1 - p).
        seed: selects the dropout pattern; an int, or an integer tensor without axes. The pattern depends on batch
            entry, head, query position and key position, so rows and keys can be computed separately.
        first_query, first_key: the positions of query 0 and of key 0.
    """

    scale: float = field(default=1.0, metadata=number("float"))
    head_scale: Tensor | None = field(default=None, metadata=tensor(Axes.HEADS, learns=True))
    band_low: int | None = field(default=None, metadata=number("SymInt?"))
    band_high: int | None = field(default=None, metadata=number("SymInt?"))
    allow: Tensor | None = field(default=None, metadata=tensor(Axes.PAIRS, boolean=True))
    rule: Rule | None = field(default=None, metadata=evaluated())
    bias: Tensor | None = field(default=None, metadata=tensor(Axes.PAIRS, learns=True))
    key_bias: Tensor | None = field(default=None, metadata=tensor(Axes.KEYS, learns=True))
    alibi: Tensor | None = field(default=None, metadata=tensor(Axes.HEADS, learns=True))
    softcap: float | None = field(default=None, metadata=number("float?"))
    sinks: Tensor | None = field(default=None, metadata=tensor(Axes.HEADS, learns=True))
    dropout_p: float = field(default=0.0, metadata=number("float", saved=False))
    seed: int | Tensor = field(default=0, metadata=number("Tensor?", saved=False))
    first_query: int = field(default=0, metadata=number("SymInt"))
    first_key: int = field(default=0, metadata=number("SymInt"))

    @classmethod
    def of(
        cls,
        scale: float | Tensor = 1.0,
        *,
        is_causal: bool = False,
        reach: Band = EVERYWHERE,
        first_query: int = 0,
        **others: Any,
    ) -> Attention:
        """Return the attention of a caller's arguments: `is_causal`, `reach` and a rule count queries and keys from 0.

        A scale of shape (H,) has one factor for each query head.

        Example:
            >>> Attention.of(0.5, is_causal=True, first_query=3).band
            (None, -3)
        """
        if isinstance(scale, Tensor) and scale.dim() > 0:
            scale, others["head_scale"] = 1.0, scale
        low, high = bands.shift(bands.intersect(reach, bands.CAUSAL) if is_causal else reach, -first_query)
        if first_query and others.get("rule") is not None:
            others["rule"] = rules.part(others["rule"], shift=-first_query)
        return cls(scale=float(scale), band_low=low, band_high=high, first_query=first_query, **others)

    def __eq__(self, other: object) -> bool:
        """Return whether the numbers are equal and the tensors are the same objects, which is what the hash compares.

        The `__eq__` of a dataclass in Python 3.13 uses == alone, which is ambiguous for tensors.
        """
        if not isinstance(other, Attention):
            return NotImplemented
        return all(_same(getattr(self, name), getattr(other, name)) for name in FIELDS)

    def change(self, **fields: Any) -> Attention:
        """Return a copy with some fields replaced."""
        return replace(self, **fields)

    # Derived properties

    @property
    def band(self) -> Band:
        """(band_low, band_high): limits on key position - query position."""
        return self.band_low, self.band_high

    @property
    def reach(self) -> Band:
        """The band on indices instead of positions: limits on j - i."""
        return bands.shift((self.band_low, self.band_high), self.first_query - self.first_key)

    @property
    def is_causal(self) -> bool:
        """Whether the band equals torch's is_causal: query i may attend keys 0..i."""
        return self.band_low is None and self.band_high == self.first_key - self.first_query

    @property
    def offset(self) -> int:
        """How far query 0 is ahead of key 0, in positions."""
        return self.first_query - self.first_key

    @property
    def multiplier(self) -> float | Tensor:
        """The factor on q·k: a number, or a tensor (H, 1, 1)."""
        return self.scale if self.head_scale is None else (self.scale * self.head_scale)[:, None, None]

    def scale_query(self, query: Tensor) -> Tensor:
        """Return query (B, H, L, D) times the multiplier, in its own dtype; see `unscaled`."""
        return (query * self.multiplier).to(query.dtype)

    def multiplier_of(self, head: Tensor) -> float | Tensor:
        """Return the multiplier of single pairs, given their query heads."""
        return self.scale if self.head_scale is None else self.scale * self.head_scale[head]

    @property
    def is_bilinear(self) -> bool:
        """Whether every logit that is not masked is exactly multiplier · q·k."""
        return self.bias is None and self.softcap is None and self.key_bias is None and self.alibi is None

    @property
    def is_masked(self) -> bool:
        """Whether a mask, a rule, a band or a bias may exclude a pair of query and key."""
        return not (self.allow is None and self.rule is None and self.bias is None and self.band == EVERYWHERE)

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are set, by field name."""
        return {name: value for name, value in zip(TENSORS, self.tensor_list(), strict=True) if value is not None}

    def tensor_list(self) -> list[Tensor | None]:
        """Return the tensors in the order of TENSORS, with None for those that are not set."""
        return [getattr(self, name) for name in TENSORS]

    def learning(self) -> list[str]:
        """Return the names of the tensors that require a gradient."""
        return [name for name, value in self.tensors().items() if FIELDS[name].learns and value.requires_grad]

    # Slices

    def part(self, rows: slice, keys: slice) -> Attention:
        """Return the attention of some queries over some keys, slices of step 1; positions and dropout stay theirs."""
        pairs = self.pairs(rows, keys)
        return pairs.change(
            first_query=self.first_query + (rows.start or 0), first_key=self.first_key + (keys.start or 0)
        )

    def pairs(self, rows: slice | Tensor, keys: slice | Tensor) -> Attention:
        """Return a copy whose tensors are indexed by some queries and keys, in any order; positions do not change."""
        return self._map_pairs(lambda t: _cut(_cut(t, 2, rows), 3, keys))

    def select_rows(self, rows: Tensor, keys: int) -> Attention:
        """Return the attention of some queries, in any order, over S keys.

        The positions are no longer consecutive, so the band and the ALiBi slopes become tensors.

        Raises:
            OptionError: it has a rule, which needs the position of each query.
        """
        if self.rule is not None:
            raise OptionError(
                "queries of an attention with a rule cannot be selected in any order: a rule needs the position of "
                "each query. Use part() for consecutive queries, or lower the rule to a mask first."
            )
        part = self.pairs(rows, slice(None))
        query = rows[:, None] + self.first_query
        key = torch.arange(keys, device=rows.device) + self.first_key
        fields: dict[str, Any] = {"band_low": None, "band_high": None, "alibi": None}
        if self.alibi is not None:
            slopes = self.alibi[:, None, None] * (query - key).abs()
            fields["bias"] = -slopes if part.bias is None else part.bias - slopes
        if self.band != EVERYWHERE:
            inside = ~bands.outside(self.band, query, key)
            fields["allow"] = inside if part.allow is None else part.allow & inside
        return part.change(**fields)

    def heads(self, heads: slice | Tensor) -> Attention:
        """Return the attention of some query heads: indices in any order, or a slice of step 1 with a stop.

        Raises:
            OptionError: it has dropout, whose pattern depends on the index of a head.
        """
        self._refuse_dropout("heads")
        cut = self._map_pairs(lambda t: _cut(t, 1, heads))
        own: dict[str, Any] = {
            name: value[heads] for name, value in cut.tensors().items() if FIELDS[name].axes is Axes.HEADS
        }
        if self.rule is not None:
            index = (
                torch.arange(heads.start or 0, heads.stop, device=self._device()) if isinstance(heads, slice) else heads
            )
            own["rule"] = rules.part(self.rule, heads=index)
        return cut.change(**own) if own else cut

    def batch(self, entries: slice) -> Attention:
        """Return the attention of some batch entries, a slice of step 1.

        Raises:
            OptionError: it has dropout, whose pattern depends on the index of an entry.
        """
        self._refuse_dropout("batch entries")
        cut = self._map_pairs(lambda t: _cut(t, 0, entries))
        return cut.change(rule=rules.part(cut.rule, first_batch=entries.start or 0)) if cut.rule is not None else cut

    def transposed(self) -> Attention:
        """Return the attention with queries and keys exchanged: each pair keeps its logit.

        Raises:
            OptionError: it has sinks, dropout or a rule, which are defined per query.
        """
        queries_own = [name for name in ("sinks", "rule") if getattr(self, name) is not None]
        if queries_own or self.dropout_p:
            owned = " and ".join([*queries_own, *["dropout"] * bool(self.dropout_p)])
            raise OptionError(
                f"an attention with {owned} cannot be transposed. Remove {owned} first, with dataclasses.replace."
            )
        low, high = self.band
        bias = self.join_biases().bias
        return self.change(
            band_low=None if high is None else -high,
            band_high=None if low is None else -low,
            allow=None if self.allow is None else four_axes(self.allow).mT,
            bias=None if bias is None else four_axes(bias).mT,
            key_bias=None,
            first_query=self.first_key,
            first_key=self.first_query,
        )

    # Conversions

    def cast(self, dtype: torch.dtype) -> Attention:
        """Return a copy with its floating-point tensors in a dtype."""
        changed = {
            name: value.to(dtype)
            for name, value in self.tensors().items()
            if not FIELDS[name].boolean and value.dtype is not dtype
        }
        return self.change(**changed) if changed else self

    def with_four_axes(self) -> Attention:
        """Return a copy in which each mask and bias has all four axes (B, H, L, S)."""
        return self._map_pairs(lambda mask: mask)

    def under(self, other: Attention) -> Attention:
        """Return a copy with the masks and biases of another attention of the same queries and keys added to its own.

        Raises:
            OptionError: both have ALiBi slopes, and they count distances from different positions; or both have a rule.
        """
        if self.rule is not None and other.rule is not None:
            raise OptionError("two attentions with a rule cannot be joined. Combine the two masks with & first.")
        mine, theirs = self.tensors(), other.tensors()
        joint: dict[str, Any] = {}
        for name in ("allow", "bias", "key_bias", "alibi"):
            if name in theirs:
                own, added = mine.get(name), theirs[name]
                joint[name] = added if own is None else own & added if FIELDS[name].boolean else own + added
        if "alibi" in joint and "alibi" in mine and self.offset != other.offset:
            raise OptionError("two ALiBi biases count distances from different positions. Give one of them as a bias.")
        place = other if "alibi" in theirs else self
        low, high = bands.shift(bands.intersect(self.reach, other.reach), -place.offset)
        if other.rule is not None:
            joint["rule"] = other.rule
        return self.change(
            band_low=low, band_high=high, first_query=place.first_query, first_key=place.first_key, **joint
        )

    def unscaled(self) -> Attention:
        """Return a copy with scale 1, for queries or keys that are already multiplied by `multiplier`."""
        return self.change(scale=1.0, head_scale=None)

    def join_biases(self) -> Attention:
        """Return a copy with `key_bias` added into `bias`.

        Memory: O(L·S) where both are given and `bias` varies by row.
        """
        if self.key_bias is None:
            return self
        return self.change(bias=self.key_bias if self.bias is None else self.bias + self.key_bias, key_bias=None)

    def with_tensors(self, tensors: Sequence[Tensor | None]) -> Attention:
        """Return a copy with other tensors, given in the order of TENSORS."""
        return self.change(**dict(zip(TENSORS, tensors, strict=True)))

    def without_tensors(self) -> Attention:
        """Return a copy with its numbers alone."""
        return self.change(**_NO_TENSORS)

    # Files and custom operators

    def saved_numbers(self) -> dict[str, float | int | None]:
        """Return the numbers that a file stores in addition to `tensors()`."""
        return {name: getattr(self, name) for name, row in FIELDS.items() if row.saved and not row.is_tensor}

    def arguments(self) -> list[Any]:
        """Return every field that the custom operator takes, in the order of ARGUMENTS."""
        return [_as_argument(name, getattr(self, name)) for name in ARGUMENTS]

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Attention:
        """Return the attention of the custom operator's arguments, given by name."""
        own = {name: arguments[name] for name in ARGUMENTS}
        own["seed"] = 0 if own["seed"] is None else own["seed"]
        return cls(**own)

    def _map_pairs(self, cut: Callable[[Tensor], Tensor]) -> Attention:
        changed = {
            name: cut(four_axes(value))
            for name, value in self.tensors().items()
            if FIELDS[name].axes in (Axes.PAIRS, Axes.KEYS)
        }
        return self.change(**changed) if changed else self

    def _refuse_dropout(self, parts: str) -> None:
        if self.dropout_p:
            raise OptionError(
                f"an attention with dropout_p={self.dropout_p} cannot be cut to some {parts}: the dropout pattern "
                f"depends on their index. Set dropout_p=0 first."
            )

    def _device(self) -> torch.device | None:
        return next((value.device for value in self.tensors().values()), None)


def _same(value: Any, other: Any) -> bool:
    if value is other or isinstance(value, Tensor) or isinstance(other, Tensor):
        return value is other
    return bool(value == other)


def four_axes(mask: Tensor) -> Tensor:
    """Return a tensor that broadcasts to (B, H, L, S) with all four axes, the missing ones of size 1."""
    return mask[(None,) * (4 - mask.dim())]


def _cut(mask: Tensor, axis: int, where: slice | Tensor) -> Tensor:
    """Index one axis; an axis of size 1 broadcasts, and stays."""
    if mask.shape[axis] == 1 or (isinstance(where, slice) and where == slice(None)):
        return mask
    return mask[(slice(None),) * axis + (where,)]


def _as_argument(name: str, value: Any) -> Any:
    if name != "seed" or isinstance(value, Tensor):
        return value
    return torch.tensor(value, device="cpu") if value else None


FIELDS: dict[str, Field] = {f.name: replace(f.metadata[ROW], name=f.name) for f in fields(Attention)}
TENSORS = tuple(name for name, row in FIELDS.items() if row.is_tensor)
LEARNABLE = tuple(name for name, row in FIELDS.items() if row.learns)
ARGUMENTS = tuple(name for name, row in FIELDS.items() if row.schema is not None)
_NO_TENSORS = dict.fromkeys(TENSORS)

"""Statistics of this rank's rows of a sharded matrix: computed for some keys at a time, and merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from clearhead.distributed.call import Call
from clearhead.distributed.comparing import Steps
from clearhead.distributed.exchange import VALUES
from clearhead.distributed.placement import chosen_keys
from clearhead.errors import OptionError, ShapeError
from clearhead.kernels.precision import wide
from clearhead.matrix import AttentionMatrix
from clearhead.matrix.questions import compare
from clearhead.matrix.questions.rows import effective
from clearhead.spec import Attention

if TYPE_CHECKING:
    from clearhead.distributed.matrix import ShardedAttentionMatrix

_Sums = TypeVar("_Sums")


class Part(NamedTuple):
    """Some rows over some keys: a matrix whose rows sum to these keys' share of the row.

    Attributes:
        rows, keys: their slices of the rank's query, and of the owner's key.
        first_row: the position of the first row; the others follow it.
        positions: the keys' positions.
    """

    matrix: AttentionMatrix
    rows: slice
    keys: slice
    first_row: int
    positions: slice

    def offset(self, offset: int) -> int:
        """Return how far row 0 is ahead of key 0, if queries are `offset` ahead in the whole matrix."""
        return self.first_row + offset - self.positions.start


class RowQuestions:
    """Statistics with one number per query of this rank, (B, H, L_r), as the methods of `AttentionMatrix`."""

    _call: Call
    _attention: Attention
    _query: Tensor
    _key: Tensor
    _lse: Tensor
    shape: Any
    _agree: Callable[..., None]
    _keys: Callable[..., Iterator[tuple[int, Tensor]]]
    _of: Callable[[int, Tensor], Iterator[Part]]

    def entropy(self) -> Tensor:
        """Return the entropy of each row, (B, H, L_r), in nats."""
        return self._sum("entropy", lambda part: part.matrix.entropy())

    def maximum(self) -> Tensor:
        """Return the largest weight of each row, (B, H, L_r)."""

        def add(answer: Tensor, part: Part) -> None:
            answer[:, :, part.rows] = torch.maximum(answer[:, :, part.rows], part.matrix.maximum())

        return self._fold("maximum", self._empty, add)

    def effective_keys(self) -> Tensor:
        """Return the effective number of keys of each row, m²/Σⱼa² for weights that sum to m: (B, H, L_r)."""

        def add(sums: list[Tensor], part: Part) -> None:
            mass, squares = sums
            mass[:, :, part.rows] += _mass(part.matrix)
            squares[:, :, part.rows] += part.matrix.inner(part.matrix)

        return effective(*self._fold("effective_keys", lambda: [self._empty(), self._empty()], add))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest weights of each row, (values, keys), each (B, H, L_r, k), largest first.

        Of equal weights the lower key is first. Keys are positions of the whole sequence.

        Raises:
            OptionError: k is not within 1..S.
        """

        def start() -> list[Tensor]:
            best = self._zeros((*self._lse.shape, k)) - 1  # less than any weight
            return [best, torch.arange(k, device=best.device).expand(best.shape).clone()]

        def add(answer: list[Tensor], part: Part) -> None:
            best, where = answer
            values, keys = part.matrix.topk(min(k, part.matrix.shape[3]))
            both = torch.cat([best[:, :, part.rows], values], -1)
            places = torch.cat([where[:, :, part.rows], keys + part.positions.start], -1)
            best[:, :, part.rows], where[:, :, part.rows] = _best(both, places, k)

        best, where = self._fold("topk", start, add, lambda: _check_k(k, self.shape[3]))
        return best.clamp_min(0), where

    def mean_distance(self, *, offset: int = 0) -> Tensor:
        """Return the mean distance each query looks, Σⱼ aᵢⱼ·|i + offset - j|, (B, H, L_r), in positions."""

        def far(part: Part) -> Tensor:
            return part.matrix.mean_distance(offset=part.offset(offset))

        return self._sum("mean_distance", far, lambda: [offset])

    def distance_spread(self, *, offset: int = 0) -> Tensor:
        """Return the standard deviation of that distance within each row, (B, H, L_r), in positions.

        Variances of parts are merged by their means. Source: Chan, Golub & LeVeque 1979.
        """

        def add(sums: list[Tensor], part: Part) -> None:
            mass, mean, squares = (each[:, :, part.rows] for each in sums)
            place, more = part.offset(offset), _mass(part.matrix)
            total = mass + more
            share = more / total.masked_fill(total == 0, 1.0)
            distance = part.matrix.mean_distance(offset=place) / more.masked_fill(more == 0, 1.0)
            away = distance - mean
            squares += more * part.matrix.distance_spread(offset=place) ** 2 + away**2 * mass * share
            mean += away * share
            mass.copy_(total)

        made = self._fold("distance_spread", lambda: [self._empty() for _ in range(3)], add, lambda: [offset])
        mass, _, squares = made
        return (squares / mass.masked_fill(mass == 0, 1.0)).sqrt()

    def mass_within(self, window: int, *, offset: int = 0) -> Tensor:
        """Return the weight of each query on keys at most `window` positions away, (B, H, L_r)."""

        def near(part: Part) -> Tensor:
            return part.matrix.mass_within(window, offset=part.offset(offset))

        return self._sum("mass_within", near, lambda: _check_window(window, offset))

    def mass_on(self, keys: Sequence[int] | Tensor) -> Tensor:
        """Return the weight of each query on some keys together, (B, H, L_r).

        Args:
            keys: positions 0..S-1 of the whole sequence, or a boolean tensor (S,).
        """
        chosen: list[Tensor] = []

        def check() -> list[int]:
            chosen.append(chosen_keys(keys, self.shape[3]).to(self._query.device))
            return [len(chosen[0])]

        def on(part: Part) -> Tensor:
            inside = (chosen[0] >= part.positions.start) & (chosen[0] < part.positions.stop)
            return part.matrix.mass_on(chosen[0][inside] - part.positions.start)

        return self._sum("mass_on", on, check)

    def mass_where(self, where: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Return the weight of each query on the keys that meet a condition, (B, H, L_r).

        Args:
            where: called with a batch index and positions of rows (r,) and keys (c,) in the whole sequence; returns
                boolean (r, c).
        """

        def of_part(part: Part) -> Tensor:
            first, start = part.first_row, part.positions.start

            def there(batch: int, rows: Tensor, keys: Tensor) -> Tensor:
                return torch.as_tensor(where(batch, rows + first, keys + start)).expand(len(rows), len(keys))

            return part.matrix.mass_where(there)

        return self._sum("mass_where", of_part)

    def visible(self) -> Tensor:
        """Return how many keys each query may attend to, int64, (B, H, L_r). A bias is not a mask."""

        def add(answer: Tensor, part: Part) -> None:
            answer[:, :, part.rows] += part.matrix.visible()

        return self._fold("visible", lambda: self._empty().long(), add)

    def kl(self, other: ShardedAttentionMatrix) -> Tensor:
        """Return the KL divergence to another matrix, Σⱼ aᵢⱼ·log(aᵢⱼ / bᵢⱼ), (B, H, L_r), in nats; `other` is b.

        Raises:
            ShapeError: `other` has another shape, placement or mask.
        """
        answer = self._sum_of_both("kl", other, compare.kl_of_keys)
        return answer if self._attention.sinks is not None else answer.clamp_min(0.0)

    def inner(self, other: ShardedAttentionMatrix) -> Tensor:
        """Return the inner product with another matrix, Σⱼ aᵢⱼ·bᵢⱼ, (B, H, L_r)."""
        return self._sum_of_both("inner", other, compare.inner)

    # Sums over parts

    def _fold(
        self, question: str, start: Callable[[], _Sums], add: Callable[[_Sums, Part], None], check: Any = list
    ) -> _Sums:
        """Return sums to which every part was added, after checking that every rank computes them.

        Args:
            start: returns the sums before the first part.
            add: adds one part to them.
            check: as in `comparing.same_question`.
        """

        def add_each(owner: int, key: Tensor) -> None:
            for part in self._of(owner, key):
                add(cast(_Sums, sums), part)

        self._agree(question, check)
        with Steps(self._call.ranks, question, self._query.device) as steps:
            sums = steps(start)
            for owner, key in self._keys():
                steps(add_each, owner, key)
        return cast(_Sums, sums)

    def _sum(self, question: str, ask: Callable[[Part], Tensor], check: Any = list) -> Tensor:
        """Return the sum of a statistic over parts."""

        def add(answer: Tensor, part: Part) -> None:
            answer[:, :, part.rows] += ask(part)

        return self._fold(question, self._empty, add, check)

    def _sum_of_both(self, question: str, other: ShardedAttentionMatrix, ask: Any) -> Tensor:
        """Return the sum over parts of two matrices, whose keys travel together."""

        def add(owner: int, key: Tensor, other_key: Tensor) -> None:
            for ours, theirs in zip(self._of(owner, key), other._of(owner, other_key), strict=True):
                a, b = ours.matrix, theirs.matrix
                cast(Tensor, answer)[:, :, ours.rows] += ask(a._wide, a._wide_lse, b._wide, b._wide_lse)

        self._agree(question, lambda: self._check_other(other))
        with Steps(self._call.ranks, question, self._query.device) as steps:
            answer = steps(self._empty)
            for (owner, key), (_, other_key) in zip(self._keys(), other._keys(VALUES), strict=True):
                steps(add, owner, key, other_key)
        return cast(Tensor, answer)

    def _empty(self) -> Tensor:
        """Return zeros, (B, H, L_r)."""
        return self._zeros(self._lse.shape)

    def _check_other(self, other: ShardedAttentionMatrix) -> list[int]:
        if not isinstance(other, RowQuestions):
            raise OptionError(
                f"a sharded matrix is compared with a {type(other).__name__}; expected the sharded matrix of another "
                "call of clearhead.distributed.attention with the same mask."
            )
        ours, theirs = self._call, other._call
        same = self.shape == other.shape and self._attention.reach == other._attention.reach
        if not (same and ours.query_pieces == theirs.query_pieces and ours.key_pieces == theirs.key_pieces):
            raise ShapeError(
                f"sharded matrices are compared part by part, so shape, placement and band must be the same; shapes "
                f"are {self.shape} and {other.shape}. Make both with the same placement and mask."
            )
        if ours.rule is not theirs.rule or ours.added is not theirs.added:
            raise OptionError("sharded matrices are compared under one mask. Pass the same mask object to both calls.")
        return []

    def _zeros(self, shape: Sequence[int]) -> Tensor:
        return self._query.new_zeros(tuple(shape), dtype=wide(self._query.dtype))


def _mass(matrix: AttentionMatrix) -> Tensor:
    """Return the row sums of a part, (B, H, rows)."""
    return matrix @ matrix.q.new_ones(matrix.shape[3], dtype=wide(matrix.dtype))


def _check_k(k: int, keys: int) -> list[int]:
    if not 1 <= k <= keys:
        raise OptionError(f"topk(k={k}) of rows of {keys} keys. Use 1 <= k <= {keys}.")
    return [k]


def _check_window(window: int, offset: int) -> list[int]:
    if window < 0:
        raise OptionError(f"mass_within got window={window}; expected 0 or more.")
    return [window, offset]


def _best(values: Tensor, keys: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values and their keys; of equal values the lower key is first."""
    keys, order = keys.sort(dim=-1, stable=True)
    values = values.gather(-1, order)
    values, order = values.sort(dim=-1, descending=True, stable=True)
    return values[..., :k], keys.gather(-1, order)[..., :k]

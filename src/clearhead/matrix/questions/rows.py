"""Statistics per row: entropy, largest weights, distances, and the weight on some keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import OptionError, PlaceError, ShapeError
from clearhead.kernels import Wanted
from clearhead.matrix import products
from clearhead.matrix.questions import compare, statistics, sweep
from clearhead.matrix.questions.asking import Asked

if TYPE_CHECKING:
    from clearhead.matrix.matrix import AttentionMatrix


class RowQuestions(Asked):
    """Methods of AttentionMatrix with one number per query, (B, H, L), in float32 or wider."""

    def entropy(self) -> Tensor:
        """Return the entropy of each row, (B, H, L), in nats: 0 for one key, log S for equal weights; 0 if empty.

        Cost: one forward pass; with a bias or softcap, one blockwise pass.
        """
        answer = self._sweep(Wanted(entropy=True))
        return statistics.entropy(self._wide, self._wide_lse) if answer is None else answer.entropy

    def maximum(self) -> Tensor:
        """Return the largest weight of each row, (B, H, L); 0 in an empty row."""
        answer = self._sweep(Wanted(maximum=True))
        return statistics.maximum(self._wide, self._wide_lse) if answer is None else answer.maximum

    def effective_keys(self) -> Tensor:
        """Return the effective number of keys of each row, 1/Σⱼa², (B, H, L): 1 for one key, S for equal weights.

        With sinks, where the weights w sum to m < 1, it is m²/Σw². It is 0 in an empty row.

        Source: the inverse Simpson index (Hill 1973, order 2).
        """
        answer = self._sweep(Wanted(squares=True, mass=True))
        if answer is not None:
            return effective(answer.mass, answer.squares)
        mass = products.forward(self._wide, self._wide.key[..., :1] * 0, self._wide_lse)[2]
        return effective(mass, statistics.squared(self._wide, self._wide_lse))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """Return the k largest weights of each row and their keys.

        Args:
            k: 1..S.

        Returns:
            (values, indices), each (B, H, L, k), largest first; indices are int64 keys. If fewer than k keys may be
            attended, the remaining values are 0.

        Raises:
            OptionError: k is not within 1..S.
        """
        keys = self.shape[3]
        if not 1 <= k <= keys:
            raise OptionError(f"topk(k={k}) of rows of {keys} keys. Use 1 <= k <= {keys}.")
        answer = self._sweep(Wanted(topk=k))
        if answer is not None:
            return answer.best, answer.best_keys
        return statistics.topk(self._wide, self._wide_lse, k)

    def mean_distance(self, *, offset: int | None = None) -> Tensor:
        """Return the mean distance each query looks, Σⱼ aᵢⱼ·|i + offset - j|, (B, H, L), in positions.

        Args:
            offset: the position of query 0 among the keys; S - L if the queries are the last of a sequence. Default 0,
                or for a part made by `rows(start, stop)`, its start.

        Source: Vig & Belinkov 2019, "Analyzing the Structure of Attention", section 3.
        """
        offset = self._offset(offset)
        answer = self._sweep(Wanted(distance=True, offset=offset))
        return statistics.mean_distance(self._wide, self._wide_lse, offset) if answer is None else answer.distance

    def distance_spread(self, *, offset: int | None = None) -> Tensor:
        """Return the standard deviation of that distance within each row, (B, H, L), in positions."""
        offset = self._offset(offset)
        answer = self._sweep(Wanted(spread=True, offset=offset))
        return statistics.distance_spread(self._wide, self._wide_lse, offset) if answer is None else answer.spread

    def mass_within(self, window: int, *, offset: int | None = None) -> Tensor:
        """Return the weight of each query on keys at most `window` positions away, (B, H, L).

        Args:
            window: 0 or more.
            offset: as for `mean_distance`.

        Cost: O(L·window); only the band is computed.
        """
        if window < 0:
            raise OptionError(f"mass_within got window={window}; expected 0 or more.")
        offset = self._offset(offset)
        near = self._logits.change(**statistics.within(self._logits, window, offset))
        answer = sweep.ask(near, self._known_lse, Wanted(mass=True))
        return statistics.mass_within(self._wide, self._wide_lse, window, offset) if answer is None else answer.mass

    @checked()
    def mass_on(self, keys: Sequence[int] | Tensor) -> Tensor:
        """Return the weight of each query on some keys together, (B, H, L).

        Args:
            keys: positions 0..S-1, or a boolean tensor (S,); for the first token, `A.mass_on([0])`.
        """
        chosen = torch.as_tensor(keys, device=self._logits.query.device)
        size = self.shape[3]
        if chosen.dtype == torch.bool:
            if chosen.shape != (size,):
                raise ShapeError(
                    f"keys is a boolean tensor of shape {tuple(chosen.shape)}, expected ({size},), axis S."
                )
            chosen = chosen.nonzero().flatten()
        chosen = chosen.long().flatten()
        if chosen.numel() and not (-size <= int(chosen.min()) and int(chosen.max()) < size):
            raise PlaceError(f"keys={chosen.tolist()[:8]} has a position outside S={size}. Use 0..{size - 1}.")
        return statistics.mass_on(self._wide, self._wide_lse, (chosen % max(size, 1)).unique())

    def mass_where(self, where: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """Return the weight of each query on the keys that meet a condition, (B, H, L).

        Args:
            where: called for each block with a batch index, row positions (r,) and key positions (c,); returns boolean
                (r, c). In a part made by `rows(start, stop)` the first row is `start`.

        Raises:
            DtypeError, ShapeError: it returned something else.

        Example:
            >>> from clearhead import AttentionMatrix
            >>> q = torch.zeros(1, 1, 4, 2)
            >>> A = AttentionMatrix(q, q)
            >>> A.mass_where(lambda batch, rows, keys: keys < rows[:, None])[0, 0]
            tensor([0.0000, 0.2500, 0.5000, 0.7500])
        """
        first = self._first_row
        return statistics.mass_where(
            self._wide, self._wide_lse, lambda batch, rows, keys: where(batch, rows + first if first else rows, keys)
        )

    def visible(self) -> Tensor:
        """Return how many keys each query may attend to, int64, (B, H, L). A bias is not a mask."""
        return statistics.visible(self._logits)

    def kl(self, other: AttentionMatrix) -> Tensor:
        """Return the KL divergence to another matrix, Σⱼ aᵢⱼ·log(aᵢⱼ / bᵢⱼ), (B, H, L), in nats; `other` is b.

        Infinite where b is 0 for a key and a is not. Cost: two forward passes, or one blockwise pass.
        """
        compare.check(self._logits, other._logits)
        return compare.kl(self._wide, self._wide_lse, other._wide, other._wide_lse)

    def inner(self, other: AttentionMatrix) -> Tensor:
        """Return the inner product Σⱼ aᵢⱼ·bᵢⱼ, (B, H, L): how much two heads or models attend to the same keys."""
        compare.check(self._logits, other._logits)
        return compare.inner(self._wide, self._wide_lse, other._wide, other._wide_lse)


def effective(mass: Tensor, squares: Tensor) -> Tensor:
    """Return m²/Σa² of rows with sums m and sums of squares; 0 in an empty row."""
    return mass**2 / squares.masked_fill(squares == 0, 1.0)

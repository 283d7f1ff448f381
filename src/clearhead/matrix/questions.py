"""The questions an attention matrix answers: one method each, in float32 or wider."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from clearhead.arguments import checked
from clearhead.errors import OptionError, PlaceError, ShapeError
from clearhead.kernels import Cells, Statistics, Wanted
from clearhead.matrix import compare, pooling, products, statistics, sweep
from clearhead.matrix.logits import Logits
from clearhead.spec import divide_heads, repeat_heads

if TYPE_CHECKING:
    from clearhead.matrix.matrix import AttentionMatrix


class Questions:
    """What can be asked of a matrix. AttentionMatrix says what it is made of."""

    _logits: Logits
    _value: Tensor | None
    _lse: Tensor | None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, H, L, S)."""
        return self._logits.shape

    @property
    def lse(self) -> Tensor:
        raise NotImplementedError

    @property
    def _wide(self) -> Logits:
        return self._logits.wide()

    @property
    def _wide_lse(self) -> Tensor:
        return self.lse.to(self._wide.query.dtype)

    # Of each row

    def entropy(self) -> Tensor:
        """The entropy of each row, (B, H, L), in nats: 0 for one key, log S for all keys alike; 0 in an empty row.

        Cost: one forward pass; with a bias or softcap, one pass of blocks.
        """
        answer = self._sweep(Wanted(entropy=True))
        return statistics.entropy(self._wide, self._wide_lse) if answer is None else answer.entropy

    def maximum(self) -> Tensor:
        """The largest weight of each row, (B, H, L); 0 in an empty row."""
        answer = self._sweep(Wanted(maximum=True))
        return statistics.maximum(self._wide, self._wide_lse) if answer is None else answer.maximum

    def effective_keys(self) -> Tensor:
        """How many keys each row attends to in effect, (B, H, L): 1/Σⱼa²; 1 for one key, S for all alike; 0 if empty.

        With weights w that sum to m < 1 (sinks), m²/Σw²: of what the keys get, spread over how many.

        Source: the inverse Simpson index (Hill 1973, order 2).
        """
        answer = self._sweep(Wanted(squares=True, mass=True))
        if answer is not None:
            return _effective(answer.mass, answer.squares)
        mass = products.forward(self._wide, self._wide.key[..., :1] * 0, self._wide_lse)[2]
        return _effective(mass, statistics.squared(self._wide, self._wide_lse))

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        """The k largest weights of each row.

        Args:
            k: 1..S.

        Returns:
            (values, indices), each (B, H, L, k), largest first; indices are int64 keys. Where fewer than k keys may be
            attended, the rest are weight 0.

        Raises:
            OptionError: k is not within 1..S.
        """
        keys = self.shape[3]
        if not 1 <= k <= keys:
            raise OptionError(f"topk(k={k}) asks of rows of {keys} keys. Use 1 <= k <= {keys}.")
        answer = self._sweep(Wanted(topk=k))
        if answer is not None:
            return answer.best, answer.best_keys
        return statistics.topk(self._wide, self._wide_lse, k)

    def mean_distance(self, *, offset: int = 0) -> Tensor:
        """How far each query looks, (B, H, L), in positions: Σⱼ aᵢⱼ·|i + offset - j|.

        Args:
            offset: the position of query 0 among the keys, where queries are only the last of a sequence: S - L.

        Source: Vig & Belinkov 2019, "Analyzing the Structure of Attention", section 3.
        """
        answer = self._sweep(Wanted(distance=True, offset=offset))
        return statistics.mean_distance(self._wide, self._wide_lse, offset) if answer is None else answer.distance

    def distance_spread(self, *, offset: int = 0) -> Tensor:
        """How much that distance varies within a row, (B, H, L), in positions: its standard deviation."""
        answer = self._sweep(Wanted(spread=True, offset=offset))
        return statistics.distance_spread(self._wide, self._wide_lse, offset) if answer is None else answer.spread

    def mass_within(self, window: int, *, offset: int = 0) -> Tensor:
        """What each query gives to keys at most `window` positions away, (B, H, L), in weights.

        Cost: O(L·window); only the band is computed.
        """
        if window < 0:
            raise OptionError(f"mass_within(window={window}) needs a window of 0 positions or more.")
        near = self._logits.change(**statistics.within(self._logits, window, offset))
        answer = sweep.ask(near, self._known_lse, Wanted(mass=True))
        return statistics.mass_within(self._wide, self._wide_lse, window, offset) if answer is None else answer.mass

    @checked()
    def mass_on(self, keys: Sequence[int] | Tensor) -> Tensor:
        """What each query gives to some keys together, (B, H, L), in weights.

        Args:
            keys: positions 0..S-1, or a boolean tensor (S,). Separators, say, or the first token: `A.mass_on([0])`.
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
            raise PlaceError(f"keys={chosen.tolist()[:8]} holds a position outside S={size}. Use 0..{size - 1}.")
        return statistics.mass_on(self._wide, self._wide_lse, (chosen % max(size, 1)).unique())

    def mass_where(self, where: Callable[[int, Tensor, Tensor], Tensor]) -> Tensor:
        """What each query gives to the keys that meet a condition, (B, H, L), in weights.

        Args:
            where: called with a batch index, some row positions (r,) and some key positions (c,); answers boolean
                (r, c). It is asked for a block at a time.

        Example:
            >>> from clearhead import AttentionMatrix
            >>> q = torch.zeros(1, 1, 4, 2)
            >>> A = AttentionMatrix(q, q)
            >>> A.mass_where(lambda batch, rows, keys: keys < rows[:, None])[0, 0]
            tensor([0.0000, 0.2500, 0.5000, 0.7500])
        """
        return statistics.mass_where(self._wide, self._wide_lse, where)

    def visible(self) -> Tensor:
        """How many keys each query may attend to, (B, H, L), int64: S less what is masked. A bias masks nothing."""
        return statistics.visible(self._logits)

    # Of each key

    def received(self) -> Tensor:
        """What each key gets over all queries, (B, H, S): the column sums, in weights. Cost: about a forward pass."""
        answer = self._sweep(Wanted(received=True))
        return statistics.received(self._wide, self._wide_lse) if answer is None else answer.received

    @checked()
    def gradient_times(self, grad_out: Tensor, value: Tensor | None = None) -> Tensor:
        """Gradient times attention of each key, (B, H, S): Σᵢ aᵢⱼ · ∂loss/∂aᵢⱼ, where ∂loss/∂aᵢⱼ = grad_outᵢ·vⱼ.

        Args:
            grad_out: (B, H, L, D_v), the gradient of a number at the attention's output.
            value: (B, H_kv, S, D_v); default the value the matrix was made with.

        Source: Chefer, Gur & Wolf 2021, "Transformer Interpretability Beyond Attention Visualization", eq. 13,
        without the clamp, summed over queries.
        """
        values = self._values(value)
        expected = (*self.shape[:3], values.shape[-1])
        if grad_out.shape != expected:
            raise ShapeError(f"grad_out has shape {tuple(grad_out.shape)}, expected {expected}, axes B,H,L,D.")
        wide = self._wide
        gathered = products.transposed(wide, self._wide_lse, grad_out.to(wide.query.dtype))
        return (gathered * values.to(wide.query.dtype)).sum(-1)

    # As a picture

    def pooled(
        self,
        rows: int,
        cols: int,
        *,
        reduce: Literal["mean", "max"] = "mean",
        region: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """The matrix, or a rectangle of it, as a small map: one number a cell, (B, H, rows, cols).

        Cells are those of `torch.nn.functional.adaptive_avg_pool2d`; more cells than positions repeat them.

        Args:
            rows, cols: cells down and across, at least 1.
            reduce: "mean" or "max" of the weights in a cell.
            region: (rows, cols) of the matrix, two slices of step 1; default all of it. So a viewer can zoom.

        Raises:
            OptionError: no cells, an empty region, or another `reduce`.

        Memory: O(rows·cols) a head, or O(L·min(cols, 128)) where it is computed in torch. Cost: about a forward pass
        over the region.
        """
        _check_cells("pooled", rows, cols)
        pools = {"mean": pooling.mean, "max": pooling.maximum}
        if reduce not in pools:
            raise OptionError(f"reduce is {reduce!r}; expected 'mean' or 'max'.")
        spans = self._region(region)
        cells = self._cells(rows, cols, spans, reduce)
        answer = self._sweep(Wanted(cells=cells))
        if answer is None:
            return pooling.pooled(self._wide, self._wide_lse, (rows, cols), spans[0], spans[1], pools[reduce])
        return answer.map if cells.by_maximum else sweep.means(answer.map, cells)

    def allowed(self, rows: int, cols: int, *, region: tuple[slice, slice] | None = None) -> Tensor:
        """How much of each cell of such a map may be attended at all, (B, H, rows, cols), 0..1: 0 where all is masked.

        For hatching what a mask leaves out. With as many cells as positions it is the mask itself. A bias masks
        nothing.

        Args:
            rows, cols, region: as for `pooled`.

        Memory: O(L·cols) in pieces, never L·S. Axes the mask does not look at are stretched views.
        """
        _check_cells("allowed", rows, cols)
        return pooling.allowed(self._logits, (rows, cols), *self._region(region))

    # All together

    def survey(
        self, *, k: int = 8, cells: tuple[int, int] = (64, 64), offset: int = 0, progress: sweep.Progress | None = None
    ) -> sweep.Survey:
        """Everything there is to ask of rows, columns and cells, in one sweep: about the price of one forward pass.

        Args:
            k: how many of the largest weights of a row; at most S of them.
            cells: rows and columns of the map.
            offset: as for `mean_distance`.
            progress: called with the share done, 0..1, as the sweep goes on; for a long one, a progress bar:
                `with rich.progress.Progress() as bar: task = bar.add_task("asking", total=1);
                A.survey(progress=lambda done: bar.update(task, completed=done))`.

        Raises:
            OptionError: as `topk` and `pooled` do.

        Example:
            >>> import torch
            >>> from clearhead import AttentionMatrix
            >>> q = torch.zeros(1, 1, 4, 2)
            >>> survey = AttentionMatrix(q, q, is_causal=True).survey(k=2, cells=(2, 2))
            >>> survey.received[0, 0], survey.effective_keys[0, 0]
            (tensor([2.0833, 1.0833, 0.5833, 0.2500]), tensor([1., 2., 3., 4.]))
            >>> survey.topk[1][0, 0].tolist()
            [[0, 1], [0, 1], [0, 1], [0, 1]]
        """
        _check_cells("survey", *cells)
        if k < 1:
            raise OptionError(f"survey(k={k}) needs k of 1 or more.")
        k, where = min(k, self.shape[3]), self._cells(*cells, self._region(None), "mean")
        answer = sweep.ask(
            self._logits,
            lambda: self._known_lse(None if progress is None else lambda done: progress(done / 2)),
            Wanted(True, True, True, True, True, True, offset, True, k, where),
            None if progress is None else lambda done: progress((1 + done) / 2),
        )
        if answer is None:
            return self._survey_in_torch(k, cells, offset, progress)
        return sweep.Survey(
            entropy=answer.entropy,
            maximum=answer.maximum,
            effective_keys=_effective(answer.mass, answer.squares),
            mean_distance=answer.distance,
            distance_spread=answer.spread,
            received=answer.received,
            topk=(answer.best, answer.best_keys),
            pooled=sweep.means(answer.map, where),
        )

    def _survey_in_torch(
        self, k: int, cells: tuple[int, int], offset: int, progress: sweep.Progress | None
    ) -> sweep.Survey:
        """The same, one question after the other."""
        asked: dict[str, Callable[[], Any]] = {
            "entropy": self.entropy,
            "maximum": self.maximum,
            "effective_keys": self.effective_keys,
            "mean_distance": lambda: self.mean_distance(offset=offset),
            "distance_spread": lambda: self.distance_spread(offset=offset),
            "received": self.received,
            "topk": lambda: self.topk(k),
            "pooled": lambda: self.pooled(*cells),
        }
        answers = {}
        for done, (name, ask) in enumerate(asked.items(), start=1):
            answers[name] = ask()
            if progress is not None:
                progress(done / len(asked))
        return sweep.Survey(**answers)

    # Beside another

    def kl(self, other: AttentionMatrix) -> Tensor:
        """How differently two heads or models attend, (B, H, L), nats: Σⱼ aᵢⱼ·log(aᵢⱼ / bᵢⱼ); `other` is b.

        Infinite where b gives nothing to a key that a gives something. Cost: two forward passes, else one of blocks.
        """
        compare.check(self._logits, other._logits)
        return compare.kl(self._wide, self._wide_lse, other._wide, other._wide_lse)

    def inner(self, other: AttentionMatrix) -> Tensor:
        """How much two heads or models attend to the same keys, (B, H, L): Σⱼ aᵢⱼ·bᵢⱼ."""
        compare.check(self._logits, other._logits)
        return compare.inner(self._wide, self._wide_lse, other._wide, other._wide_lse)

    def _values(self, value: Tensor | None) -> Tensor:
        """(B, H, S, D_v): the values given, or those known, one a query head."""
        value = self._value if value is None else value
        batch, heads, _, keys = self.shape
        if value is None:
            raise OptionError(
                "this matrix knows no values. Give value=, make it with value=, or record it with "
                "observe(model, values=True)."
            )
        if (
            value.dim() != 4
            or value.shape[0] != batch
            or value.shape[2] != keys
            or divide_heads(heads, value.shape[1]) < 0
        ):
            raise ShapeError(
                f"value has shape {tuple(value.shape)}, expected (B, H_kv, S, D_v) with B={batch}, S={keys} and H_kv "
                f"dividing {heads}."
            )
        return repeat_heads(value, heads)

    def _region(self, region: tuple[slice, slice] | None) -> tuple[slice, slice]:
        """A rectangle of the matrix, its ends said."""
        area = (slice(None), slice(None)) if region is None else region
        spans = []
        for part, size, letter in zip(area, self.shape[2:], "LS", strict=True):
            start, stop, step = part.indices(size)
            if step != 1 or start >= stop:
                raise OptionError(
                    f"the region's {letter} is {part}: empty, or not of step 1. Use 0 <= start < stop <= {size}."
                )
            spans.append(slice(start, stop))
        return spans[0], spans[1]

    def _cells(self, rows: int, cols: int, spans: tuple[slice, slice], reduce: str) -> Cells:
        sizes = [span.stop - span.start for span in spans]
        edges = [pooling.edges(size, cells) for size, cells in zip(sizes, (rows, cols), strict=True)]
        return sweep.cells(edges, spans, by_maximum=reduce == "max")

    def _sweep(self, wanted: Wanted) -> Statistics | None:
        if self._lse is None and (both := sweep.first(self._logits, wanted)) is not None:
            self._lse, answer = both
            return answer
        return sweep.ask(self._logits, self._known_lse, wanted)

    def _known_lse(self, progress: sweep.Progress | None = None) -> Tensor:
        """The lse, computed at the first call and kept; `progress` is called meanwhile."""
        raise NotImplementedError


def _effective(mass: Tensor, squares: Tensor) -> Tensor:
    return mass**2 / squares.masked_fill(squares == 0, 1.0)


def _check_cells(method: str, rows: int, cols: int) -> None:
    if rows < 1 or cols < 1:
        raise OptionError(f"{method} of rows={rows}, cols={cols} needs at least one cell each way.")

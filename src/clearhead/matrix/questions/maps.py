"""Statistics in the form of a small map: mean or maximum weight, or the allowed share, of each cell."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from clearhead.errors import OptionError
from clearhead.kernels import Cells, Wanted
from clearhead.matrix.questions import pooling, sweep
from clearhead.matrix.questions.asking import Asked


class MapQuestions(Asked):
    """Methods of AttentionMatrix with one number per cell, (B, H, rows, cols), in float32 or wider."""

    def pooled(
        self,
        rows: int,
        cols: int,
        *,
        reduce: Literal["mean", "max"] = "mean",
        region: tuple[slice, slice] | None = None,
    ) -> Tensor:
        """Return the matrix, or a rectangle of it, as a small map with one number per cell, (B, H, rows, cols).

        Cells are those of `torch.nn.functional.adaptive_avg_pool2d`; more cells than positions repeat them.

        Args:
            rows, cols: the number of cells down and across, at least 1.
            reduce: "mean" or "max" of the weights in a cell.
            region: (rows, cols) of the matrix, two slices of step 1; default all of it. For zooming.

        Raises:
            OptionError: no cells, an empty region, or an unknown `reduce`.

        Memory: O(rows·cols) per head, or O(L·min(cols, 128)) if computed in torch. Cost: about one forward pass over
        the region.
        """
        check_cells("pooled", rows, cols)
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
        """Return the share of each cell that the mask allows, (B, H, rows, cols), 0..1: 0 where all is masked.

        Viewers hatch masked cells with it. With as many cells as positions it is the mask itself. A bias is not a mask.

        Args:
            rows, cols, region: as for `pooled`.

        Memory: O(L·cols) in pieces, never L·S. Axes the mask does not depend on are expanded views.
        """
        check_cells("allowed", rows, cols)
        return pooling.allowed(self._logits, (rows, cols), *self._region(region))

    def _region(self, region: tuple[slice, slice] | None) -> tuple[slice, slice]:
        """Return a rectangle of the matrix as slices with start and stop."""
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


def check_cells(method: str, rows: int, cols: int) -> None:
    """Check that there is at least one cell in each direction.

    Raises:
        OptionError: there is not.
    """
    if rows < 1 or cols < 1:
        raise OptionError(f"{method} got rows={rows}, cols={cols}; expected at least one cell in each direction.")

"""Compute one tile of the Lens: a region of one head's map, at once or in parts."""

from typing import Any

from clearhead.errors import OptionError
from clearhead.views.maps import Array, hidden, numbers
from clearhead.views.page import long_texts
from clearhead.views.page.packing import masked, pack

MOST_CELLS = 256  # cells a side of a tile


def region(matrix: Any, rows: slice, cols: slice) -> tuple[slice, slice]:
    """Return a region, clipped to the matrix."""
    rows, cols = slice(rows.start, min(rows.stop, matrix.shape[2])), slice(cols.start, min(cols.stop, matrix.shape[3]))
    if rows.stop - rows.start < 1 or cols.stop - cols.start < 1:
        raise OptionError(f"the region is empty: the matrix is {matrix.shape[2]} × {matrix.shape[3]}. Ask within it.")
    return rows, cols


def tile(matrix: Any, head: int, rows: slice, cols: slice, cells: int, part: tuple[int, int] | None) -> dict[str, Any]:
    """Return the map of a region, at most `cells` a side.

    Args:
        part: (which, of how many) of the rows of cells; None: all at once, or an outline and the number of `parts`.
    """
    cells = max(1, min(cells, MOST_CELLS))
    height, width = rows.stop - rows.start, cols.stop - cols.start
    down, across = min(height, cells), min(width, cells)
    count = long_texts.parts(matrix, height)
    if part is None and count > 1 and height >= long_texts.SIDE:
        weights, few = long_texts.sketch(matrix, head, rows, cols, (down, across))
        return {**_packed(long_texts.single(matrix, head), weights, (rows, cols)), "parts": count, "few": few}
    if part is not None:
        rows, down = long_texts.span(rows, part), long_texts.SIDE // part[1]
        height = rows.stop - rows.start
    if long_texts.parts(matrix, matrix.shape[2]) == 1:
        part_of_head, inside = long_texts.single(matrix, head), (rows, cols)
    else:
        part_of_head, inside = long_texts.piece(matrix, head, rows), (slice(0, height), cols)
    if height <= down and width <= across:
        return _packed(part_of_head, numbers(part_of_head[0, :, inside[0], cols]), inside)
    weights = numbers(part_of_head.pooled(down, across, region=inside))[0]
    if part is not None:  # the outline already held the masked cells
        return {"map": pack(weights, "u16", float(weights.max(initial=0.0)))}
    return _packed(part_of_head, weights, inside)


def _packed(matrix: Any, weights: Array, region: tuple[slice, slice]) -> dict[str, Any]:
    """Return a map of a region of one head, and its masked cells, packed."""
    cells = masked(hidden(matrix, weights, region))
    return {"map": pack(weights, "u16", float(weights.max(initial=0.0))), "masked": cells}

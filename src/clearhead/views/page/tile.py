"""One tile of the Lens: a region of one head's map, at once or in parts."""

from typing import Any

from clearhead.errors import OptionError
from clearhead.views.arrays import Array, numbers
from clearhead.views.maps import hidden
from clearhead.views.page import long_texts
from clearhead.views.page.packing import masked, pack

MOST_CELLS = 256  # a side of a tile


def region(matrix: Any, rows: slice, cols: slice) -> tuple[slice, slice]:
    """A region of the matrix, cut to what there is."""
    rows, cols = slice(rows.start, min(rows.stop, matrix.shape[2])), slice(cols.start, min(cols.stop, matrix.shape[3]))
    if rows.stop - rows.start < 1 or cols.stop - cols.start < 1:
        raise OptionError(f"the region is empty: the matrix is {matrix.shape[2]} × {matrix.shape[3]}. Ask within it.")
    return rows, cols


def tile(matrix: Any, head: int, rows: slice, cols: slice, cells: int, part: tuple[int, int] | None) -> dict[str, Any]:
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
        one, inside = matrix.heads([head]), (rows, cols)
    else:
        one, inside = long_texts.piece(matrix, head, rows), (slice(0, height), cols)
    if height <= down and width <= across:
        return _packed(one, numbers(one[0, :, inside[0], cols]), inside)
    weights = numbers(one.pooled(down, across, region=inside))[0]
    if part is not None:  # what is masked came with the outline
        return {"map": pack(weights, "u16", float(weights.max(initial=0.0)))}
    return _packed(one, weights, inside)


def _packed(one: Any, weights: Array, region: tuple[slice, slice]) -> dict[str, Any]:
    """A map of a region of one head, with what is masked of it."""
    said = masked(hidden(one, weights, region))
    return {"map": pack(weights, "u16", float(weights.max(initial=0.0))), "masked": said}

"""Draw figures for papers with matplotlib: every head small, one head large, a score as bars.

Nothing here uses pyplot: a figure is created and returned, and belongs to the caller.
"""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearhead.errors import OptionError
from clearhead.extras import needs
from clearhead.files import unwritable, whole_file
from clearhead.views.checks import check_head
from clearhead.views.comparison import between
from clearhead.views.fonts import set_fonts, without_box_warnings
from clearhead.views.maps import THUMB, Array, hidden, tiles
from clearhead.views.token_axes import TokenAxis, layer_token_axes

with needs("views", "a figure"):
    from matplotlib.axes import Axes
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm, TwoSlopeNorm
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.patches import Rectangle

if TYPE_CHECKING:
    from clearhead.capture import Reading
    from clearhead.views.comparison import Comparison

# The light values of static/attention.css: one hue, lightness even in OKLCH; 0 is the paper.
PAPER, INK, MUTED, HAIRLINE, QUERY, KEY = "#ffffff", "#1f1d1a", "#655f56", "#d9d3c7", "#a8430b", "#00695c"
WEIGHTS = LinearSegmentedColormap.from_list(
    "clearhead",
    [PAPER, "#caddf3", "#a1c2e8", "#7aa6d8", "#578bc4", "#3970ab", "#1f568f", "#0a3e6e", "#00274c"],
)
DIFFERENCE = LinearSegmentedColormap.from_list(
    "clearhead-difference",
    ["#6b2a00", "#a8430b", "#d98a5c", "#f1cdb8", PAPER, "#caddf3", "#7aa6d8", "#3970ab", "#00274c"],
)
Box = tuple[float, float, float, float]  # left, right, bottom, top, as imshow has it
NAMED = 40  # axes with at most this many tokens show their names
MOST = 256  # cells a side of one head's picture
FONT = 7.0  # points
TALLEST = 9.0  # inches of maps one below the other: what fits on a page
SHARP = 200  # dots per inch, twice what a browser gives an inch


class CellFigure(Figure):
    """A figure that a notebook shows when it ends a cell, also where pyplot, which teaches this, is not imported."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """Return the figure as PNG, and how wide to show it, in CSS pixels."""
        png = BytesIO()
        _write(self, png, "png", SHARP)
        width = int.from_bytes(png.getvalue()[16:20])  # of the header
        return png.getvalue(), {"width": width // 2}


def grid(reading: "Reading", *, width: float = 7.0) -> Figure:
    """Draw all heads as small maps on one scale: layers down, heads across.

    Args:
        reading: one text through one model.
        width: the width of the figure, inches.
    """
    matrices = list(reading.record.values())
    small = [tiles(matrix, THUMB, THUMB) for matrix in matrices]
    layers, heads = len(small), max((len(layer) for layer in small), default=0)
    if not heads:
        raise OptionError("the reading holds no attention, so there is nothing to draw. See record.missed for why.")
    top = max(float(layer.max()) for layer in small)
    side = min((width - 1.3) / heads, TALLEST / layers)  # inches of one map
    figure = empty_figure(max(1.3 + side * heads, 2.5), 0.7 + side * layers)
    axis = figure.subplots()
    for layer, maps in enumerate(small):
        cells = hidden(matrices[layer], maps)
        for number, weights in enumerate(maps):
            image = _paint(
                axis, weights, cells[number], top, (number + 0.04, number + 0.96, layer + 0.96, layer + 0.04)
            )
    axis.set(xlim=(0, heads), ylim=(layers, 0), aspect="equal")
    apart = side * 72  # points from one map to the next
    for which, count in ((axis.xaxis, heads), (axis.yaxis, layers)):
        every = max(1, ceil(FONT * 1.5 / apart))  # so that the numbers do not collide
        which.set_ticks([number + 0.5 for number in range(0, count, every)])
        which.set_ticklabels([str(number) for number in range(0, count, every)])
    axis.xaxis.tick_top()
    axis.tick_params(length=0, labelsize=FONT, colors=MUTED, pad=1)
    axis.set_xlabel("head (in each map: columns are keys)", fontsize=FONT, color=INK)
    axis.set_ylabel("layer (in each map: rows are queries)", fontsize=FONT, color=INK)
    axis.spines[:].set_visible(False)
    longest = max(max(matrix.shape[-2:]) for matrix in reading.record.values())
    scale_bar(figure, image, axis, "weight" if longest <= THUMB else "mean weight")
    return figure


def head(reading: "Reading", layer: int, number: int, *, width: float = 4.5) -> Figure:
    """Draw one head as a map: rows are queries, columns keys. Up to 40 tokens are named.

    Raises:
        OptionError: there is no such layer or head.
    """
    check_head(reading, layer, number)
    matrix = list(reading.record.values())[layer]
    weights = tiles(matrix, MOST, MOST)
    dense = weights.shape[1:] == tuple(matrix.shape[2:])
    figure = empty_figure(width, width)
    axis = figure.subplots()
    image = _paint(
        axis, weights[number], hidden(matrix, weights)[number], float(weights[number].max()), _box(matrix.shape[2:])
    )
    thin_frame(axis)
    _tokens(axis, *layer_token_axes(reading, layer))
    alone = len(reading.record) == matrix.shape[1] == 1  # as a rollout is
    place = "" if alone else f", layer {layer}, head {number}"
    axis.set_title(f"{reading.model_name}{place}", fontsize=FONT + 1, color=INK, pad=8)
    scale_bar(figure, image, axis, "weight" if dense else "mean weight")
    return set_fonts(figure)


def difference(
    values: Array, tokens: Sequence[str], title: str, *, keys: Sequence[str] | None = None, width: float = 4.5
) -> Figure:
    """Draw the difference of two maps, (r, c), on a diverging scale with the paper's colour at 0.

    Args:
        values: the difference.
        tokens: the tokens of its rows, and of its columns if `keys` is not given.
        keys: the tokens of its columns.
    """
    figure = empty_figure(width, width)
    axis = figure.subplots()
    most = float(np.abs(values).max(initial=0.0)) or 1.0
    norm = TwoSlopeNorm(0.0, -most, most)
    axes = [
        TokenAxis("input", range(len(names)), list(names), [False] * len(names))
        for names in (tokens, tokens if keys is None else keys)
    ]
    box = _box([len(line.tokens) for line in axes])
    image = axis.imshow(values, cmap=DIFFERENCE, norm=norm, interpolation="nearest", extent=box)
    thin_frame(axis)
    _tokens(axis, *axes)
    axis.set_title(title, fontsize=FONT + 1, color=INK, pad=8)
    scale_bar(figure, image, axis, "first minus second")
    return set_fonts(figure)


def divergence(comparison: "Comparison", *, width: float = 4.5) -> Figure:
    """Draw how far every head of one model is from every head of another: KL divergence, nats per query.

    Args:
        comparison: from `comparison.compare`. Infinite divergences are hatched.
    """
    nats = comparison.nats
    infinite = ~np.isfinite(nats)
    shown = np.where(infinite, 0.0, nats)
    side = min((width - 1.2) / nats.shape[1], TALLEST / len(nats))
    figure = empty_figure(max(1.2 + side * nats.shape[1], 2.5), 0.9 + max(side * len(nats), 1.2))
    axis = figure.subplots()
    image = _paint(axis, shown, infinite, float(shown.max(initial=0.0)), _box(nats.shape))
    thin_frame(axis)
    axis.xaxis.tick_top()
    axis.xaxis.set_label_position("top")
    axis.tick_params(length=0, labelsize=FONT, colors=MUTED)
    for which, places in ((axis.yaxis, comparison.heads), (axis.xaxis, comparison.others)):
        starts = [place for place, (_, head) in enumerate(places) if head == 0]
        ends = [*starts[1:], len(places)]
        which.set_ticks([(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)])
        which.set_ticklabels([f"layer {layer}" if len(starts) <= 8 else str(layer) for layer in range(len(starts))])
        line = axis.axhline if which is axis.yaxis else axis.axvline
        for start in starts[1:]:
            line(start - 0.5, color=PAPER, linewidth=0.8, zorder=3)
    axis.set_ylabel(f"{comparison.first.model_name}: heads by layer", fontsize=FONT, color=INK)
    axis.set_xlabel(f"{comparison.second.model_name}: heads by layer", fontsize=FONT, color=INK)
    scale_bar(figure, image, axis, "KL divergence, nats per query")
    return set_fonts(figure)


def compared(comparison: "Comparison", place: tuple[int, int] | None, *, width: float = 4.5) -> Figure:
    """Draw how far all heads of two models are from each other, or where the heads at one (layer, head) differ.

    Raises:
        OptionError: one of the models has no such head, or the two maps cannot be compared.
    """
    if place is None:
        return divergence(comparison, width=width)
    queries, keys = layer_token_axes(comparison.first, place[0])
    models = f"{comparison.first.model_name} minus {comparison.second.model_name}"
    title = f"layer {place[0]}, head {place[1]}: {models}"
    return difference(between(comparison, *place, MOST), queries.tokens, title, keys=keys.tokens, width=width)


def bars(values: Sequence[Sequence[float]], name: str, *, most: int = 24, width: float = 4.5) -> Figure:
    """Draw a score as bars named `layer.head`, largest first: the `most` largest of `values[layer][head]`."""
    ranked = sorted(
        ((value, f"{layer}.{number}") for layer, row in enumerate(values) for number, value in enumerate(row)),
        reverse=True,
    )[:most]
    figure = empty_figure(width, 0.6 + 0.16 * len(ranked))
    axis = figure.subplots()
    axis.barh(range(len(ranked)), [value for value, _ in ranked], color=WEIGHTS(0.75), height=0.7)
    axis.set_yticks(range(len(ranked)), [label for _, label in ranked], fontsize=FONT, color=INK)
    axis.invert_yaxis()
    axis.set_xlabel(name, fontsize=FONT, color=INK)
    axis.tick_params(labelsize=FONT, length=0, colors=MUTED)
    for edge in ("top", "right", "left"):
        axis.spines[edge].set_visible(False)
    axis.spines["bottom"].set_color(HAIRLINE)
    return figure


def save(figure: Figure, path: str | Path, *, dpi: int = SHARP) -> None:
    """Write a figure in the format of the file's suffix: .png, .svg or .pdf (text stays text in the last two).

    Raises:
        OptionError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    kind = path.suffix.lower().lstrip(".")
    if kind not in ("png", "svg", "pdf"):
        raise OptionError(f"{path} ends in {path.suffix or 'nothing'}, expected .png, .svg or .pdf. Rename the file.")
    with whole_file(path) as draft:
        try:
            _write(figure, draft, kind, dpi)
        except ValueError as error:  # Matplotlib's, of a figure that is too large
            raise unwritable(path, error) from error


def _write(figure: Figure, to: Path | BytesIO, kind: str, dpi: int) -> None:
    from matplotlib import rc_context

    set_fonts(figure)
    dated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}[kind]  # the same run, the same file
    with rc_context({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "clearhead"}), without_box_warnings():
        figure.savefig(to, format=kind, dpi=dpi, metadata=dated, bbox_inches="tight", facecolor=PAPER)


def empty_figure(width: float, height: float) -> Figure:
    """Return an empty figure on paper, in inches."""
    return CellFigure(figsize=(width, height), facecolor=PAPER, layout="constrained")


def _paint(axis: Axes, weights: Array, masked: NDArray[np.bool_], top: float, box: Box) -> AxesImage:
    """Draw one map. Masked cells are transparent, so that hatching shows in their place."""
    if masked.any():
        left, right, bottom, upper = box
        plate = Rectangle((left, upper), right - left, bottom - upper)
        plate.set(facecolor="none", edgecolor=HAIRLINE, hatch="//////", linewidth=0)
        axis.add_patch(plate)
    norm = PowerNorm(0.5, 0.0, top or 1.0)
    shown = np.ma.masked_where(masked, weights)
    return axis.imshow(shown, cmap=WEIGHTS, norm=norm, interpolation="nearest", extent=box, aspect="equal", zorder=2)


def _box(shape: Sequence[int]) -> Box:
    """Return the extent of a map of a whole matrix, which puts position i at i."""
    return (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)


def thin_frame(axis: Axes) -> None:
    """Draw the four edges of a map as hairlines."""
    for spine in axis.spines.values():
        spine.set(color=HAIRLINE, linewidth=0.5)


def _tokens(axis: Axes, queries: TokenAxis, keys: TokenAxis) -> None:
    """Name the tokens on both axes if they fit, in a size at which they do not collide; else show positions."""
    shape = len(queries.positions), len(keys.positions)
    axis.set_ylabel("decoder query" if queries.sequence == "decoder" else "query", fontsize=FONT, color=QUERY)
    axis.set_xlabel("decoder key" if keys.sequence == "decoder" else "key", fontsize=FONT, color=KEY)
    axis.xaxis.set_label_position("top")
    axis.xaxis.tick_top()
    axis.tick_params(length=0, labelsize=FONT)
    if max(shape) <= NAMED:
        size = min(
            FONT, 0.44 * 72 * axis.figure.bbox.width / axis.figure.dpi / max(shape)
        )  # names leave the map half the width
        rows, columns = ([_cut(name) for name in line.tokens] for line in (queries, keys))
        # Escape dollar signs, which start mathematics in matplotlib.
        axis.set_yticks(range(shape[0]), rows, fontsize=size, parse_math=False)
        axis.set_xticks(range(shape[1]), columns, fontsize=size, rotation=90, parse_math=False)
    else:
        for which, line in ((axis.yaxis, queries), (axis.xaxis, keys)):
            if line.positions[0] or not isinstance(line.positions, range):  # otherwise an entry's index is its position
                which.set_major_formatter(partial(_position, line.positions))


def _position(places: range | tuple[int, ...], at: float, _tick: int) -> str:
    """Return the position of the entry at a place of an axis."""
    return str(places[round(at)]) if 0 <= round(at) < len(places) else ""


def _cut(name: str) -> str:
    name = name.replace("\n", "⏎")
    return name if len(name) <= 14 else name[:13] + "…"


def scale_bar(figure: Figure, image: AxesImage, axis: Axes, name: str) -> None:
    """Add the scale of a map's colours, with numbers and what they are."""
    bar = figure.colorbar(image, ax=axis, fraction=0.03, pad=0.02, aspect=30)
    bar.set_label(name, fontsize=FONT, color=INK)
    bar.ax.tick_params(labelsize=FONT, length=2, colors=MUTED)
    bar.ax.spines[:].set(edgecolor=HAIRLINE, linewidth=0.5)

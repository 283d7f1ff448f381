"""Draw weights over what a model saw or heard, with matplotlib: patches over their picture, tokens over seconds."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from clearhead.errors import ShapeError
from clearhead.extras import needs
from clearhead.views.fonts import set_fonts
from clearhead.views.plot import FONT, INK, KEY, MUTED, QUERY, WEIGHTS, empty_figure, scale_bar, thin_frame

with needs("views", "a figure"):
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure


def over_picture(
    pixels: Tensor, weights: Tensor, titles: Sequence[str] = (), *, top: float | None = None, width: float = 7.0
) -> Figure:
    """Draw maps of weights over one picture, side by side: the picture shows through where there is weight.

    Args:
        pixels: (height, width, 3) in 0..1 or uint8, as from `capture.picture_pixels`.
        weights: (rows, cols), or (maps, rows, cols) for several heads or words; all are on one scale.
        titles: one per map, such as the word.
        top: the weight at which the picture is clear, the end of the scale; by default the largest of all maps.
        width: the width of the figure, inches.

    Raises:
        ShapeError: pixels or weights have other axes, or the titles do not match the maps.
    """
    maps = weights.detach().float().cpu().numpy()
    maps = maps[None] if maps.ndim == 2 else maps
    if pixels.ndim != 3 or pixels.shape[-1] != 3:
        raise ShapeError(
            f"pixels have shape {tuple(pixels.shape)}, expected (height, width, 3). Use capture.picture_pixels."
        )
    if maps.ndim != 3 or not maps.size or (titles and len(titles) != len(maps)):
        raise ShapeError(
            f"weights have shape {tuple(weights.shape)} and there are {len(titles)} titles, expected (rows, cols) or "
            "(maps, rows, cols), and one title per map or none."
        )
    picture = pixels.detach().cpu().numpy()
    picture = picture / 255 if picture.dtype == np.uint8 else picture.clip(0, 1)
    top = float(maps.max()) if top is None else top
    across = min(len(maps), 4)
    down = -(-len(maps) // across)
    side = width / across
    tall = side * picture.shape[0] / picture.shape[1]
    figure = empty_figure(width, (tall + 0.3) * down)
    for place, axis in enumerate(figure.subplots(down, across, squeeze=False).flat):
        axis.set_axis_off()
        if place >= len(maps):
            continue
        shown = (maps[place] / (top or 1.0)).clip(0, 1)
        box = (0, picture.shape[1], picture.shape[0], 0)
        axis.imshow(picture, extent=box)
        veil = np.zeros((*shown.shape, 4))
        veil[..., 3] = 0.85 * (1 - np.sqrt(shown))
        axis.imshow(veil, extent=box, interpolation="nearest")
        if titles:
            title = f"{titles[place]}  (most: {maps[place].max():.3f})"
            axis.set_title(title, fontsize=FONT + 1, color=INK, parse_math=False)
    scale = f"one scale for all maps, square-root spacing: veiled at weight 0, clear at {top:.3f}"
    figure.supxlabel(scale, fontsize=FONT, color=MUTED)
    return set_fonts(figure)


def over_seconds(weights: Tensor, words: Sequence[str], seconds: float, *, width: float = 7.0) -> Figure:
    """Draw one head of a speech model as a map: rows are words, columns the sound in seconds.

    Args:
        weights: (words, frames), such as `A[0, head]` of a cross-attention.
        words: one per row.
        seconds: the duration of a frame, as in `capture.sound_frames(model).seconds`.
        width: the width of the figure, inches.

    Raises:
        ShapeError: weights have other axes, or the words do not match the rows.
    """
    if weights.ndim != 2 or len(words) != weights.shape[0]:
        raise ShapeError(f"weights have shape {tuple(weights.shape)} for {len(words)} words, expected (words, frames).")
    shown = weights.detach().float().cpu().numpy()
    figure = empty_figure(width, 0.8 + 0.2 * len(words))
    axis = figure.subplots()
    box = (0, shown.shape[1] * seconds, len(words) - 0.5, -0.5)
    norm = PowerNorm(0.5, 0.0, float(shown.max(initial=0.0)) or 1.0)
    image = axis.imshow(shown, cmap=WEIGHTS, norm=norm, extent=box, aspect="auto", interpolation="nearest")
    thin_frame(axis)
    scale_bar(figure, image, axis, "weight")
    axis.set_yticks(range(len(words)), list(words), fontsize=FONT, parse_math=False)
    axis.tick_params(length=0, labelsize=FONT, colors=MUTED)
    axis.set_ylabel("word", fontsize=FONT, color=QUERY)
    axis.set_xlabel("seconds", fontsize=FONT, color=KEY)
    return set_fonts(figure)

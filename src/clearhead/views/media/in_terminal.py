"""Draw what words look at in a picture or a sound with the shades of the terminal."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from clearhead.extras import needs
from clearhead.views.maps import KEY, QUERY, QUIET, WEIGHT, Array, shades
from clearhead.views.media.looks import MOST_WORDS, Look, at_picture, at_sound, largest, strongest
from clearhead.views.token_axes import shown

with needs("cli", "attention in a terminal"):
    from rich.cells import cell_len
    from rich.text import Text

if TYPE_CHECKING:
    from clearhead.capture import Grid, Reading, Sound

ACROSS = 3  # pictures side by side


def over_media(reading: "Reading", layer: int, head: int, width: int = 80) -> list[Text]:
    """Return lines: the patches that words look at, drawn in the picture's grid, or the seconds, along a time axis.

    The lines are empty for a text alone, and for a layer in which words do not look at the picture or sound.
    """
    lines: list[Text] = []
    top = float(largest(reading, layer)[head])
    for number, picture in enumerate(reading.pictures):
        looks = strongest(at_picture(reading, layer, head, picture), MOST_WORDS)
        if looks:
            which = "the picture" if len(reading.pictures) == 1 else f"picture {number}"
            lines += [Text(), Text(f"What the words look at in {which}", style="bold")]
            lines += _patches(looks, picture, top, width)
    heard = at_sound(reading, layer, head)
    if heard and reading.sound is not None:
        lines += [Text(), Text("What the words look at in the sound", style="bold")]
        lines += _seconds(heard, reading.sound, top, width)
    return lines


def _patches(looks: list[Look], picture: "Grid", top: float, width: int) -> list[Text]:
    """Return the picture's grid once for each word, side by side, on a scale from 0 to `top`."""
    wide = min(picture.cols, max(4, (width - 2 * ACROSS) // (2 * ACROSS)))
    high = max(1, round(picture.rows * wide / picture.cols))
    lines: list[Text] = []
    for start in range(0, len(looks), ACROSS):
        group = looks[start : start + ACROSS]
        names, grids = Text("  "), [Text("  ") for _ in range(high)]
        for look in group:
            title = f"{shown(look.token)} {look.total:.2f}"
            names.append(title[: 2 * wide].ljust(2 * wide) + "  ", style=QUERY)
            cells = _pooled(look.weights[None], (high, wide))
            for line, row in zip(grids, cells, strict=True):
                line.append("".join(2 * shade for shade in shades(row, top)), style=WEIGHT)
                line.append("│ ", style=QUIET)
        lines += [names, *grids]
    most = max(looks, key=lambda look: float(look.weights.max()))
    row, col = divmod(int(most.weights.argmax()), picture.cols)
    lines.append(
        Text(
            f"  the number is a word's weight on all patches; most on one: {shown(most.token)} on row {row}, "
            f"column {col}, {float(most.weights.max()):.3f}; one scale for all words: █ is {top:.3f}",
            style=QUIET,
        )
    )
    return lines


def _seconds(looks: list[Look], sound: "Sound", top: float, width: int) -> list[Text]:
    """Return a line a word, on a scale from 0 to `top`: the moments it looks at, and that of the largest weight."""
    heard, seconds = sound.frames, sound.seconds
    names = max(cell_len(shown(look.token)) for look in looks)
    room = max(8, width - names - 26)
    wide = min(room, heard)
    lines = [Text(" " * (names + 3) + f"{'0 s':<{max(1, wide - 5)}}{heard * seconds:.2f} s", style=KEY)]
    for look in looks:
        cells = _pooled(look.weights[None, None, :heard], (1, wide))[0]
        best = int(look.weights[:heard].argmax())
        line = Text("  " + " " * (names - cell_len(shown(look.token))) + shown(look.token) + " ", style=QUERY)
        line.append(shades(cells, top), style=WEIGHT)
        line.append(f"│ {best * seconds:.2f} s  {float(look.weights[best]):.3f}", style=QUIET)
        lines.append(line)
    after = sum(float(look.weights[heard:].sum()) for look in looks) / len(looks)
    lines.append(
        Text(
            f"  one scale for all words: █ is {top:.3f}; on what follows the sound: {after:.2f} of a word's weight",
            style=QUIET,
        )
    )
    return lines


def _pooled(weights: Array, size: tuple[int, int]) -> Array:
    """Return (high, wide): the largest weight in each cell."""
    cells: Array = F.adaptive_max_pool2d(torch.from_numpy(weights).reshape(1, *weights.shape[-2:]), size)[0].numpy()
    return cells

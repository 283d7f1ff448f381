"""Draw one head as a figure: its words over the picture or the seconds they look at, or else its map."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from clearhead.extras import needs
from clearhead.views import plot
from clearhead.views.checks import check_head
from clearhead.views.media.looks import MOST_WORDS, at_picture, at_sound, largest, strongest
from clearhead.views.over_picture import over_picture, over_seconds
from clearhead.views.token_axes import shown

with needs("views", "a figure"):
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from clearhead.capture import Reading


def reading_figure(reading: "Reading", place: tuple[int, int] | None) -> Figure:
    """Draw all heads of a reading, small, or the head at (layer, head).

    Raises:
        OptionError: there is no such head, or no attention was captured.
    """
    return plot.grid(reading) if place is None else head_figure(reading, *place)


def head_figure(reading: "Reading", layer: int, head: int) -> Figure:
    """Draw one head: the words of a vision-language model over their picture, those of a speech model over seconds.

    Of several pictures, or tiles of one, the one is drawn that the words look at most. Any other head is drawn as a map
    by `plot.head`.

    Raises:
        OptionError: there is no such layer or head.
    """
    check_head(reading, layer, head)
    seen = [(at_picture(reading, layer, head, picture), picture) for picture in reading.pictures]
    seen = [(looks, picture) for looks, picture in seen if looks]
    if seen:
        top = float(largest(reading, layer)[head])
        looks, picture = max(seen, key=lambda pair: sum(look.total for look in pair[0]))
        looks = strongest(looks, MOST_WORDS)
        maps = torch.from_numpy(np.stack([look.weights for look in looks]))
        return over_picture(picture.pixels, maps, [shown(look.token) for look in looks], top=top)
    if reading.sound is not None and (heard := at_sound(reading, layer, head)):
        rows = torch.from_numpy(np.stack([look.weights[: reading.sound.frames] for look in heard]))
        return over_seconds(rows, [shown(look.token) for look in heard], reading.sound.seconds)
    return plot.head(reading, layer, head)

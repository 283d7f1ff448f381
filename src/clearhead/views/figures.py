"""Figures of a reading or a comparison: all heads, or one."""

from typing import TYPE_CHECKING

from clearhead.extras import needs
from clearhead.views import plot
from clearhead.views.comparison import Comparison, between
from clearhead.views.media.figure import head_figure
from clearhead.views.token_axes import layer_token_axes

with needs("views", "a figure"):
    from matplotlib.figure import Figure

if TYPE_CHECKING:
    from clearhead.capture import Reading

Place = tuple[int, int]  # layer and head


def reading_figure(reading: "Reading", place: Place | None) -> Figure:
    """Draw all heads of a reading, or the head at a place.

    Raises:
        OptionError: there is no such head, or no attention was captured.
    """
    return plot.grid(reading) if place is None else head_figure(reading, *place)


def comparison_figure(comparison: Comparison, place: Place | None) -> Figure:
    """Draw how far all heads of two models are from each other, or where the heads at one place differ.

    Raises:
        OptionError: one of the models has no such head, or the two maps cannot be compared.
    """
    if place is None:
        return plot.divergence(comparison)
    values = between(comparison, *place, plot.MOST)
    queries, keys = layer_token_axes(comparison.first, place[0])
    models = f"{comparison.first.model_name} minus {comparison.second.model_name}"
    return plot.difference(values, queries.tokens, f"layer {place[0]}, head {place[1]}: {models}", keys=keys.tokens)

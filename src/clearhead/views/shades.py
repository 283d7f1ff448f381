"""The terminal's shades, which are readable without colour, and its colours."""

from math import sqrt

import numpy as np

from clearhead.views.maps import Array

SHADES = " ░▒▓█"
MASKED = "╱"
WEIGHT, QUERY, KEY, QUIET = "blue", "bright_red", "green", "dim"


def shades(weights: Array, top: float) -> str:
    """Return a character per weight: the square root of its share of `top`, in five shades. Above 0.2 % it is visible.

    >>> shades(np.array([0.0, 0.05, 0.2, 0.5, 1.0]), 1.0)
    ' ░▒▓█'
    """
    if top <= 0:
        return " " * len(weights)
    return "".join(SHADES[level(weight, top)] for weight in np.clip(weights, 0, top))


def level(weight: float, top: float) -> int:
    """Return the index of the shade, 0 to 4: the square root of the weight's share of `top`."""
    return min(4, round(4 * sqrt(weight / top))) if top > 0 else 0

"""The figure on the welcome page: one query among five keys, and its attention weights.

The server draws the first state; static/welcome-figure.js draws every later one with the same arithmetic.
"""

import math
from dataclasses import dataclass

ANGLES = (18.0, 85.0, 160.0, 232.0, 305.0)  # degrees, anticlockwise from the right; spread so that each key can win
DIRECTION, LENGTH = 62.0, 3.0  # the first query
RADIUS = 120.0  # pixels from the centre to a key
CENTRE = (200.0, 165.0)


@dataclass(frozen=True)
class Key:
    """One key as drawn: its place, its weight, and the nearest step of the weight scale."""

    name: str
    x: float
    y: float
    weight: float

    @property
    def step(self) -> int:
        """0 to 8, for the colour --w0 … --w8."""
        return round(self.weight * 8)


@dataclass(frozen=True)
class Figure:
    """The picture's first state."""

    keys: tuple[Key, ...]
    query: tuple[float, float]
    direction: float = DIRECTION
    length: float = LENGTH
    centre: tuple[float, float] = CENTRE


def weights(direction: float, length: float) -> list[float]:
    """Softmax of q·k/√2 over the five unit keys, for a query of this direction (degrees) and length."""
    logits = [length * math.cos(math.radians(direction - angle)) / math.sqrt(2) for angle in ANGLES]
    top = max(logits)
    parts = [math.exp(logit - top) for logit in logits]
    return [part / sum(parts) for part in parts]


def initial_figure() -> Figure:
    """Return the first state, ready to draw."""
    keys = tuple(
        Key(f"k{number}", *_place(angle, RADIUS), weight)
        for number, (angle, weight) in enumerate(zip(ANGLES, weights(DIRECTION, LENGTH), strict=True), 1)
    )
    return Figure(keys, _place(DIRECTION, 18 * LENGTH))


def _place(angle: float, radius: float) -> tuple[float, float]:
    x, y = CENTRE
    return round(x + radius * math.cos(math.radians(angle)), 1), round(y - radius * math.sin(math.radians(angle)), 1)

"""Draw a small line chart as SVG. Its x axis is logarithmic, or evenly spaced if a point is 0."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

WIDE, HIGH = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 52, 20, 12, 26

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def line_chart(
    xs: Sequence[float], series: Mapping[str, Sequence[float]], label: str, *, span: Sequence[float] = ()
) -> Markup:
    """Return an SVG of one or two lines on the same axes, y from zero; the page has a table of the same numbers.

    Args:
        series: name -> the y of each x; two lines differ in dash as well as in colour.
        span: every x of the finished chart, if only some are measured yet; () for xs.
    """
    span = span or xs
    places = {x: math.log(x) if min(span) > 0 else number for number, x in enumerate(span)}
    low, high = min(places.values()), max(places.values())
    top = max(max(ys) for ys in series.values()) or 1.0
    floor = HIGH - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = (places[x] - low) / (high - low or 1)
        return round(LEFT + across * (WIDE - LEFT - RIGHT), 1), round(floor - y / top * (floor - TOP), 1)

    parts = [
        f'<svg class="curve" viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(label)}">',
        f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{WIDE - RIGHT}"/>',
        f'<text x="{LEFT - 6}" y="{TOP + 4}" class="end">{short_number(top)}</text>',
        f'<text x="{LEFT - 6}" y="{floor + 4}" class="end">0</text>',
    ]
    for which, ys in enumerate(series.values()):
        points = [at(x, y) for x, y in zip(xs, ys, strict=True)]
        parts.append(f'<polyline class="line n{which}" points="{" ".join(f"{x},{y}" for x, y in points)}"/>')
        for (x, y), value, measured in zip(points, xs, ys, strict=True):
            title = f"<title>{short_number(value)}: {short_number(measured)}</title>"
            parts.append(f'<circle class="point n{which}" cx="{x}" cy="{y}" r="3.5">{title}</circle>')
    for number, value in enumerate(span):
        if len(span) <= 6 or number % 2 == (len(span) - 1) % 2:
            parts.append(f'<text x="{at(value, 0)[0]}" y="{HIGH - 8}" class="mid">{short_number(value)}</text>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 — numbers, and the label escaped


def short_number(x: float) -> str:
    """Return a number as a person writes it, in few characters.

    >>> short_number(66048), short_number(0.0001234), short_number(2.0), short_number(0.25), short_number(3.14e-9)
    ('66,048', '0.00012', '2', '0.25', '3.1·10⁻⁹')
    """
    if 0 < abs(x) < 0.0001:
        digits, power = f"{x:.1e}".split("e")
        return f"{digits.removesuffix('.0')}·10{str(int(power)).translate(_RAISED)}"
    if 0 < abs(x) < 0.001:
        return f"{x:.2g}"
    if abs(x) >= 999.5:  # 999.9 to three digits is "1e+03"
        return f"{x:,.0f}"
    return f"{x:.3g}"

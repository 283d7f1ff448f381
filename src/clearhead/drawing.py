"""Draw small SVG figures for the pages of a course: bars, a grid of weights, lines, arrows, and links between words.

Each function returns the text of an SVG whose colours follow the page around it. There are no dependencies, so a page's
program can draw in a millisecond:

    svg = bars([0.67, 0.24, 0.09], ["animal", "street", "it"])
"""

from collections.abc import Mapping, Sequence
from html import escape
from textwrap import wrap

ACCENT, QUERY, KEY = "var(--accent, #23508e)", "var(--query, #8a4b08)", "var(--key, #1d6f5c)"
COLOURS = (ACCENT, QUERY, KEY, "currentColor")
SCALE = 1.3  # page pixels per unit of a picture, so that its words are as large as the text around it
LETTER = 7.2  # average width of a letter of size 12, in units
BOLD = LETTER + 0.6
WIDE = 360.0  # width in units that a phone shows at full size; names and titles are broken into lines to fit
LINE = 15.0  # units from one line of a name or title to the next


def svg(width: float, height: float, body: str, title: str) -> str:
    """Return a picture of this size; `title` is its text for screen readers."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width * SCALE:.0f}" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>{body}</svg>'
    )


def _titled(width: float, height: float, body: str, title: str, otherwise: str) -> str:
    """Return a picture with its title above it. Without a title, `otherwise` is the text for screen readers."""
    if not title:
        return svg(width, height, body, otherwise)
    rows = wrap(title, int(max(width, WIDE) / BOLD))
    words = "".join(text(2, 13 + LINE * at, row, "start", ' font-weight="bold"') for at, row in enumerate(rows))
    down = 24 + LINE * (len(rows) - 1)
    wide = max(width, BOLD * max(map(len, rows)))
    return svg(wide, height + down, f'{words}<g transform="translate(0 {down:.0f})">{body}</g>', title)


def text(x: float, y: float, words: str, anchor: str = "middle", more: str = "") -> str:
    """Return a word of a picture, with its baseline at y."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def rectangle(x: float, y: float, width: float, height: float, paint: str) -> str:
    """Return a rectangle with its upper left corner at (x, y)."""
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" {paint}/>'


def bars(
    values: Sequence[float], names: Sequence[str] = (), title: str = "", top: float | None = None, bottom: float = 0.0
) -> str:
    """Draw one bar per value, up or down from zero, with its number at its end and its name below.

    `top` is the value of a bar of full height; `bottom`, below zero, is the value of the longest bar downwards.
    """
    most = top or max(0.0, *values, -min(values)) or 1.0
    names = names or [str(at) for at in range(len(values))]
    longest = max(len(word) for name in names for word in name.split() or [""])
    step = max(44.0, min(110.0, WIDE / len(values)), LETTER * longest + 8)
    rows = [wrap(name, int((step - 8) / LETTER + 1e-6)) for name in names]
    low = min(0.0, bottom, *values)
    high, base = 130.0, 150.0
    deep = min(-low / most, 1.0) * high + (18 if low < 0 else 0)  # below zero, and room for a number
    body = ""
    for at, (value, name) in enumerate(zip(values, rows, strict=True)):
        tall = max(min(abs(value) / most, 1.0) * high, 0.75)
        left, middle = at * step + 8, at * step + step / 2
        body += rectangle(left, base if value < 0 else base - tall, step - 16, tall, f'fill="{ACCENT}"')
        body += text(middle, base + tall + 14 if value < 0 else base - tall - 5, number(value))
        body += "".join(text(middle, base + deep + 16 + LINE * row, part) for row, part in enumerate(name))
    wide = len(values) * step
    body += f'<path d="M2 {base}H{wide - 2:.0f}" stroke="currentColor"/>'
    under = 24 + LINE * (max(map(len, rows)) - 1)
    return _titled(wide, base + deep + under, body, title, "Bars: " + ", ".join(map(number, values)))


def grid(
    rows: Sequence[Sequence[float]], row_names: Sequence[str] = (), column_names: Sequence[str] = (), title: str = "",
    hidden: Sequence[Sequence[bool]] = (), numbers: bool = True,
) -> str:  # fmt: skip
    """Draw a map of queries (rows) and keys (columns): darker for a larger weight (0 to 1), hatched where hidden."""
    row_names = row_names or [str(at) for at in range(len(rows))]
    column_names = column_names or [str(at) for at in range(len(rows[0]))]
    side = max(26.0 if not numbers else 38.0, LETTER * max(map(len, column_names)) + 6)
    tall = 26.0
    left = LETTER * max(map(len, row_names)) + 12
    body = (
        '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<path d="M0 6L6 0" stroke="currentColor" stroke-opacity="0.4"/></pattern></defs>'
    )
    for j, name in enumerate(column_names):
        body += text(left + j * side + side / 2, 14, name)
    shown = [[not (hidden and hidden[i][j]) for j in range(len(row))] for i, row in enumerate(rows)]
    seen = [rows[i][j] for i, row in enumerate(shown) for j in range(len(row)) if numbers and row[j]]
    written = iter(same_digits(seen))
    for i, (name, row) in enumerate(zip(row_names, rows, strict=True)):
        y = 20 + i * tall
        body += text(left - 6, y + 17, name, "end")
        for j, weight in enumerate(row):
            filled = f'fill="{ACCENT}" fill-opacity="{min(max(weight, 0), 1):.2f}"'
            paint = filled if shown[i][j] else 'fill="url(#hatch)"'
            x = left + j * side
            body += rectangle(x, y, side - 2, tall - 2, f'{paint} stroke="currentColor" stroke-opacity="0.25"')
            if numbers and shown[i][j]:
                ink = ' fill="white"' if weight > 0.6 else ""
                body += text(x + side / 2 - 1, y + 16, next(written), more=ink)
    note = "rows: queries, columns: keys"
    wide, high = left + max(len(rows[0]) * side, LETTER * len(note)), 20 + len(rows) * tall
    body += text(left, high + 14, note, "start", ' font-size="11" fill-opacity="0.75"')
    return _titled(wide + 2, high + 20, body, title, "A map of weights, rows are queries")


def lines(
    series: Mapping[str, Sequence[float]], x: Sequence[float | str], title: str = "", top: float | None = None,
    mark: int | None = None,
) -> str:  # fmt: skip
    """Draw curves over common places x, each named at its end. `mark` is the place of a vertical line."""
    values = [value for curve in series.values() for value in curve]
    most, least = top if top is not None else max(values), min(0.0, min(values))
    right = LETTER * max(map(len, series)) + 14
    wide, high, left = max(200.0, WIDE - right), 150.0, 44.0

    def place(at: int, value: float) -> str:
        across = left + at * (wide - left) / max(len(x) - 1, 1)
        down = high - (value - least) / ((most - least) or 1) * (high - 24)
        return f"{across:.1f},{down:.1f}"

    body = f'<path d="M{left} 14V{high}H{wide}" fill="none" stroke="currentColor"/>'
    body += text(left - 6, 28, number(most), "end") + text(left - 6, high, number(least), "end")
    for at in sorted({0, len(x) // 2, len(x) - 1}):
        body += text(left + at * (wide - left) / max(len(x) - 1, 1), high + 16, str(x[at]))
    if mark is not None:
        across = place(mark, least).split(",")[0]
        body += f'<path d="M{across} 14V{high}" stroke="currentColor" stroke-opacity="0.4" stroke-width="3"/>'
    ends = []
    for (name, curve), colour in zip(series.items(), COLOURS * 2, strict=False):
        points = " ".join(place(at, value) for at, value in enumerate(curve))
        body += f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        ends.append((float(points.rsplit(",", 1)[1]), name, colour))
    for y, (_, name, colour) in zip(_apart(sorted(end[0] for end in ends), 13, high), sorted(ends), strict=True):
        body += text(wide + 6, y + 4, name, "start", f' fill="{colour}"')
    return _titled(wide + right, high + 22, body, title, "Curves: " + ", ".join(series))


def _apart(heights: Sequence[float], gap: float, lowest: float) -> list[float]:
    """Return the sorted heights, moved so that neighbours are `gap` apart, in the same order and none below `lowest`.

    >>> _apart([10.0, 12.0, 99.0, 100.0], 13, 100.0)
    [10.0, 23.0, 87.0, 100.0]
    """
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    below = lowest + gap
    for at in reversed(range(len(placed))):
        below = placed[at] = min(placed[at], below - gap)
    return placed


def links(words: Sequence[str], weights: Sequence[float], at: int, title: str = "") -> str:
    """Draw words in a row, and arcs from the word at `at` to the others, as thick as their weights, shown above."""
    places, x = [], 6.0
    for word in words:
        width = LETTER * len(word)
        places.append(x + width / 2)
        x += width + 10
    base = 110.0
    written = same_digits([weight for weight in weights if weight >= 0.005])
    body = ""
    for j, (centre, weight) in enumerate(zip(places, weights, strict=True)):
        if j != at and weight >= 0.01:
            height = min(18 + abs(centre - places[at]) / 5, 84)
            body += (
                f'<path d="M{places[at]:.1f} {base - 14}C{places[at]:.1f} {base - 14 - height:.1f} {centre:.1f} '
                f'{base - 14 - height:.1f} {centre:.1f} {base - 14}" fill="none" stroke="{ACCENT}" '
                f'stroke-width="{max(weight * 9, 0.5):.1f}" stroke-opacity="0.75"/>'
            )
        strong = ' font-weight="bold"' if j == at else ""
        body += text(centre, base, words[j], more=strong)
        if weight >= 0.005:
            body += text(centre, base + 15, written.pop(0), more=' font-size="11" fill-opacity="0.8"')
    return _titled(x, base + 22, body, title, f"What {words[at]} looks at")


def arrows(vectors: Mapping[str, tuple[float, float]], title: str = "", reach: float = 2.5) -> str:
    """Draw vectors of two numbers from one point, the first as the query, the others as keys."""
    half, unit = 120.0, 100.0 / reach
    body = f'<path d="M{half} 8V{2 * half - 8}M8 {half}H{2 * half - 8}" stroke="currentColor" stroke-opacity="0.3"/>'
    for at, (name, (a, b)) in enumerate(vectors.items()):
        x, y, colour = half + a * unit, half - b * unit, QUERY if at == 0 else KEY
        body += f'<path d="M{half} {half}L{x:.1f} {y:.1f}" stroke="{colour}" stroke-width="2.5"/>'
        body += f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        body += text(x + (8 if a >= 0 else -8), y - 7, name, "start" if a >= 0 else "end", f' fill="{colour}"')
    wide = max(half + a * unit + 12 + LETTER * len(name) for name, (a, _) in vectors.items())
    return _titled(max(2 * half, wide), 2 * half, body, title, "Arrows: " + ", ".join(vectors))


def number(value: float) -> str:
    """Return a number as a person writes it: at most two digits after the point, thousands separated.

    >>> number(0.19999999999999996), number(3.0), number(12345.6), number(0.004)
    ('0.2', '3', '12,346', '0.004')
    """
    if abs(value) >= 100 or value == round(value):
        return f"{round(value):,}"
    if 0 < abs(value) < 0.01:
        return f"{value:.1g}"
    return f"{value:.2f}".rstrip("0").rstrip(".")


def same_digits(values: Sequence[float]) -> list[str]:
    """Return numbers for side-by-side reading: each like `number`, all with the same number of digits after the point.

    >>> same_digits([0.1, 0.28, 1.0]), same_digits([0.0, 1.0]), same_digits([0.004, 0.2])
    (['0.10', '0.28', '1.00'], ['0', '1'], ['0.004', '0.20'])
    """
    written = [number(value) for value in values]
    digits = min(max((len(text.partition(".")[2]) for text in written), default=0), 2)
    return [
        text if abs(value) >= 100 or len(text.partition(".")[2]) >= digits else f"{value:.{digits}f}"
        for text, value in zip(written, values, strict=True)
    ]

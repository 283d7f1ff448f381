"""Draw all heads as a grid, layers down and heads across, coloured by their mean; draw histograms as small bars."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from clearhead.survey.report.words import NOTHING, number, percent, title

Rows = dict[str, list[dict[str, Any]]]
STEPS = 8  # steps of the colour scale --w0 … --w8


def grid(statistic: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """Return the grid of a statistic, as a table whose cells link to their heads.

    The scale goes from 0 to 1 if the statistic does, else from 0 to the largest mean. With negative means it diverges.
    """
    by_place = {(row["layer"], row["head"]): row for row in rows}
    layers = sorted({layer for layer, _ in by_place})
    heads = 1 + max(head for _, head in by_place)
    largest = max((abs(row["mean"]) for row in rows if row["mean"] is not None), default=0.0)
    top = 1.0 if statistic["bounded"] else largest or 1.0
    decimals = 2 if top >= 0.1 else 3 if top >= 0.01 else 4
    across = "".join(f"<th scope=col>{head}</th>" for head in range(heads))
    lines = []
    for layer in layers:
        cells = "".join(_cell(by_place.get((layer, head)), top, decimals) for head in range(heads))
        lines.append(f"<tr><th scope=row>{layer}</th>{cells}</tr>")
    name = escape(title(statistic["name"]))
    return (
        f'<figure><table class="grid"><caption>{name}: layers down, heads across</caption>'
        f"<thead><tr><td></td>{across}</tr></thead><tbody>{''.join(lines)}</tbody></table>{_scale(top, rows)}</figure>"
    )


def _cell(row: dict[str, Any] | None, top: float, decimals: int) -> str:
    if row is None or row["mean"] is None:
        return '<td class="none"></td>'
    mean = row["mean"]
    step = min(round(abs(mean) / top * STEPS), STEPS)
    colour = f"var(--{'d' if mean < 0 else 'w'}{step})"
    share = "" if row["share"] is None else f", {percent(row['share'])} of texts"
    words = f"layer {row['layer']}, head {row['head']}: {number(mean)}{share}"
    dark = " dark" if step > STEPS // 2 else " middle" if step == STEPS // 2 else ""
    return (
        f'<td><a class="cell{dark}" style="background:{colour}" href="#head-{row["layer"]}-{row["head"]}" '
        f'title="{words}" aria-label="{words}"><span>{_compact(mean, decimals)}</span></a></td>'
    )


def _compact(mean: float, decimals: int) -> str:
    """Return a mean in few characters, to fit a cell: ".74", "2.7", "-.01"."""
    text = f"{mean:.{decimals}f}" if abs(mean) < 0.995 else f"{mean:.1f}"
    text = text.replace("0.", ".", 1) if text.lstrip("-").startswith("0.") else text
    return "0" if text.strip("-.0") == "" else text


def _scale(top: float, rows: Sequence[dict[str, Any]]) -> str:
    negative = any(row["mean"] is not None and row["mean"] < 0 for row in rows)
    colours = [f"var(--w{step})" for step in range(STEPS + 1)]
    ticks = [0.0, top / 2, top]
    if negative:
        colours = [f"var(--d{step})" for step in range(STEPS, 0, -1)] + colours
        ticks = [-top, 0.0, top]
    marks = "".join(f"<span>{number(tick)}</span>" for tick in ticks)
    ramp = f"linear-gradient(to right, {', '.join(colours)})"
    return (
        f'<div class="scale"><div class="ramp" style="background:{ramp}"></div><div class="ticks">{marks}</div></div>'
    )


def spread(histogram: Sequence[int]) -> str:
    """Return a histogram as an SVG of one line's height, with a text description for screen readers."""
    if not histogram:
        return NOTHING
    most, total, bins = max(histogram), sum(histogram), len(histogram)
    heights = [max(round(16 * count / most), 1) if count else 0 for count in histogram]
    bars = "".join(f"M{4 * place} 16v-{height}h3v{height}z" for place, height in enumerate(heights) if height)
    top = histogram.index(most)
    words = f"from 0 to 1; most texts, {percent(most / total)}, are between {top / bins:g} and {(top + 1) / bins:g}"
    return (
        f'<svg class="spread" viewBox="0 0 {4 * bins} 17" role="img" aria-label="{words}"><title>{words}</title>'
        f'<path d="{bars}"/></svg>'
    )

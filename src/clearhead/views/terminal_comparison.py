"""Compare two models in a terminal: which heads differ, and where a head differs."""

import numpy as np

from clearhead.extras import needs
from clearhead.views.checks import check_head
from clearhead.views.comparison import Comparison, between
from clearhead.views.maps import QUERY, QUIET, SHADES, WEIGHT, level
from clearhead.views.token_axes import layer_token_axes, shown

with needs("cli", "a comparison in a terminal"):
    from rich.cells import cell_len
    from rich.console import Group, RenderableType
    from rich.text import Text

MORE, LESS = SHADES, " .:*#"  # the first model's weight is larger, or the second's


def overview(comparison: Comparison, count: int = 8) -> RenderableType:
    """Show the heads at the same place that differ most, and the most similar pairs at any place."""
    first, second = comparison.first.model_name, comparison.second.model_name
    parts: list[RenderableType] = [
        Text.assemble((first, "bold"), " and ", (second, "bold"), f"   {len(comparison.first.tokens)} tokens"),
        Text("likeness: cosine of two heads' weights, mean over queries; 1 is the same", style=QUIET),
        Text("KL: how far the second's weights are from the first's, nats per query; 0: same", style=QUIET),
    ]
    same = comparison.same_place()
    if same:
        parts += [Text(), Text("KL of heads in the same place", style="bold"), *_places(comparison)]
        parts += [Text(), Text("Least alike in the same place", style="bold")]
        parts += [
            _line(likeness, f"layer {layer}, head {head}   KL {nats:.3f}")
            for likeness, nats, layer, head in same[:count]
        ]
    parts += [Text(), Text("Most alike at any place", style="bold")]
    for likeness, (layer, head), (other_layer, other_head) in comparison.best()[:count]:
        parts.append(_line(likeness, f"layer {layer}, head {head}  and  layer {other_layer}, head {other_head}"))
    return Group(*parts, *_notes(comparison))


def _notes(comparison: Comparison) -> list[Text]:
    """Return the notes of the two readings, each with the name of its model."""
    noted = [reading for reading in (comparison.first, comparison.second) if reading.note]
    return [Text(f"{reading.model_name}: {reading.note}") for reading in noted]


def _places(comparison: Comparison) -> list[Text]:
    """Show the divergence of each head from the one at the same place in shades: layers down, heads across."""
    nats = {(layer, head): value for _, value, layer, head in comparison.same_place()}
    top = max((value for value in nats.values() if np.isfinite(value)), default=0.0)
    if not any(nats.values()):
        return [Text("0 everywhere: each head attends as the one at its place in the other model")]
    across = max(head for _, head in nats) + 1
    lines = [Text("    " + "".join(f"{head:<3}" for head in range(across)).rstrip(), style=QUIET)]
    for layer in sorted({layer for layer, _ in nats}):
        line = Text(f"{layer:>3} ", style=QUIET)
        for head in range(across):
            value = nats.get((layer, head))
            shade = " " if value is None else MORE[level(min(value, top), top)]
            line.append("∞∞ " if value == np.inf else shade * 2 + " ", style=WEIGHT)
        line.rstrip()
        lines.append(line)
    scale = "  ".join(f"{(step / 4) ** 2 * top:.3g} [{MORE[step] * 2}]" for step in range(5))
    return [*lines, Text(f"nats  {scale}", style=QUIET)]


def one_head(comparison: Comparison, layer: int, head: int, width: int = 80) -> RenderableType:
    """Show the difference of a head of the first model and the head at the same place of the second."""
    check_head(comparison.first, layer, head)
    queries, _ = layer_token_axes(comparison.first, layer)
    names = 4 + max(cell_len(shown(token)) for token in queries.tokens)
    difference = between(comparison, layer, head, max(8, (width - names - 2) // 2))
    top = float(np.abs(difference).max(initial=0.0))
    lines: list[RenderableType] = [
        Text(
            f"Layer {layer}, head {head}: {comparison.first.model_name} minus {comparison.second.model_name}",
            style="bold",
        ),
        Text(
            f"rows: queries  columns: keys   KL {_nats(comparison, layer, head):.3f} nats per query",
            style=QUIET,
        ),
        Text(),
    ]
    size = len(queries.positions)
    dense = len(difference) == size
    for row, values in enumerate(difference):
        start = row * size // len(difference)
        name = f"{shown(queries.tokens[start]) if dense else ''} {queries.positions[start]:>3}"
        line = Text(" " * (names - cell_len(name)) + f"{name} ", style=QUERY)
        for value in values:
            shade = level(abs(float(value)), top)
            line.append((MORE if value > 0 else LESS)[shade] * 2, style=WEIGHT if value > 0 else QUERY)
        lines.append(line)
    scale = "  ".join(f"{(step / 4) ** 2 * top:.3g} {MORE[step] * 2} {LESS[step] * 2}" for step in range(1, 5))
    legend = Text(f"first more, second more:  {scale}" if top else "no difference anywhere", style=QUIET)
    return Group(*lines, Text(), legend, *_notes(comparison))


def _nats(comparison: Comparison, layer: int, head: int) -> float:
    if (layer, head) not in comparison.others:
        return float("nan")
    return float(comparison.nats[comparison.heads.index((layer, head)), comparison.others.index((layer, head))])


def _line(likeness: float, text: str) -> Text:
    return Text(f"  {likeness:.3f}  ").append(f"{'█' * round(12 * likeness):<12}", style=WEIGHT).append(f"  {text}")

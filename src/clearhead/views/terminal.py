"""Draw attention in a terminal: shades that are readable without colour, in 80 columns, and in a pipe."""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from clearhead.extras import needs
from clearhead.printing import count
from clearhead.views.checks import check_head
from clearhead.views.links import LINKS, Link, between_words, strongest
from clearhead.views.maps import KEY, MASKED, QUERY, QUIET, SHADES, WEIGHT, Array, hidden, shades, tiles
from clearhead.views.media.in_terminal import over_media
from clearhead.views.score_tables import tables
from clearhead.views.token_axes import TokenAxis, layer_token_axes, shown, token_axes

with needs("cli", "attention in a terminal"):
    from rich.cells import cell_len
    from rich.console import Console, Group, RenderableType
    from rich.text import Text

if TYPE_CHECKING:
    from clearhead.capture import Reading

LEAST_CELL = 4  # smallest width of a map, in columns; with less room the heads wrap
MOST_CELL = 12
LISTED = 200  # tokens


def show(reading: "Reading", console: Console, *, layer: int | None = None, head: int | None = None) -> None:
    """Print a reading: every head small, or one head large if a layer or a head is given (the other is then 0).

    Args:
        reading: one text through one model.
        console: the console to print on. Its width is respected, and its colours are optional.
    Raises:
        OptionError: there is no such layer or head; the message lists the existing ones.
    """
    if layer is None and head is None:
        console.print(overview(reading, console.width))
    else:
        console.print(one_head(reading, layer or 0, head or 0, console.width))


def overview(reading: "Reading", width: int = 80) -> RenderableType:
    """Show the tokens, all heads as small maps (layers down, heads across), and the strongest links between words."""
    links = between_words(reading, LINKS)
    parts: list[RenderableType] = [_title(reading), _listed(_without_patches(reading))]
    if reading.decoder is not None:
        parts += [Text.assemble(("decoder:  ", QUIET), _listed(reading.decoder.tokens))]
    parts += [Text(), *_grid(reading, width), Text()]
    if links:
        which = "from a word to a patch" if reading.pictures else "between two words"
        which = "from a word to a moment" if reading.sound is not None else which
        parts += [Text(f"Strongest links {which}, one per head", style="bold"), *_lines(reading, links), Text()]
        best = links[0]
        parts.append(Text(f"Open a head: --layer {best.layer} --head {best.head}", style=QUIET))
    parts += _note(reading)
    parts += [Text(f"Not captured: {missed.name}: {missed.reason}") for missed in reading.record.missed]
    if not len(reading.record):
        parts.append(Text("No attention was captured."))
    return Group(*parts)


def one_head(reading: "Reading", layer: int, head: int, width: int = 80) -> RenderableType:
    """Show one head: its map (rows are queries, columns keys), and its strongest links with numbers."""
    check_head(reading, layer, head)
    name, matrix = list(reading.record.items())[layer]
    queries, keys = token_axes(reading, name)
    names = 4 + max((cell_len(shown(token)) for token in queries.tokens), default=0)
    cells = max(8, (width - names - 2) // 2)
    weights = tiles(matrix, cells, cells)
    links = strongest(matrix, head, LINKS, layer=layer)
    even = next((table.values[layer][head] for table in tables(reading) if table.name == "breadth"), None)
    alone = len(reading.record) == matrix.shape[1] == 1
    title = Text(name.capitalize() if alone else f"Layer {layer}, head {head}", style="bold")
    if even is not None:
        title.append(f"   breadth {even:.2f} (0: one key, 1: all equally)", style=QUIET)
    title.append("" if alone else f"   {name}", style=QUIET)
    return Group(
        title,
        Text.assemble(
            (f"rows: queries{_whose(queries)}", QUERY),
            "  ",
            (f"columns: keys{_whose(keys)}", KEY),
            "  in the order of the text",
        ),
        Text(),
        *_map(
            (queries, keys),
            weights,
            hidden(matrix, weights)[head],
            head,
            names,
            dense=weights.shape[1:] == tuple(matrix.shape[2:]),
        ),
        Text(),
        _scale(float(weights[head].max(initial=0.0))),
        Text(),
        Text("Strongest links", style="bold"),
        *_lines(reading, links, where=False),
        *over_media(reading, layer, head, width),
        *_note(reading),
    )


def score_table(reading: "Reading", count: int = 6) -> RenderableType:
    """List the heads with the largest value of each score."""
    parts: list[RenderableType] = [_title(reading)]
    for table in tables(reading):
        ranked = table.ranked()
        most = max(abs(value) for value, _, _ in ranked) or 1.0
        parts += [Text(), Text.assemble((table.name, "bold"), f"  {table.about}")]
        for value, layer, head in ranked[:count]:
            line = Text(f"  layer {layer:>2}, head {head:>2}  {value:8.3f}  ")
            parts.append(line.append("█" * round(24 * value / most), style=WEIGHT))
    return Group(*parts, *_note(reading))


def _note(reading: "Reading") -> list[Text]:
    """Return the reading's note, if it has one, after an empty line."""
    return [Text(), Text(reading.note)] if reading.note else []


def _listed(tokens: Sequence[str]) -> Text:
    """Return the first tokens in a row, and how many more there are."""
    line = Text("  ").join(Text(shown(token, 20), style="bold") for token in tokens[:LISTED])
    if len(tokens) > LISTED:
        line.append(f"  … and {len(tokens) - LISTED} more", style=QUIET)
    return line


def _without_patches(reading: "Reading") -> list[str]:
    """Return the tokens, with one name for all patches of a picture, or for all frames of a sound."""
    if reading.sound is not None:
        return [f"[sound,\u00a0{reading.sound.duration:.2f}\u00a0s]"]
    names, start = [], 0
    for picture in reading.pictures:
        names += [*reading.tokens[start : picture.first], f"[{picture.rows}\u00a0×\u00a0{picture.cols}\u00a0patches]"]
        start = picture.stop
    return names + list(reading.tokens[start:])


def _title(reading: "Reading") -> Text:
    matrices = list(reading.record.values())
    heads = max((matrix.shape[1] for matrix in matrices), default=0)
    return Text.assemble(
        (reading.model_name, "bold"),
        (f"   {count(len(reading.tokens), 'token')}{_decoded(reading)} · {count(len(matrices), 'layer')} · ", QUIET),
        (count(heads, "head"), QUIET),
    )


def _decoded(reading: "Reading") -> str:
    return "" if reading.decoder is None else f" · {len(reading.decoder.tokens)} decoder tokens"


def _grid(reading: "Reading", width: int) -> list[Text]:
    """Show small maps side by side on one scale. Heads wrap if the terminal is too narrow for a layer."""
    matrices = list(reading.record.values())
    heads = max((matrix.shape[1] for matrix in matrices), default=0)
    if not heads:
        return []
    room = max(width - 4, LEAST_CELL + 1)
    across = max(1, min(heads, room // (LEAST_CELL + 1)))
    cell = min(MOST_CELL, room // across - 1)
    small = [tiles(matrix, ceil(cell / 2), cell) for matrix in matrices]
    top = max(float(layer.max(initial=0.0)) for layer in small)
    lines = [Text("layers down, heads across; in each: rows queries, columns keys", style=QUIET)]
    for start in range(0, heads, across):
        end = min(start + across, heads)
        lines.append(Text("    " + "".join(f"{name:<{cell + 1}}" for name in range(start, end)), style=QUIET))
        for number, layer in enumerate(small):
            lines += _bank(number, layer[start:end], top, cell)
    return [*map(_rstrip, lines), Text(), _scale(top), Text("a shade is the mean weight of a tile", style=QUIET)]


def _bank(number: int, layer: Array, top: float, cell: int) -> list[Text]:
    """Show a layer's small maps in a row."""
    lines = []
    for row in range(layer.shape[1]):
        line = Text(f"{number:>3} " if row == 0 else "    ", style=QUIET)
        for weights in layer[:, row]:
            line.append(_stretch(shades(weights, top), cell) + " ", style=WEIGHT)
        lines.append(line)
    return lines


def _whose(line: TokenAxis) -> str:
    """Return which sequence an axis runs along, unless it is simply the text."""
    return {"input": "", "decoder": " (decoder)", "other": " (not tokens)"}[line.sequence]


def _map(
    axes: tuple[TokenAxis, TokenAxis], weights: Array, cells: NDArray[np.bool_], head: int, names: int, *, dense: bool
) -> list[Text]:
    """Draw the map of one head, with its masked `cells` (r, c) crossed out.

    A cell has two characters, so that a square looks square. The token's name, if there is one, precedes each row.
    """
    top = float(weights[head].max(initial=0.0))
    queries, keys = axes
    columns = [keys.positions[cell * len(keys.positions) // weights.shape[2]] for cell in range(weights.shape[2])]
    rows = [Text(" " * (names + 1) + _ruler(columns), style=KEY)]
    for row in range(weights.shape[1]):
        start = row * len(queries.positions) // weights.shape[1]
        place = queries.positions[start]
        name = f"{shown(queries.tokens[start])} {place:>3}" if dense else str(place)
        line = Text(" " * (names - cell_len(name)) + f"{name} ", style=QUERY)
        for cell, blank in zip(shades(weights[head, row], top), cells[row], strict=True):
            line.append(MASKED * 2 if blank else cell * 2, style=QUIET if blank else WEIGHT)
        rows.append(_rstrip(line))
    if not dense:
        rows.append(
            Text(
                f"each cell is a mean over {len(queries.positions) / weights.shape[1]:.1f} queries and "
                f"{len(keys.positions) / weights.shape[2]:.1f} keys",
                style=QUIET,
            )
        )
    return rows


def _ruler(starts: list[int]) -> str:
    """Return the positions of the columns, two characters each: all that do not collide, or every fifth cell."""
    if len(starts) <= 20 and all(start < 100 for start in starts):
        return "".join("  " if start >= 10 and start % 2 else f"{start:<2}" for start in starts).rstrip()
    line = ""
    for cell, start in enumerate(starts):
        if cell % 5 == 0:
            line = f"{line:<{2 * cell}}{start}"
    return line


def _scale(top: float) -> Text:
    """Return the scale: the weight of each shade."""
    line = Text("weight  ", style=QUIET)
    for step, shade in enumerate(SHADES):
        line.append(f"{(step / 4) ** 2 * top:.3g} ", style=QUIET)
        line.append(f"[{shade * 2}]", style=WEIGHT)
        line.append("  ")
    line.append(f"{MASKED * 2} masked", style=QUIET)
    return line


def _lines(reading: "Reading", links: list[Link], *, where: bool = True) -> list[Text]:
    ends = [_ends(reading, link) for link in links]
    names = max((cell_len(shown(query)) for (query, _), _ in ends), default=0)
    others = max((cell_len(shown(key)) for _, (key, _) in ends), default=0)
    rows = []
    for link, ((query, row), (key, column)) in zip(links, ends, strict=True):
        line = Text(f"  {link.weight:.3f}  ", style="bold")
        line.append(f"{'█' * max(1, round(12 * link.weight)):<12}  ", style=WEIGHT)
        line.append(" " * (names - cell_len(shown(query))) + shown(query), style=QUERY)
        line.append(" → ")
        line.append(shown(key) + " " * (others - cell_len(shown(key))), style=KEY)
        line.append(f"  {row} → {column}", style=QUIET)
        line.append(f", layer {link.layer}, head {link.head}" if where else "", style=QUIET)
        rows.append(line)
    return rows


def _ends(reading: "Reading", link: Link) -> tuple[tuple[str, int], tuple[str, int]]:
    """Return the name and the position of a link's query and key."""
    queries, keys = layer_token_axes(reading, link.layer)
    return (queries.tokens[link.query], queries.positions[link.query]), (
        keys.tokens[link.key],
        keys.positions[link.key],
    )


def _stretch(cells: str, width: int) -> str:
    """Repeat characters so that a short row fills its place: "ab" in 4 is "aabb"."""
    return "".join(cells[i * len(cells) // width] for i in range(width)) if cells else " " * width


def _rstrip(line: Text) -> Text:
    line.rstrip()
    return line

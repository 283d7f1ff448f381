"""Write what a command produces: files, figures, lists of losses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from clearhead import files, printing

Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]


def write(path: Path, content: str) -> None:
    """Write a text file and report it on standard error, apart from the data on standard output."""
    try:
        path.write_text(content, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise files.unwritable(path, error) from error
    printing.report(f"wrote {path} ({len(content.encode()) / 1e6:.1f} MB)")


def draw(path: Path, reading: Any, layer: int | None, head: int | None) -> None:
    """Write a figure of all heads, or of one head if a layer or a head is given."""
    plot = plotting()
    if layer is None and head is None:
        figure = plot.grid(reading)
    else:
        from clearhead.views.media.figure import head_figure

        figure = head_figure(reading, layer or 0, head or 0)
    plot.save(figure, path)
    printing.report(f"wrote {path}")


def draw_comparison(path: Path, comparison: Any, place: tuple[int, int] | None) -> None:
    """Write a figure of how much all heads of two models differ, or of where the head at (layer, head) differs."""
    from clearhead.views.comparison import between
    from clearhead.views.token_axes import layer_token_axes

    plot = plotting()
    models = f"{comparison.first.model_name} minus {comparison.second.model_name}"
    if place is None:
        figure = plot.divergence(comparison)
    else:
        values = between(comparison, *place, 256)
        queries, keys = layer_token_axes(comparison.first, place[0])
        title = f"layer {place[0]}, head {place[1]}: {models}"
        figure = plot.difference(values, queries.tokens, title, keys=keys.tokens)
    plot.save(figure, path)
    printing.report(f"wrote {path}")


def tell_page(address: str | None) -> None:
    """Print, on standard error, the studio's address for the same view, if the text fits into an address."""
    if address is not None:
        printing.report(f"the same as a live page: start `clearhead studio` and open {address}")


def plotting() -> Any:
    """Return the module that draws figures; importing it loads matplotlib."""
    from clearhead.views import plot

    return plot


def listed(losses: Iterable[object]) -> str:
    """Return the list of what is not carried over, one entry per line."""
    return "\n".join(["not carried over:", *("  " + str(loss).replace("\n", "\n    ") for loss in losses)])

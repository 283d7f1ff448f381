"""Write what a command produces: files, figures, lists of losses."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from clearhead import files, printing
from clearhead.sizes import size_text

Json = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]


def write(path: Path, content: str) -> None:
    """Write a text file and report it on standard error, apart from the data on standard output."""
    with files.whole_file(path) as draft:
        draft.write_text(content, encoding="utf-8")
    printing.report(f"wrote {path} ({size_text(len(content.encode()))})")


def draw(path: Path, reading: Any, place: tuple[int, int] | None) -> None:
    """Write a figure of all heads, or of the head at (layer, head)."""
    from clearhead.views.media.figure import reading_figure

    _save(path, reading_figure(reading, place))


def draw_comparison(path: Path, comparison: Any, place: tuple[int, int] | None) -> None:
    """Write a figure of how much all heads of two models differ, or of where the head at (layer, head) differs."""
    from clearhead.views import plot

    _save(path, plot.compared(comparison, place))


def _save(path: Path, figure: Any) -> None:
    from clearhead.views import plot

    plot.save(figure, path)
    printing.report(f"wrote {path}")


def tell_page(address: str | None) -> None:
    """Print, on standard error, the studio's address for the same view, if the text fits into an address."""
    if address is not None:
        printing.report(f"the same as a live page: start `clearhead studio` and open {address}")


def listed(losses: Iterable[object]) -> str:
    """Return the list of what is not carried over, one entry per line."""
    return "\n".join(["not carried over:", *("  " + str(loss).replace("\n", "\n    ") for loss in losses)])

"""`clearhead compare`: compare the heads of two models over one text."""

from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing
from clearhead.cli import output, reading
from clearhead.cli.given import read_given
from clearhead.cli.output import Json
from clearhead.cli.progress import progress
from clearhead.cli.reading import Target, Trust


def compare(
    first: Annotated[str, typer.Argument(help="A model folder, or a name in the local Hugging Face cache.")],
    second: Annotated[str, typer.Argument(help="The model to compare it with. Either may be -, the demo model.")],
    text: Annotated[
        str | None, typer.Argument(help="The text to read, - for standard input, or the path of a picture.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text or the picture from this file.")] = None,
    target: Target = None,
    layer: Annotated[int | None, typer.Option(help="Show where a head of this layer differs; counted from 0.")] = None,
    head: Annotated[int | None, typer.Option(help="Show where this head differs; counted from 0.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one HTML page: the difference of the two models, for any head.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Write a figure: how much all heads differ, or where one head differs.")
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Compare the heads of two models over one text: which are alike, which differ, and where."""
    given = read_given(text, file, target=target)
    from clearhead.capture.models.folders import DEMO_NAME
    from clearhead.console import console
    from clearhead.views import comparison, terminal_comparison
    from clearhead.views.page.address import lens_address
    from clearhead.views.page.html import page

    names = [None if name == "-" else name for name in (first, second)]
    place = (layer or 0, head or 0) if layer is not None or head is not None else None
    is_drawn = not (as_json or html or png)  # in the terminal, with the notes
    ours, theirs = (
        reading.look(given, name, trust=trust_remote_code, label=name or "", shows_note=is_drawn) for name in names
    )
    result = comparison.compare(ours, theirs)
    if html is not None:
        with progress("drawing") as tell:
            content = page(
                ours, text=given.text, model=names[0], target=target, file=given.file, second=theirs, layer=layer,
                head=head, progress=tell,
            )  # fmt: skip
        output.write(html, content)
    if png is not None:
        output.draw_comparison(png, result, place)
    if as_json:
        printing.show_json(comparison.listing(result))
    elif is_drawn:
        screen = console()
        if place is None:
            screen.print(terminal_comparison.overview(result))
        else:
            screen.print(terminal_comparison.one_head(result, *place, screen.width))
    if not as_json and given.text is not None and given.file is None:
        output.tell_page(
            lens_address(given.text, names[0], second=names[1] or DEMO_NAME, target=target, layer=layer, head=head)
        )

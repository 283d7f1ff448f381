"""`clearhead see`: show what the heads of a model attend to in a text or a picture."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from clearhead import printing, sizes
from clearhead.cli import output, reading
from clearhead.cli.given import read_given
from clearhead.cli.output import Json
from clearhead.cli.progress import progress
from clearhead.cli.reading import Model, Target, Trust


def see(
    text: Annotated[
        str | None, typer.Argument(help="The text to read, - for standard input, or the path of a picture.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Read the text or the picture from this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="The picture that the text is about, or that a model of pictures sees.")
    ] = None,
    sound: Annotated[Path | None, typer.Option(help="The sound, a WAV file, in which the text is said.")] = None,
    target: Target = None,
    model: Model = None,
    layer: Annotated[
        str | None, typer.Option(help="Show a head of this layer: a number, counted from 0, or the layer's name.")
    ] = None,
    head: Annotated[int | None, typer.Option(help="Show this head, counted from 0.")] = None,
    rollout: Annotated[bool, typer.Option("--rollout", help="Combine all layers into one map by rollout.")] = False,
    units: Annotated[
        Literal["tokens", "words", "lines"], typer.Option(help="Show weights between tokens, words or lines.")
    ] = "tokens",
    scores: Annotated[bool, typer.Option("--scores", help="List the heads that rank highest by each score.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained HTML page to this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Write a figure to this file: .png, .svg or .pdf.")] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(help="Stop recording layers once their queries and keys take this much memory, as in 500MB."),
    ] = None,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Show what every head of a model attends to in a text, a picture, both together, or a sound and its words.

    Without --layer and --head, all heads are shown, small. With only one of the two, the other is 0.
    """
    given = read_given(text, file, picture=picture, sound=sound, target=target)
    from clearhead.console import console
    from clearhead.views import terminal
    from clearhead.views.checks import check_head
    from clearhead.views.grouping import grouped
    from clearhead.views.listing import listing
    from clearhead.views.page.address import lens_address
    from clearhead.views.page.html import page
    from clearhead.views.rollout import rolled

    max_bytes = sizes.size(max_memory, "--max-memory")
    is_drawn = not as_json and (scores or not (html or png))  # in the terminal, with the note
    result = reading.look(given, model, trust=trust_remote_code, max_bytes=max_bytes, shows_note=is_drawn)
    if rollout:
        result, layer, head = rolled(result), layer or "0", head or 0
    result = grouped(result, units)
    number = reading.layer_number(result, layer)
    place = (number or 0, head or 0) if number is not None or head is not None else None
    if place is not None:
        check_head(result, *place)
    if html is not None:
        with progress("drawing") as tell:
            content = page(
                result, text=given.text, model=model, target=target, file=given.file, layer=number, head=head,
                progress=tell,
            )  # fmt: skip
        output.write(html, content)
    if png is not None:
        output.draw(png, result, place)
    if as_json:
        printing.show_json(listing(result, layer=number, head=head))
    elif scores:
        console().print(terminal.score_table(result))
    elif is_drawn:
        terminal.show(result, console(), layer=number, head=head)
    if not as_json and given.text is not None and given.file is None:
        address = lens_address(given.text, model, target=target, layer=number, head=head, rollout=rollout, units=units)
        output.tell_page(address)

"""`clearhead survey report FOLDER`: write a finished survey as one HTML page."""

from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing
from clearhead.cli import output
from clearhead.cli.output import Json
from clearhead.errors import OptionError


def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a survey that is done.")],
    html: Annotated[Path | None, typer.Option(help="Write the page here. Default: FOLDER/report.html.")] = None,
    studio: Annotated[
        str, typer.Option(help="The address of the studio in which examples open.")
    ] = "http://127.0.0.1:8765",
    as_json: Json = False,
) -> None:
    """Write one HTML page about a survey: which heads do what, over what share of the texts, with examples."""
    from clearhead.survey import check_installed
    from clearhead.survey.report.listing import listing
    from clearhead.survey.report.page import page

    check_installed()
    if not studio.startswith(("http://", "https://")):
        raise OptionError(f"--studio is {studio!r}, expected an address that begins with http:// or https://.")
    data = listing(folder)
    if as_json:
        printing.show_json(data)
    if html is not None or not as_json:
        output.write(html or folder / "report.html", page(data, studio=studio))

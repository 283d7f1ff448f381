"""`clearhead export`: write a pack in another program's format."""

from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing
from clearhead.cli.output import listed


def export_pack(
    pack: Annotated[Path, typer.Argument(help="The pack's folder, or the name of a shipped pack.")],
    to: Annotated[str, typer.Option(help="anki, moodle, gift, qti3, qti2 or csv.")],
    out: Annotated[Path | None, typer.Option(help="The file to write. Default: <pack>-<format> here.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if something is not carried over.")] = False,
) -> None:
    """Prove a pack and write it in another program's format. Exits with 1 if something is not carried over."""
    from clearhead.course import exchange

    report = exchange.Report()
    place, count = exchange.export_pack(pack, to, out, strict=strict, report=report)
    printing.show(f"wrote {count} items to {place}")
    if report.losses:
        printing.report(listed(report.losses))
        raise typer.Exit(1)

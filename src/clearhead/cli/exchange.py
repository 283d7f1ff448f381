"""`clearhead export` and `clearhead import`: packs in other programs' formats, and their questions as drafts."""

from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing
from clearhead.cli.exit_status import WRONG
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
    printing.show(f"wrote {printing.count(count, 'item')} to {place}")
    if report.losses:
        printing.report(listed(report.losses))
        raise typer.Exit(WRONG)


def import_questions(
    file: Annotated[Path, typer.Argument(help="Anki's .apkg or .txt, GIFT, Moodle .xml, mdbook-quiz .toml, our .csv.")],
    into: Annotated[Path, typer.Option(help="The pack's folder.")],
    topic: Annotated[str | None, typer.Option(help="A topic of the pack. Default: the first.")] = None,
    encoding: Annotated[
        str | None, typer.Option(help="The encoding of a text file, as windows-1252. Default: UTF-8, or what it says.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Write nothing if something is not carried over.")] = False,
) -> None:
    """Read another program's questions as drafts. Exits with 1 if something is not carried over."""
    from clearhead.course import exchange

    report = exchange.Report()
    places = exchange.import_drafts(file, into, topic, strict=strict, report=report, encoding=encoding)
    drafts = printing.count(len(places), "draft")
    printing.show(f"{drafts} in {into / 'drafts'}; write the proofs, then move the files to {into / 'items'}")
    if report.losses:
        printing.report(listed(report.losses))
        raise typer.Exit(WRONG)

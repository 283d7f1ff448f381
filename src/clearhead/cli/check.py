"""`clearhead check`: prove course packs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clearhead import printing
from clearhead.cli.exit_status import WRONG
from clearhead.cli.output import Json
from clearhead.errors import OptionError


def check(
    packs: Annotated[list[Path] | None, typer.Argument(help="Pack folders. Default: the shipped packs.")] = None,
    item: Annotated[str | None, typer.Option(help="Prove only this item.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="How many items to prove at a time.")] = 2,
    fresh: Annotated[bool, typer.Option("--fresh", help="Prove unchanged items again.")] = False,
    seeds: Annotated[int, typer.Option(min=2, help="At how many seeds an item with variants must hold.")] = 12,
    watch: Annotated[bool, typer.Option("--watch", help="Check again after every change, until Ctrl-C.")] = False,
    receipts: Annotated[Path, typer.Option(help="The folder for receipts and proofs.")] = Path(".receipts"),
    as_json: Json = False,
) -> None:
    """Prove course packs: run the programs of every item in the sandbox and report whether its answer holds."""
    from clearhead.course import check as checking

    if watch and as_json:
        raise OptionError("--watch and --json were given, but --json prints one result. Give one of them.")
    chosen = checking.with_item(packs or [], item)
    ask_consent()

    def run() -> int:
        return checking.check(
            chosen, item=item, jobs=jobs, fresh=fresh, seeds=seeds, receipts=receipts, show=printing.show_entry
        )

    if watch:
        checking.watch(chosen, run, printing.show_entry)
    elif as_json:
        checked = checking.check_all(chosen, item=item, jobs=jobs, fresh=fresh, seeds=seeds, receipts=receipts)
        printing.show_json(checking.as_data(checked))
        if any(pack.wrong for pack in checked):
            raise typer.Exit(WRONG)
    elif run():
        raise typer.Exit(WRONG)


def ask_consent() -> None:
    """Ask for consent to run programs unconfined, if this machine has no sandbox and a person is at the terminal."""
    from clearhead import sandbox

    if sandbox.backend() is None and sys.stdin.isatty():
        printing.report(f"This machine cannot confine programs ({sandbox.explain()}).")
        if typer.confirm("Run this pack's programs with all the rights you have?", default=False, err=True):
            sandbox.consent()

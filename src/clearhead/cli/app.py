"""The `clearhead` command: every command of this room under one name.

A command parses its arguments, calls one function of a room, and prints. It imports that room when it runs, so that
`clearhead --help` starts without torch.
"""

import sys
from typing import Annotated

import typer

from clearhead import __version__, printing
from clearhead.cli import exit_status, models, new, studio, survey
from clearhead.cli.check import check
from clearhead.cli.compare import compare
from clearhead.cli.doctor import doctor
from clearhead.cli.exchange import export_pack, import_questions
from clearhead.cli.see import see
from clearhead.cli.tune import tune

app = typer.Typer(
    cls=exit_status.CommandGroup,
    help="Multi-head attention you can run, see and learn.",
    epilog=exit_status.STATUSES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the `clearhead` command. Help in boxes, padded with spaces, is for terminals only."""
    if sys.stdout is None or not sys.stdout.isatty():
        app.rich_markup_mode = None
    exit_status.run(app)


def version(wanted: bool) -> None:
    if wanted:
        printing.show(f"clearhead {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from clearhead import scratch

    scratch.sweep()


app.command()(see)
app.command()(compare)
app.add_typer(survey.command, name="survey")
app.add_typer(studio.command, name="studio")
app.add_typer(models.command, name="models")
app.command()(check)
app.add_typer(new.command, name="new")
app.command("export")(export_pack)
app.command("import")(import_questions)
app.command()(doctor)
app.command()(tune)

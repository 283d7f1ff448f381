"""`clearhead survey MODEL DATA` and `clearhead survey report FOLDER`, a file each."""

from typing import Any

import typer
from typer.core import TyperGroup

from clearhead.cli.survey.report import report
from clearhead.cli.survey.run import run


class SurveyGroup(TyperGroup):
    """The commands of `clearhead survey`. Any first argument but `report` is taken as the model to survey."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


command = typer.Typer(
    cls=SurveyGroup,
    help="Survey what the heads of a model do over a whole corpus, and report it.",
    no_args_is_help=True,
)

command.command("run")(run)
command.command("report")(report)

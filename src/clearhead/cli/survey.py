"""`clearhead survey MODEL DATA`: the heads of a model over a corpus; `clearhead survey report FOLDER`: a page of it."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from clearhead import printing
from clearhead.cli import output, reading
from clearhead.cli.output import Json
from clearhead.cli.reading import Trust

ASKS = "scores,entropy,received,sinks"  # as survey.asks.DEFAULT, which importing would bring torch


class SurveyGroup(TyperGroup):
    """The commands of `clearhead survey`: what is not `report` is the model of a survey."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = ["run", *args]
        return super().parse_args(ctx, args)


command = typer.Typer(
    cls=SurveyGroup,
    help="Survey what the heads of a model do over a whole corpus, and report it.",
    no_args_is_help=True,
)


@command.command("run")
def run(
    model: Annotated[
        str, typer.Argument(help="A model folder, or a name in the local Hugging Face cache; - is the demo model.")
    ],
    data: Annotated[
        Path,
        typer.Argument(
            help="The texts: Parquet, JSON lines, Arrow or plain text, a folder of such files, or a dataset on disk."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write into. The same command goes on where it stopped.")],
    ask: Annotated[
        str, typer.Option(help="What to ask, separated by commas: scores, entropy, received, sinks, ablation.")
    ] = ASKS,
    column: Annotated[str, typer.Option(help="The column, or the key of JSON lines, that holds the text.")] = "text",
    texts: Annotated[
        Literal["line", "paragraph"],
        typer.Option(help="What a text is in a plain file: a line, or a paragraph, which ends at a blank line."),
    ] = "line",
    split: Annotated[str | None, typer.Option(help="Which split of a dataset with several.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Survey this many texts, the first ones.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Over how many texts to ablate, evenly over all.")] = 64,
    max_length: Annotated[
        int | None, typer.Option(min=1, help="Cut texts to this many tokens. Default: what the model takes.")
    ] = None,
    part: Annotated[int, typer.Option(min=1, help="Texts that are computed and written together.")] = 512,
    batch: Annotated[int, typer.Option(min=1, help="Tokens in a forward pass, padding included.")] = 2048,
    workers: Annotated[int | None, typer.Option(min=1, help="How many compute. Default: one for each core.")] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of one worker. Results are the same only for the same number.")
    ] = 1,
    ray: Annotated[
        bool | None, typer.Option("--ray/--no-ray", help="On Ray Data. Default: if it is installed.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="The address of a Ray cluster. Default: Ray on this machine.")
    ] = None,
    keep_texts: Annotated[
        bool, typer.Option("--keep-texts", help="Write the numbers of every text too, in FOLDER/texts.")
    ] = False,
    trust_remote_code: Trust = False,
    as_json: Json = False,
) -> None:
    """Survey the heads of a model over a corpus: what each does, over what share of the texts.

    The folder gets Parquet partitioned by layer, FOLDER/heads. What is written is never computed again: after Ctrl-C or
    a kill the same command goes on. `clearhead survey report FOLDER` makes a page of it.
    """
    from clearhead.survey import Settings, StoppedSurveyError, check_installed, checked_asks, open_corpus, survey
    from clearhead.survey.report.listing import listing

    check_installed(ray)
    settings = Settings(
        asks=checked_asks(ask),
        sample=sample,
        max_length=max_length,
        limit=limit,
        part_texts=part,
        batch_tokens=batch,
        threads=threads,
        keep_texts=keep_texts,
    )
    with Lines() as lines:
        corpus = open_corpus(
            data,
            column=column,
            texts=texts,
            split=split,
            progress=lambda done, all: lines("reading the texts", done, all),
        )
        try:
            result = survey(
                None if model == "-" else model,
                corpus,
                out,
                settings,
                trust_remote_code=trust_remote_code,
                workers=workers,
                ray=ray,
                address=address,
                progress=lines,
            )
        except StoppedSurveyError as stopped:
            printing.report(f"clearhead: {stopped}")
            raise
    if as_json:
        printing.show_json(listing(out))
        return
    printing.show(summary(result.counts))
    for gap in result.missed:
        printing.report(f"clearhead: {gap['layer']} was left out of {gap['texts']:,} texts: {gap['reason']}")
    printing.report(f"wrote {out}; `clearhead survey report {out}` makes a page of it")


@command.command("report")
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
    data = listing(folder)
    if as_json:
        printing.show_json(data)
    if html is not None or not as_json:
        output.write(html or folder / "report.html", page(data, studio=studio))


def summary(counts: dict[str, int]) -> str:
    """Return in a sentence what was surveyed."""
    words = [f"{counts['texts']:,} texts, {counts['tokens']:,} tokens"]
    words += [f"{counts['cut']:,} cut to the most tokens"] if counts["cut"] else []
    words += [f"{counts['empty']:,} without text left out"] if counts["empty"] else []
    words += [f"{counts['ablated']:,} ablated"] if counts["ablated"] else []
    return "; ".join(words)


class Lines:
    """Progress lines, one for each thing that is done, one after the other."""

    def __init__(self) -> None:
        self._doing = ""
        self._stack = ExitStack()
        self._tell: reading.Tell | None = None

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_error: object) -> None:
        self._stack.close()

    def __call__(self, doing: str, done: int, total: int) -> None:
        if doing != self._doing:
            self._stack.close()
            self._doing, self._tell = doing, self._stack.enter_context(reading.progress(doing))
        if total and self._tell is not None:
            self._tell(done, total)

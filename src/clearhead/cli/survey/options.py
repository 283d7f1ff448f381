"""The arguments and options of `clearhead survey run`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ASKS = "scores,entropy,received,sinks"  # as survey.asks.DEFAULT, which importing would bring torch

Model = Annotated[
    str, typer.Argument(help="A model folder, or a name in the local Hugging Face cache; - is the demo model.")
]
Data = Annotated[
    Path,
    typer.Argument(
        help="The texts: Parquet, JSON lines, Arrow or plain text, a folder of such files, or a dataset on disk."
    ),
]
Out = Annotated[Path, typer.Option(help="The folder to write into. The same command resumes where it stopped.")]
Ask = Annotated[
    str,
    typer.Option(
        help="What to ask, separated by commas: scores, entropy, received, sinks, ablation. Default: all but ablation.",
        show_default=False,  # the column is too narrow for it
    ),
]
Column = Annotated[str, typer.Option(help="The column, or the key of JSON lines, that holds the text.")]
Texts = Annotated[
    Literal["line", "paragraph"],
    typer.Option(help="What a text is in a plain file: a line, or a paragraph, which ends at a blank line."),
]
Split = Annotated[str | None, typer.Option(help="Which split of a dataset with several.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Survey this many texts, the first ones.")]
Sample = Annotated[int, typer.Option(min=1, help="Number of texts in which heads are ablated, evenly over all.")]
MaxLength = Annotated[
    int | None, typer.Option(min=1, help="Cut texts to this many tokens. Default: what the model takes.")
]
PartTexts = Annotated[int, typer.Option(min=1, help="Texts that are computed and written together.")]
BatchTokens = Annotated[int, typer.Option(min=1, help="Tokens in a forward pass, padding included.")]
Workers = Annotated[int | None, typer.Option(min=1, help="Number of workers. Default: one for each core.")]
Threads = Annotated[
    int, typer.Option(min=1, help="Threads of one worker. Results are the same only for the same number.")
]
OnRay = Annotated[bool | None, typer.Option("--ray/--no-ray", help="On Ray Data. Default: if it is installed.")]
Address = Annotated[
    str | None, typer.Option(help="The address of a Ray cluster. Default: $RAY_ADDRESS, or Ray on this machine.")
]
KeepTexts = Annotated[bool, typer.Option("--keep-texts", help="Write the numbers of every text too, in FOLDER/texts.")]

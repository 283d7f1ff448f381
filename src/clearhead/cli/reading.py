"""How `clearhead see` and `clearhead compare` read a text or a picture through a model.

Progress goes to standard error if that is a terminal, so that it never mixes with results.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clearhead.errors import ModelError, OptionError

if TYPE_CHECKING:
    from clearhead.capture import Reading

Model = Annotated[
    str | None,
    typer.Option(help="A model folder, or a name in the local Hugging Face cache. Default: the demo model, MiniLM."),
]
Target = Annotated[
    str | None, typer.Option(help="The text that an encoder-decoder's decoder reads, such as a translation.")
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that a model brings. Read it first.")
]
NAMES: Final = 6  # layers named in a message

Tell = Callable[[int, int], None]


def look(
    words: str | Path,
    model: str | None,
    *,
    target: str | None = None,
    trust: bool = False,
    max_bytes: int | None = None,
    label: str = "",
) -> "Reading":
    """Read a text or a picture (a path) through a model and return the reading.

    Args:
        words: the text; for a model of pictures, the path of a picture.
        model: a folder or a cached name; None for the demo model.
        target: the text given to the decoder of an encoder-decoder.
        trust: run the Python code that the model brings.
        max_bytes: stop recording layers before their queries and keys take more.
        label: the model's name in the progress line.
    Raises:
        ModelError: the model, the text or the picture cannot be used, or no attention was captured.
    """
    from clearhead import capture
    from clearhead.capture.models.progress import layers_run
    from clearhead.views.checks import check_not_empty

    with progress(f"loading {label or 'the model'}"):
        loaded = capture.load(model, trust_remote_code=trust)
    with progress(f"reading through {loaded.name}") as tell, layers_run(loaded.model, tell):
        if target is not None and not loaded.has_decoder:
            raise ModelError(f"{loaded.name} is not an encoder-decoder of text, so it takes no --target. Leave it out.")
        if loaded.reads == "pictures":
            reading = capture.read_picture(loaded, words)
        elif isinstance(words, Path):
            raise ModelError(f"{loaded.name} reads text, and {words} is a picture. Give --model a model of pictures.")
        else:
            reading = capture.read(loaded, words, target=target, max_bytes=max_bytes)
    check_not_empty(reading)
    return reading


def layer_number(reading: "Reading", given: str | None) -> int | None:
    """Return the number of a layer given by its number or its module's name.

    Raises:
        OptionError: there is no such layer; the message lists the layers.
    """
    names = list(reading.record)
    if given is None:
        return None
    if given in names:
        return names.index(given)
    try:
        return int(given)
    except ValueError:
        shown = ", ".join(names[:NAMES]) + (f", … ({len(names)} in all)" if len(names) > NAMES else "")
        raise OptionError(
            f"{reading.model_name} has no layer {given!r}. "
            f"Give a number from 0 to {len(names) - 1}, or one of: {shown}."
        ) from None


@contextmanager
def progress(task: str) -> Iterator[Tell]:
    """Show a progress line on standard error while the block runs, if that is a terminal; remove it afterwards."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from clearhead.console import console

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        line = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(line, completed=done, total=total)


def _silent(_done: int, _total: int) -> None:
    """Show nothing: standard error is not a terminal."""

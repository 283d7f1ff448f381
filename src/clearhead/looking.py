"""What `clearhead see` and `clearhead compare` do before they print: a model, a text or a picture, and one head of it.

Long work shows how far it is on standard error, where that is a terminal; what is printed is never mixed with it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clearhead.errors import ModelError, OptionError

if TYPE_CHECKING:
    from clearhead.capture import Reading

NAMES: Final = 6  # layers named in a message

Tell = Callable[[int, int], None]


def look(
    words: str | Path,
    model: str | None,
    *,
    target: str | None = None,
    trust: bool = False,
    max_bytes: int | None = None,
    what: str = "",
) -> "Reading":
    """One text, or one picture (a path), through one model.

    Args:
        words: the text; for a model of pictures the path of one.
        model: a folder or a cached name; None for the demo model.
        target: what the decoder of an encoder-decoder is given.
        trust: run the code that the model brings.
        max_bytes: stop recording before queries and keys take more.
        what: whose progress it is, where there is more than one.
    Raises:
        ModelError: the model, the text or the picture cannot be used, or no attention was captured.
    """
    from clearhead import capture
    from clearhead.capture.models.progress import layers_run
    from clearhead.views.checks import check_not_empty

    with progress(f"loading {what or 'the model'}"):
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


def layer_number(reading: "Reading", said: str | None) -> int | None:
    """The layer of a number, or of a module's name.

    Raises:
        OptionError: no such layer; says which there are.
    """
    names = list(reading.record)
    if said is None:
        return None
    if said in names:
        return names.index(said)
    try:
        return int(said)
    except ValueError:
        shown = ", ".join(names[:NAMES]) + (f", … ({len(names)} in all)" if len(names) > NAMES else "")
        raise OptionError(
            f"{reading.model_name} has no layer {said!r}. Give a number from 0 to {len(names) - 1}, or one of: {shown}."
        ) from None


@contextmanager
def progress(what: str) -> Iterator[Tell]:
    """A line on standard error while something runs, gone afterwards; nothing where no person looks."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from clearhead.printing import console

    columns: tuple[Any, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _silent(_done: int, _total: int) -> None:
    """Nobody looks."""

"""Find the text or picture for `clearhead see` and `clearhead compare`, and run it through a model.

Progress is printed on standard error if that is a terminal, so it never mixes with results.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from clearhead import files, printing
from clearhead.errors import ModelError, OptionError

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Reading

Model = Annotated[
    str | None,
    typer.Option(help="A model folder, or a name in the local Hugging Face cache. Default: the demo model, MiniLM."),
]
Target = Annotated[
    str | None, typer.Option(help="The text that an encoder-decoder's decoder reads, such as a translation.")
]
Trust = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the Python code that comes with a model. Read it first.")
]
TEXT_ENCODING = "utf-8"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".ppm")
NAMES: Final = 6  # layers named in a message

Tell = Callable[[int, int], None]


def read_words(text: str | None, file: Path | None) -> str | Path:
    """Return the text to read, or the path of a picture.

    A picture is recognised by its suffix; without --file its path must have no spaces, unless it is absolute.
    """
    path = file or Path(text or "")
    there, is_file = os.path.exists(path), os.path.isfile(path)  # noqa: PTH110, PTH113 — no text is too long for these
    if path.suffix.lower() not in PICTURES:
        if file is None and is_file and text:
            printing.report(f"clearhead: {text} is read as text. To read the file of that name, give --file {text}")
        return read_text(text, file)
    if text is not None and file is not None:
        raise OptionError("both a text and --file were given. Give one of them.")
    if file is None and not there and not _is_path(text or ""):
        return read_text(text, file)
    if not is_file:
        why = "is not a file" if there else "does not exist"
        raise ModelError(f"{path} {why}. Give the path of a picture file; a text to read may come from - too.")
    return path


def _is_path(text: str) -> bool:
    """Whether the text looks like a path. The file need not exist."""
    return text.startswith(("/", "./", "../", "~")) or not re.search(r"\s", text)


def read_text(text: str | None, file: Path | None) -> str:
    """Return the text to read: from the argument, a file, or standard input (named by -, or piped in)."""
    if text is not None and file is not None:
        raise OptionError("both a text and --file were given. Give one of them.")
    try:
        if file is not None:
            words, source = file.read_text(encoding=TEXT_ENCODING), str(file)
        elif text == "-" or (text is None and not sys.stdin.isatty()):
            words, source = sys.stdin.buffer.read().decode(TEXT_ENCODING), "standard input"
        elif text is not None:
            words, source = os.fsencode(text).decode(TEXT_ENCODING), "the text"
        else:
            raise OptionError('there is no text to read. Try: clearhead see "The cat sat on the mat"')
    except UnicodeError as error:
        raise ModelError(
            f"{file or ('the text' if text not in (None, '-') else 'standard input')} is not text in UTF-8 "
            f"({error.reason if isinstance(error, UnicodeDecodeError) else 'a character is not'}). Save it as UTF-8."
        ) from error
    except (OSError, ValueError) as error:
        raise files.unreadable(file or "standard input", error) from error
    if not words.strip():
        raise ModelError(f"{source} is empty. Give at least one word.")
    return words.strip()


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
        trust: run the Python code that comes with the model.
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
            more = " Its words and patches: docs/reference/observe.md, Pictures and sound." * _reads_both(loaded)
            raise ModelError(
                f"{loaded.name} reads text, and {words} is a picture. Give --model a model that reads pictures.{more}"
            )
        else:
            reading = capture.read(loaded, words, target=target, max_bytes=max_bytes)
    check_not_empty(reading)
    return reading


def _reads_both(loaded: "Loaded") -> bool:
    """Whether a model of text takes pictures among its words."""
    return hasattr(getattr(loaded.model, "config", None), "image_token_id")


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

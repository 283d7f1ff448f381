"""Find the text or picture for `clearhead see` and `clearhead compare`, and run it through a model.

Progress is printed on standard error if that is a terminal, so it never mixes with results.
"""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True, slots=True)
class Given:
    """What a model is to read.

    Attributes:
        text: the text; None for a picture alone.
        picture, sound: the file that the text is about, one at most.
        target: the text given to the decoder of an encoder-decoder.
    """

    text: str | None
    picture: Path | None = None
    sound: Path | None = None
    target: str | None = None

    @property
    def file(self) -> str | None:
        """The path of the picture or sound, as typed."""
        place = self.picture or self.sound
        return None if place is None else str(place)


def read_given(
    text: str | None,
    file: Path | None,
    *,
    picture: Path | None = None,
    sound: Path | None = None,
    target: str | None = None,
) -> Given:
    """Return what a command's arguments say is to be read.

    Raises:
        OptionError: a picture and a sound, or a text twice.
        ModelError: the text cannot be read, or is empty.
    """
    if picture is None and sound is None:
        words_or_picture = read_words(text, file)
        return (
            Given(words_or_picture, target=target)
            if isinstance(words_or_picture, str)
            else Given(None, words_or_picture, target=target)
        )
    if picture is not None and sound is not None:
        raise OptionError("both --picture and --sound were given. No model here takes both: give one of them.")
    words = None if text is None and file is None else read_text(text, file)
    if sound is not None and target is not None:  # a speech model's decoder reads what is said
        if words is not None:
            raise OptionError("both a text and --target were given with a sound. Give the words once, as the text.")
        words, target = target, None
    return Given(words, picture, sound, target)


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
    given: Given,
    model: str | None,
    *,
    trust: bool = False,
    max_bytes: int | None = None,
    label: str = "",
) -> "Reading":
    """Read a text, a picture, or a text with a picture or a sound through a model and return the reading.

    Args:
        given: from `read_given`.
        model: a folder or a cached name; None for the demo model.
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
        reading = _reading(loaded, given, max_bytes)
    check_not_empty(reading)
    return reading


def _reading(loaded: "Loaded", given: Given, max_bytes: int | None) -> "Reading":
    """Return the reading of what was given, by the function for this kind of model."""
    from clearhead import capture

    _check_suits(loaded, given)
    if given.sound is not None:
        return capture.read_sound(loaded, given.sound, given.text or "", max_bytes=max_bytes)
    if given.picture is not None and loaded.reads == "pictures":
        return capture.read_picture(loaded, given.picture)
    if given.picture is not None:
        return capture.read_with_picture(loaded, given.text or "", given.picture, max_bytes=max_bytes)
    return capture.read(loaded, given.text or "", target=given.target, max_bytes=max_bytes)


def _check_suits(loaded: "Loaded", given: Given) -> None:
    """Check that a model reads what was given; the library says the rest.

    Raises:
        ModelError: it does not; the message names the options of this command.
    """
    name = loaded.name
    if given.target is not None and not loaded.has_decoder:
        raise ModelError(f"{name} is not an encoder-decoder of text, so it takes no --target. Leave it out.")
    if loaded.reads == "sound":
        if given.sound is None:
            raise ModelError(
                f"{name} hears sound. Give it a WAV file with --sound, and the words that are said in it: "
                'clearhead see "the words" --sound speech.wav'
            )
        if given.text is None:
            raise ModelError(f"{name} reads the words that are said in {given.sound}. Give them as the text.")
    if given.picture is None:
        return
    if loaded.reads == "text" and not loaded.takes_picture:
        lacking = ""
        if hasattr(getattr(loaded.model, "config", None), "image_token_id"):
            reason = loaded.no_picture or "its folder has no preprocessor_config.json"
            lacking = f" {name} is a vision-language model, but cannot see: {reason.rstrip('.')}."
        raise ModelError(
            f"{name} reads text, and {given.picture} is a picture. Give --model a model that reads pictures.{lacking}"
        )
    if loaded.reads == "pictures" and given.text is not None:
        raise ModelError(f"{name} sees the picture alone and reads no words. Leave the words out.")
    if loaded.takes_picture and given.text is None:
        raise ModelError(
            f"{name} reads words about a picture. Give them too: "
            f'clearhead see "what is in it?" --picture {given.picture}'
        )


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

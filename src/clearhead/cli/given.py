"""Find the text, picture or sound that `clearhead see` and `clearhead compare` are to read."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from clearhead import files, printing
from clearhead.errors import ModelError, OptionError
from clearhead.text_encoding import UndecodableError, decode_text, with_unix_lines

SHELL_ENCODING = "utf-8"
LARGEST_TEXT = 2**26
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic", ".ppm")
FILE_SUFFIXES = frozenset(
    (*PICTURES, ".txt", ".text", ".md", ".rst", ".log", ".csv", ".tsv", ".json", ".jsonl", ".xml", ".html", ".htm",
     ".yaml", ".yml", ".toml", ".tex", ".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".py", ".ipynb", ".wav",
     ".mp3", ".flac", ".ogg", ".m4a", ".parquet", ".gz", ".zip")
)  # fmt: skip


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
    if target is not None:
        _heed_path(target, 'give --target "$(cat {})"')
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


def _heed_path(text: str, instead: str) -> None:
    """Say that the path of a file is read as a text; refuse what looks like a path where no file is.

    `and/or` is a text. `instead` says how the file {} is given.
    """
    if os.path.isfile(text):  # noqa: PTH113 — no text is too long for it
        printing.report(f"clearhead: {text} is read as text. To read the file of that name, {instead.format(text)}")
    elif not re.search(r"\s", text) and not os.path.exists(text):  # noqa: PTH110
        begins_as_one = re.match(r"(~[^/\\]*|\.{0,2}|[A-Za-z]:)[/\\]\w", text)
        if begins_as_one or Path(text.lower()).suffix in FILE_SUFFIXES:
            raise ModelError(
                f"{text} looks like the path of a file, and there is no such file. Check the path, and to read a file, "
                f"{instead.format('FILE')}. To read these characters as text, put a space after them."
            )


def _read(stream: BinaryIO, source: Path | str) -> bytes:
    """Return the bytes of a text; a device or a pipe may have no end."""
    data = stream.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise ModelError(f"{source} is more than {LARGEST_TEXT:,} bytes, more than a model reads. Give a part of it.")
    return data


def read_text(text: str | None, file: Path | None) -> str:
    """Return the text to read: from the argument, a file, or standard input (named by -, or piped in)."""
    if text is not None and file is not None:
        raise OptionError("both a text and --file were given. Give one of them.")
    try:
        if file is not None:
            with file.open("rb") as stream:
                words, source = with_unix_lines(decode_text(_read(stream, file))), str(file)
        elif text == "-" or (text is None and not sys.stdin.isatty()):
            words, source = decode_text(_read(sys.stdin.buffer, "standard input")), "standard input"
        elif text is not None:
            _heed_path(text, "give --file {}")
            words, source = os.fsencode(text).decode(SHELL_ENCODING), "the text"
        else:
            raise OptionError('there is no text to read. Try: clearhead see "The cat sat on the mat"')
    except UndecodableError as error:
        raise ModelError(f"{file or 'standard input'}, line {error.line}, {error}") from None
    except UnicodeError as error:
        raise ModelError(
            "the text has bytes that are not UTF-8. Set the terminal to UTF-8, or put the text into a file: --file"
        ) from error
    except (OSError, ValueError) as error:
        raise files.unreadable(file or "standard input", error) from error
    if not words.strip():
        raise ModelError(f"{source} is empty. Give at least one word.")
    return words.strip()

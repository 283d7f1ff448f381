"""Bounds of an import: sizes of files, and a budget of text that neither templates nor gaps can exceed."""

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from clearhead.errors import PackError
from clearhead.text_encoding import UndecodableError, decode_text

Spend = Callable[[int], None]  # called with the number of characters that a step is about to use

LARGEST_TEXT: Final = 16 << 20  # bytes of a text file
LARGEST_DIRECTORY: Final = 16 << 20  # bytes of a zip file's directory, about 300,000 members
LARGEST_SIDE: Final = 1_000_000  # characters of one side of a card; an item's file holds as many
LARGEST_IMPORT: Final = 64 << 20  # characters of all cards together, with the templates that are filled for them
_REMEDY: Final = "Name the encoding it has, as in --encoding windows-1252, or save it as UTF-8."
_PIECE: Final = 1 << 20
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile inflates others without a bound


@dataclass(slots=True)
class Budget:
    """Characters that an import may still take."""

    left: int = LARGEST_IMPORT

    def at(self, place: str) -> Spend:
        """Return a function that spends characters for this place."""

        def spend(count: int) -> None:
            self.left -= count
            if self.left < 0:
                message = f"its cards come to more than {LARGEST_IMPORT:,} characters; export a smaller deck"
                raise PackError(f"{place}: {message}")

        return spend


class Stream(Protocol):
    """A stream that is read in pieces."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to so many bytes."""


def read_text(place: Path, encoding: str | None = None) -> str:
    """Return the text of a file that is not too large.

    Raises:
        OptionError: there is no such encoding.
        PackError: it is larger than LARGEST_TEXT, or not text in the encoding that it shows itself.
    """
    with place.open("rb") as file:
        data = file.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise PackError(f"is more than {LARGEST_TEXT:,} bytes; split it into smaller files", file=place.name)
    try:
        return decode_text(data, encoding, remedy=_REMEDY)
    except UndecodableError as error:
        raise PackError(str(error), file=place.name, line=error.line) from None


def read_stream(stream: Stream, most: int) -> bytes | None:
    """Return all bytes of a stream, or None if there are more than `most`, whatever its header declares."""
    pieces: list[bytes] = []
    count = 0
    while piece := stream.read(_PIECE):
        count += len(piece)
        if count > most:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def read_member(place: Path, names: tuple[str, ...], most: int) -> tuple[str, bytes | None] | None:
    """Return (name, bytes) of the first of these members that a zip file has; bytes are None if more than `most`.

    Raises:
        PackError: it is not a zip file, or the member is encrypted, damaged, or compressed with something but deflate.
    """
    try:
        with place.open("rb") as file:
            if _directory_size(file.seek(0, 2), place) > LARGEST_DIRECTORY:
                raise PackError("lists too many files; export a smaller deck", file=place.name)
            with zipfile.ZipFile(file) as package:
                known = set(package.namelist())
                name = next((name for name in names if name in known), None)
                if name is None:
                    return None
                info = package.getinfo(name)
                if info.compress_type not in _METHODS or info.flag_bits & 1:
                    message = f"its {name} is encrypted, or packed in another way than by deflate; export it again"
                    raise PackError(message, file=place.name)
                with package.open(info) as stream:
                    return name, read_stream(stream, most)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        if isinstance(error, PackError):
            raise
        raise PackError(f"is not a zip file that can be read ({error}); export it again", file=place.name) from None


def _directory_size(size: int, place: Path) -> int:
    """Return the size of the zip directory, read from the end record (in the last 64 KiB) before the directory is."""
    with place.open("rb") as file:
        file.seek(max(0, size - (1 << 16) - 22))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 16 > len(tail):
        return 0  # zipfile refuses it
    declared = int.from_bytes(tail[at + 12 : at + 16], "little")
    return size if declared == 0xFFFFFFFF else min(declared, size)

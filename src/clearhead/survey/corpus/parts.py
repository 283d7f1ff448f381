"""A corpus as a list of numbered texts, and the parts in which it is surveyed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from clearhead.errors import ModelError


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring texts that are computed and written together: `count` texts from number `first` on."""

    number: int
    first: int
    count: int


class TextFile(Protocol):
    """One file of texts. Every read opens the file again, so the object can be sent to another process.

    Attributes:
        path: where it is.
        texts: how many texts it holds.
        digest: of its content.
    """

    @property
    def path(self) -> str: ...

    @property
    def texts(self) -> int: ...

    @property
    def digest(self) -> str: ...

    def read(self, first: int, count: int) -> list[str | None]:
        """Return `count` consecutive texts from number `first` on; None for a row without text."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The texts of some files, one after the other, numbered from 0.

    Attributes:
        path: what the user named.
        kind: what the files are, for display.
        files: the files, in order.
    """

    path: str
    kind: str
    files: tuple[TextFile, ...]

    @property
    def texts(self) -> int:
        return sum(file.texts for file in self.files)

    def parts(self, size: int, limit: int | None = None) -> list[Part]:
        """Cut the first `limit` texts into parts.

        >>> Corpus("", "", ()).parts(3)
        []
        """
        total = self.texts if limit is None else min(limit, self.texts)
        return [Part(number, first, min(size, total - first)) for number, first in enumerate(range(0, total, size))]

    def read(self, part: Part) -> list[str | None]:
        """Return the texts of a part.

        Raises:
            ModelError: a file has changed since it was opened.
        """
        texts: list[str | None] = []
        start = 0
        for file in self.files:
            first, stop = max(part.first - start, 0), min(part.first + part.count - start, file.texts)
            if first < stop:
                texts.extend(file.read(first, stop - first))
            start += file.texts
        if len(texts) != part.count:
            raise ModelError(
                f"{self.path} has changed while it was read: {len(texts)} texts of {part.count} are there. Start again."
            )
        return texts

    def at(self, numbers: Sequence[int], size: int) -> dict[int, str]:
        """Return single texts by number. Texts in the same part of `size` texts are read together."""
        texts: dict[int, str] = {}
        parts = self.parts(size)
        for number in sorted({number // size for number in numbers}):
            part = parts[number]
            read = self.read(part)
            texts |= {n: read[n - part.first] or "" for n in numbers if n // size == number}
        return texts

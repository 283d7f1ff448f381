"""SurveyFolder: the folder that a survey writes to. One process at a time works in it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from clearhead.errors import ModelError, OptionError
from clearhead.files import expanded, unreadable, unwritable
from clearhead.survey.corpus.parts import Part
from clearhead.survey.parquet import write_whole
from clearhead.survey.part_files import is_part_of, name_of
from clearhead.survey.settings import FORMAT

flock: Any  # None on other systems than Unix, where two processes in one folder are not detected
try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:
    flock = None

MANIFEST = "survey.json"
DRAFTS = ".*.draft"  # files that `whole_file` had not finished when the process was killed


@dataclass(frozen=True, slots=True)
class SurveyFolder:
    """The folder of one survey.

    Attributes:
        path: where it is.
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> SurveyFolder:
        return cls(expanded(Path(path)))

    def check_apart(self, data: str | Path) -> None:
        """Check that the folder is not inside a folder of texts, where a survey's own files would become texts.

        Raises:
            OptionError: it is.
        """
        texts = expanded(Path(data))
        if texts.is_dir() and self.path.resolve().is_relative_to(texts.resolve()):
            raise OptionError(
                f"--out is {self.path}, inside the folder of texts {data}: its files would be read as texts when the "
                "survey resumes. Give a folder outside."
            )

    @property
    def manifest(self) -> dict[str, Any]:
        """Return the content of `survey.json`.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        file = self.path / MANIFEST
        if not file.is_file():
            raise ModelError(f"{self.path} is not the folder of a survey: it has no {MANIFEST}. Give one that is.")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise unreadable(file, error, "a survey's folder") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ModelError(f"{file} is of another version of Clearhead. Survey again into another folder.")
        return data

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder if necessary, and lock it against other surveys inside the block.

        Raises:
            OptionError: another survey is writing to it, it cannot be created, or it holds other files.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDONLY)
        except FileExistsError as error:
            raise OptionError(
                f"{self.path} is a file, expected a folder. Give an empty or a new one: --out."
            ) from error
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            if flock is not None:
                try:
                    flock(descriptor, LOCK_EX | LOCK_NB)
                except BlockingIOError as error:
                    raise OptionError(
                        f"another survey is writing into {self.path}. Wait for it, or give another --out."
                    ) from error
            yield
        finally:
            os.close(descriptor)

    def begin(self, identity: dict[str, Any]) -> str:
        """Write the identity of a new survey, or check that the folder holds the same one; return its digest.

        Args:
            identity: everything that decides its numbers, from `survey.identity`.

        Raises:
            OptionError: the folder holds another survey (the message says what differs), or other files.
        """
        if (self.path / MANIFEST).is_file():
            before = self.manifest["identity"]
            if differences := list(_differences(before, identity)):
                raise OptionError(
                    f"{self.path} holds another survey: {'; '.join(differences)}. Nothing was changed "
                    "there. Give the same settings, or another --out."
                )
        else:
            names = [entry.name for entry in self.path.iterdir() if not fnmatch(entry.name, DRAFTS)]
            if names:
                raise OptionError(
                    f"{self.path} is not empty and is not the folder of a survey ({sorted(names)[0]} is in it). "
                    "Give an empty or a new folder: --out."
                )
            self.write(identity, {})
        return digest_of(identity)

    def write(self, identity: dict[str, Any], result: dict[str, Any]) -> None:
        """Write `survey.json`: the identity of the survey and, when it is done, its counts."""
        data = {"format": FORMAT, "identity": identity, "result": result}
        write_whole(self.path / MANIFEST, json.dumps(data, indent=1, ensure_ascii=False).encode())

    def remaining(self, parts: list[Part], digest: str) -> list[Part]:
        """Return the parts that are not written yet. A damaged file counts as not written."""
        return [part for part in parts if not is_part_of(self.part_path(part.number), digest)]

    def part_path(self, number: int) -> Path:
        return self.path / "parts" / name_of(number)

    def add(self, files: dict[str, bytes]) -> None:
        """Write the files of a part in order. The last file marks the part as done."""
        for name, content in files.items():
            write_whole(self.path / name, content)

    def tidy(self) -> None:
        """Remove unfinished files that a killed process left."""
        for draft in self.path.rglob(DRAFTS):
            with suppress(OSError):
                draft.unlink()


def digest_of(identity: dict[str, Any]) -> str:
    """Return a digest of everything that decides a survey's numbers."""
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=16).hexdigest()


_OPTIONS = {
    "asks": "--ask",
    "part_texts": "--part",
    "batch_tokens": "--batch",
}  # settings with other names


def _differences(before: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield what differs between two identities, in words; of another model its name alone."""
    for group, fields in now.items():
        previous = before.get(group, {})
        names = [name for name in previous | fields if previous.get(name) != fields.get(name)]
        if group == "data" and names:
            yield "other texts"
        elif group == "model" and "digest" in names:
            renamed = f" ({previous['name']}, and now {fields['name']})" if "name" in names else ""
            yield f"another model{renamed}"
        else:
            for name in names:
                shown = _OPTIONS.get(name, f"--{name}".replace("_", "-")) if group == "settings" else f"{group} {name}"
                yield f"{shown.replace('_', ' ')} was {_shown(previous.get(name))} and is {_shown(fields.get(name))}"


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

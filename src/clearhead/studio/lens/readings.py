"""Cache of the Lens: the last few models, readings and uploaded files, in the memory of this process."""

import json
import os
import re
import secrets
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from clearhead.errors import ModelError, OptionError
from clearhead.files import discard, make_private
from clearhead.studio.lens.reading_request import ReadingRequest, digest
from clearhead.studio.text.translation import _

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Reading

# Modules that need torch are imported where they are used: a studio starts, and teaches, without it.

Tell = Callable[[str, int, int], None]  # called with the current task and its progress: done, total (0: not known)

MODELS: Final = 2
LATEST: Final = 6
UPLOADS: Final = 8
SHARED: Final = 400  # number of files that processes share
KEY: Final = re.compile(r"[0-9a-f]{32}(\.json)?")


class Readings:
    """Readings by request, computed one at a time, so that two first visits do not load a model twice.

    Args:
        only: the names of the models that may be used; None allows every name and folder. A shared studio allows only
            its own, so that nobody opens a folder of the server or runs a model's code on it.
        folder: where requests and uploads are stored too, for the other processes of the same studio.
    """

    def __init__(self, only: Collection[str] | None = None, folder: Path | None = None) -> None:
        self._only, self._folder = only, folder
        self._turn = Lock()
        self._models: OrderedDict[tuple[str | None, bool], Loaded] = OrderedDict()
        self._readings: OrderedDict[ReadingRequest, Reading] = OrderedDict()
        self._requests: OrderedDict[str, ReadingRequest] = OrderedDict()
        self._uploads: OrderedDict[str, bytes] = OrderedDict()
        self._trusted: set[str] = set()
        self._released: set[ReadingRequest] = set()  # readings whose model has been dropped

    def read(self, wanted: ReadingRequest, tell: Tell) -> "Reading":
        """Return the reading, from memory or computed now.

        Args:
            wanted: the request; its second model is ignored.
            tell: called with the progress; an exception that it raises stops the reading.
        Raises:
            ModelError: the model, the text or the picture cannot be used, or there is no attention in the model.
        """
        while not self._turn.acquire(timeout=0.1):
            tell("waiting", 0, 0)
        try:
            if wanted.alone not in self._readings:
                reading = self._made(wanted.alone, tell)
                keep(self._readings, wanted.alone, reading, LATEST)
                self._released.discard(wanted.alone)
            if wanted.key not in self._requests:
                self._share(f"{wanted.key}.json", json.dumps(asdict(wanted)).encode())
            keep(self._requests, wanted.key, wanted, 4 * LATEST)
            return self._readings[wanted.alone]
        finally:
            self._turn.release()

    def with_models(self, wanted: ReadingRequest, tell: Tell) -> "tuple[Reading, Reading | None]":
        """Return the same as `both`, with the models loaded, which `A.why` runs once more."""
        with self._turn:
            for released in self._released & {wanted.alone, wanted.other}:
                self._readings.pop(released, None)
        return self.both(wanted, tell)

    def both(self, wanted: ReadingRequest, tell: Tell) -> "tuple[Reading, Reading | None]":
        """Return the reading, and the same through the second model if one is requested.

        Raises:
            ModelError: as in `read`, for either model.
            OptionError: the two models tokenize the text differently, so their maps cannot be compared.
        """
        from clearhead.views.checks import check_same_tokens

        first = self.read(wanted, tell)
        if not wanted.second:
            return first, None
        second = self.read(wanted.other, lambda doing, done, total: tell(f"second-{doing}", done, total))
        check_same_tokens(first, second)
        return first, second

    def loaded(self, model: str | None, tell: Tell) -> "Loaded":
        """Return a model, from memory or loaded now.

        Raises:
            ModelError: it cannot be loaded, or this studio allows only its own models.
        """
        while not self._turn.acquire(timeout=0.1):
            tell("waiting", 0, 0)
        try:
            return self._loaded(model, tell)
        finally:
            self._turn.release()

    def holds(self, loaded: "Loaded") -> bool:
        """Return whether this very model is still in memory, not dropped for others."""
        return any(model is loaded for model in list(self._models.values()))

    def request(self, key: str) -> ReadingRequest:
        """Return the request with this key.

        Raises:
            OptionError: the studio has dropped it, or has been restarted.
        """
        if key not in self._requests:
            if shared := self._shared(f"{key}.json"):
                return ReadingRequest(**json.loads(shared))
            raise OptionError(_("this reading is no longer kept. Press Read to run it again."))
        return self._requests[key]

    def add_upload(self, content: bytes) -> str:
        """Keep an uploaded picture or sound as long as there is room, and return its key."""
        key = digest(content)
        keep(self._uploads, key, content, UPLOADS)
        self._share(key, content)
        return key

    def trust(self, model: str) -> None:
        """Allow the code that comes with this model to run until the studio stops.

        Raises:
            ModelError: this studio allows only its own models.
        """
        self._refuse_others(model)
        self._trusted.add(model)

    def _made(self, wanted: ReadingRequest, tell: Tell) -> Any:
        if wanted.units != "tokens":
            from clearhead.views.grouping import grouped

            in_tokens = replace(wanted, units="tokens")
            reading = self._readings.get(in_tokens) or self._made(in_tokens, tell)
            return grouped(reading, wanted.units, progress=lambda done, total: tell("grouping", done, total))
        if wanted.rollout:
            from clearhead.views.rollout import rolled

            return rolled(self._made(replace(wanted, rollout=False), tell))
        from clearhead import capture
        from clearhead.capture.models.progress import layers_run
        from clearhead.views.checks import check_not_empty

        loaded = self._loaded(wanted.model, tell)
        tell("reading", 0, 0)
        with layers_run(loaded.model, lambda done, total: tell("reading", done, total)):
            if wanted.sound:
                reading = capture.read_sound(loaded, self._uploaded(wanted.sound), wanted.text or wanted.target)
            elif wanted.picture and loaded.reads == "pictures":
                reading = capture.read_picture(loaded, self._uploaded(wanted.picture))
            elif wanted.picture:
                reading = capture.read_with_picture(loaded, wanted.text, self._uploaded(wanted.picture))
            else:
                reading = capture.read(loaded, wanted.text, target=wanted.target or None)
        check_not_empty(reading)
        return reading

    def _loaded(self, model: str | None, tell: Tell) -> "Loaded":
        from clearhead import capture

        self._refuse_others(model)
        trusted = model in self._trusted
        if (model, trusted) not in self._models:
            tell("loading", 0, 0)
            loaded = capture.load(model, trust_remote_code=trusted)
            tell("loading", 1, 1)  # a stop requested during loading takes effect here
            keep(self._models, (model, trusted), loaded, MODELS)
            self._release({name for name, _ in self._models})
        return self._models[model, trusted]

    def _release(self, models: set[str | None]) -> None:
        """Drop the models of readings through other models than these, to free memory."""
        for wanted, reading in self._readings.items():
            if wanted.model not in models:
                reading.record.release_model()
                self._released.add(wanted)

    def _refuse_others(self, model: str | None) -> None:
        # Decide by the name before looking for anything, so that the answer says nothing about the server's folders.
        if self._only is not None and model and model not in self._only:
            raise ModelError(_("this studio is shared: the Lens opens its own models only."))

    def _uploaded(self, key: str) -> bytes:
        content = self._uploads.get(key) or self._shared(key)
        if content is None:
            raise ModelError(
                _("this file is not kept: an address cannot hold it, and the studio forgets it. Choose it again.")
            )
        return content

    def _share(self, name: str, content: bytes) -> None:
        """Store a value for the other processes; the oldest files are deleted."""
        if self._folder is None:
            return
        make_private(self._folder)
        whole = self._folder / f".{name}.{secrets.token_hex(4)}"
        try:
            whole.write_bytes(content)
            whole.rename(self._folder / name)
        finally:
            discard(whole)
        names = sorted(os.scandir(self._folder), key=_age)
        for entry in names[:-SHARED]:
            Path(entry.path).unlink(missing_ok=True)

    def _shared(self, name: str) -> bytes | None:
        if self._folder is None or not KEY.fullmatch(name):
            return None
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None


def _age(entry: "os.DirEntry[str]") -> float:
    """Return when the file was written; 0 if another process has just deleted it."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def keep(cache: OrderedDict[Any, Any], key: Any, value: Any, most: int) -> None:
    """Keep a value; the least recently used one is dropped."""
    cache[key] = value
    cache.move_to_end(key)
    while len(cache) > most:
        cache.popitem(last=False)


READINGS = Readings()

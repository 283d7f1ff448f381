"""The demo model and the chat model, each loaded once for all pages, and readings through them."""

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Reading

_loading = Lock()  # two first visits must not load the model twice


def model(name: str | None = None) -> "Loaded":
    """Return the demo model, or the one of this name. Raises ModelError if it is not installed."""
    with _loading:
        return _loaded(name)


@lru_cache(maxsize=2)
def _loaded(name: str | None) -> "Loaded":
    from clearhead import capture

    return capture.load(name)


@lru_cache(maxsize=16)
def reading(text: str, name: str | None = None) -> "Reading":
    """Return the reading of one text. Raises ModelError if it is too long."""
    from clearhead import capture

    return capture.read(model(name), text)

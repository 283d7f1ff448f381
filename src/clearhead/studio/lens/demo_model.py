"""The demo model, loaded once for all pages that use it, and its readings."""

from functools import lru_cache
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearhead.capture import Loaded, Reading

_loading = Lock()  # two first visits must not load the model twice


def model() -> "Loaded":
    """Return the model. Raises ModelError if it is not installed."""
    with _loading:
        return _loaded()


@lru_cache(maxsize=1)
def _loaded() -> "Loaded":
    from clearhead import capture

    return capture.load()


@lru_cache(maxsize=16)
def reading(text: str) -> "Reading":
    """Return the reading of one text. Raises ModelError if it is too long."""
    from clearhead import capture

    return capture.read(model(), text)

"""Make transformers' messages about a model safe for a terminal: names in its files may hold escape sequences."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from clearhead.printing import clean

LIBRARIES: Final = ("transformers", "huggingface_hub")  # each has a handler of its own on standard error
_COLOURS: Final = re.compile("\x1b\\[[0-9;]*m")


class CleanFormatter(logging.Formatter):
    """Wraps another formatter: removes colours and shows every control character as its escape."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, safe to print."""
        return clean(_COLOURS.sub("", self._inner.format(record)))


def clean_library_messages() -> None:
    """Clean the output of these libraries' handlers from now on. The application's own handlers stay as they are."""
    for library in LIBRARIES:
        for handler in logging.getLogger(library).handlers:
            if not isinstance(handler.formatter, CleanFormatter):
                handler.setFormatter(CleanFormatter(handler.formatter or logging.Formatter()))


@contextmanager
def without_load_report() -> Iterator[None]:
    """While open, leave out transformers' report of unused, missing and unequal weights: weights.py says what matters.

    A report of weights that could not be converted is printed, because transformers' error refers to it.
    """
    handlers = [handler for library in LIBRARIES for handler in logging.getLogger(library).handlers]
    for handler in handlers:
        handler.addFilter(_is_needed)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_is_needed)


def _is_needed(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return "LOAD REPORT" not in text or "CONVERSION" in text

"""The longest text of each kind of form field, and the error for a longer one.

The time for grading grows with what was typed, so these limits also bound the cost of a request.
"""

from typing import Final

from clearhead.errors import OptionError
from clearhead.messages import message

LONGEST: Final = {
    "typed": 2_000,  # an output
    "step": 2_000,  # the result of one step of a worked example
    "text": 5_000,  # an explanation
    "program": 20_000,
    "prediction": 20_000,  # of what a program prints
    "note": 5_000,
    "search": 200,
    "lens": 500_000,  # a text for a model: 128k tokens fit, and most models take far fewer
    "prompt": 20_000,  # a prompt for a model
    "question": 2_000,  # a question about a reading, as JSON
    "name": 500,  # of a model: a folder, at most
}

DIGITS: Final = 10  # of an index; int() raises ValueError for 4,300 digits


def index_in(count: int, text: str) -> int | None:
    """Return the index that a form or an address names, if it is one of a list of `count`; else None.

    >>> index_in(3, "2"), index_in(3, "3"), index_in(3, "-1"), index_in(3, "9" * 5000)
    (2, None, None, None)
    """
    whole = text.isascii() and text.isdigit() and len(text) < DIGITS
    return int(text) if whole and int(text) < count else None


class TooLong(OptionError):
    """A field has more characters than its kind may have.

    Attributes:
        text: what was typed, to show it again.
    """

    def __init__(self, kind: str, text: str) -> None:
        reason = message(
            "That is %(count)s characters, and this field takes at most %(most)s. Shorten it and send it again.",
            count=f"{len(text):,}",
            most=f"{LONGEST[kind]:,}",
        )
        super().__init__(reason)
        self.text = text


def fitting(kind: str, text: str) -> str:
    """Return the text with "\n" line ends, as a browser counts them, if it is not too long for its kind.

    Raises:
        TooLong: it is.
    """
    text = text.replace("\r\n", "\n")
    if len(text) > LONGEST[kind]:
        raise TooLong(kind, text)
    return text

"""A request to the Lens: one text, picture or sound through one model, and how to show it."""

import hashlib
from dataclasses import astuple, dataclass, replace

from clearhead.errors import OptionError
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _


@dataclass(frozen=True, slots=True)
class ReadingRequest:
    """One text, one picture, or a text with a picture or a sound, through one model.

    Attributes:
        text: the text; a model of pictures ignores it.
        model: a folder or a cached name; None for the demo model.
        picture: the key of an uploaded picture, or "".
        rollout: all layers as one map.
        second: another model to compare with, named as `model` is; "" for none.
        target: the decoder's input of an encoder-decoder; "" for none.
        units: whether weights are shown between "tokens", "words" or "lines".
        sound: the key of an uploaded sound, in which the text is said, or "".
    """

    text: str
    model: str | None = None
    picture: str = ""
    rollout: bool = False
    second: str = ""
    target: str = ""
    units: str = "tokens"
    sound: str = ""

    @property
    def key(self) -> str:
        """A short name of the request, for addresses."""
        return digest(repr(astuple(self)).encode())

    @property
    def alone(self) -> "ReadingRequest":
        """The same request without the second model."""
        return replace(self, second="")

    @property
    def other(self) -> "ReadingRequest":
        """The same request, to the second model only."""
        return replace(self, model=self.second, second="")


def reading_request(
    text: str,
    model: str = "",
    picture: str = "",
    rollout: bool = False,
    second: str = "",
    target: str = "",
    units: str = "tokens",
    sound: str = "",
) -> ReadingRequest:
    """Return the request of a form, checked.

    Raises:
        OptionError: the text contains a lone surrogate (half a character), which no tokenizer reads.
        TooLong: the text, or a name, is too long.
    """
    fitting("lens", text)
    fitting("lens", target)
    for name in (model, second, picture, units, sound):
        fitting("name", name)
    for value in (text, model, second, target):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise OptionError(
                _("the text holds half of a character, which no tokenizer can read. Type it again.")
            ) from error
    return ReadingRequest(
        text.strip(), model.strip() or None, picture.strip(), rollout, second.strip(), target.strip(), units.strip(),
        sound.strip(),
    )  # fmt: skip


def digest(content: bytes) -> str:
    """Return a short name of some bytes, for addresses and files."""
    return hashlib.sha256(content).hexdigest()[:32]

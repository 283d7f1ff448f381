"""A request to the Lens: one text, picture or sound through one model, and how to show it."""

import hashlib
from dataclasses import asdict, astuple, dataclass, replace
from typing import Any

from clearhead.errors import OptionError
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _


@dataclass(frozen=True, slots=True)
class ReadingRequest:
    """One text, one picture, or a text with a picture or a sound, through one model.

    It is also the body of the script's request, and the query of an address.

    Attributes:
        text: the text; a model of pictures ignores it.
        model: a folder or a cached name; None or "" for the demo model.
        picture: the key of an uploaded picture, or "".
        rollout: all layers as one map.
        second: another model to compare with, named as `model` is; "" for none.
        target: the decoder's input of an encoder-decoder; "" for none.
        units: whether weights are shown between "tokens", "words" or "lines".
        sound: the key of an uploaded sound, in which the text is said, or "".
    """

    text: str = ""
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

    def checked(self) -> "ReadingRequest":
        """Return the request without blanks around its texts and names, if a model can read it.

        Raises:
            OptionError: a text contains a lone surrogate (half a character), which no tokenizer reads.
            TooLong: a text, or a name, is too long.
        """
        texts = {name: value for name, value in asdict(self).items() if isinstance(value, str)}
        for name, value in texts.items():
            fitting("lens" if name in ("text", "target") else "name", value)
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise OptionError(
                    _("the text holds half of a character, which no tokenizer can read. Type it again.")
                ) from error
        stripped: dict[str, Any] = {name: value.strip() for name, value in texts.items()}
        return replace(self, **stripped | {"model": stripped.get("model") or None})


def digest(content: bytes) -> str:
    """Return a short name of some bytes, for addresses and files."""
    return hashlib.sha256(content).hexdigest()[:32]

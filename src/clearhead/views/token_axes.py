"""Name the rows and columns of a matrix by their tokens and positions; query i is not always token i."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from clearhead.capture import Reading
    from clearhead.capture.positions import Axis

EMPTY = "[empty]"  # a slot of a cache that holds no token


@dataclass(frozen=True, slots=True)
class TokenAxis:
    """One axis of a matrix, named.

    Attributes:
        sequence: which tokens these are: "input", "decoder", or "other" if they are not tokens.
        positions: the position of each entry in its sequence.
        tokens: the text of each entry; for "other" its number.
        special: whether the tokenizer added it.
    """

    sequence: str
    positions: range | tuple[int, ...]
    tokens: list[str]
    special: list[bool]

    @property
    def whole(self) -> bool:
        """Whether entry i is position i."""
        return isinstance(self.positions, range) and self.positions.start == 0

    def words(self) -> NDArray[np.bool_]:
        """(n,): which entries are tokens of the text, not special ones; all entries if they are not tokens."""
        return ~np.asarray(self.special, dtype=bool)

    def places(self) -> NDArray[np.int64]:
        """(n,): the positions, as an array."""
        return np.asarray(self.positions, dtype=np.int64)


def token_axes(reading: "Reading", name: str) -> tuple[TokenAxis, TokenAxis]:
    """Return the axes of the queries and the keys of a layer, given by name."""
    where = reading.record.positions(name)[-1]
    return _line(reading, where.queries), _line(reading, where.keys)


def layer_token_axes(reading: "Reading", layer: int) -> tuple[TokenAxis, TokenAxis]:
    """Return the axes of the queries and the keys of a layer, given by number."""
    return token_axes(reading, list(reading.record)[layer])


def shown(token: str, most: int = 14) -> str:
    """Return a token for people: its spaces and line ends visible, a long one cut, an empty one as ∅."""
    text = token.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥") or "∅"
    return text if len(text) <= most else text[: most - 1] + "…"


def _line(reading: "Reading", axis: "Axis") -> TokenAxis:
    side: Any = {"input": reading, "decoder": reading.decoder}.get(axis.sequence)
    places = axis.positions
    if side is None:
        return TokenAxis(axis.sequence, places, [str(place) for place in places], [False] * len(places))
    tokens, special = side.tokens, side.special  # read once: each access may compute them again
    size = len(tokens)
    return TokenAxis(
        axis.sequence,
        places,
        [tokens[place] if 0 <= place < size else EMPTY for place in places],
        [bool(special[place]) if 0 <= place < size else True for place in places],
    )

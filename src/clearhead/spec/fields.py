"""What each field of `Attention` declares about itself: axes, operator schema, gradients, whether a file stores it."""

from dataclasses import dataclass
from enum import Enum

ROW = "row"  # the key of a Field in a dataclass field's metadata


class Axes(Enum):
    """Which axes a field has, and so how it is sliced."""

    NUMBER = "a number for the whole attention"
    HEADS = "(H,): a number for each query head"
    PAIRS = "broadcastable to (B, H, L, S)"
    KEYS = "broadcastable to (B, H, 1, S)"
    RULE = "a rule, evaluated in pieces"


@dataclass(frozen=True, slots=True)
class Field:
    """One row of the table.

    Attributes:
        axes: how the field is sliced.
        schema: its type in the schema of a custom operator; None for a field that an operator cannot take.
        boolean: whether a tensor holds booleans instead of floating-point numbers.
        learns: whether gradients flow to it.
        saved: whether a saved attention matrix stores it.
        name: the field's name; the same in the operator's schema, in the file and in native/arguments.h.
    """

    axes: Axes
    schema: str | None
    boolean: bool = False
    learns: bool = False
    saved: bool = True
    name: str = ""

    @property
    def is_tensor(self) -> bool:
        """Whether the field has an axis of heads, pairs or keys."""
        return self.axes in (Axes.HEADS, Axes.PAIRS, Axes.KEYS)


def number(schema: str, *, saved: bool = True) -> dict[str, Field]:
    """The metadata of a dataclass field that holds a number."""
    return {ROW: Field(Axes.NUMBER, schema, saved=saved)}


def tensor(axes: Axes, *, boolean: bool = False, learns: bool = False) -> dict[str, Field]:
    """The metadata of a dataclass field that holds a tensor or None."""
    return {ROW: Field(axes, "Tensor?", boolean, learns)}


def evaluated() -> dict[str, Field]:
    """The metadata of a dataclass field that holds a rule or None."""
    return {ROW: Field(Axes.RULE, None, saved=False)}

"""The state and the outcome of tracing one forward pass of a module."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import nn

from clearhead.capture.call import Call
from clearhead.capture.softmax_tracing.axis_roles import Hints
from clearhead.capture.softmax_tracing.traces import Softmax


@dataclass(eq=False, slots=True)
class Frame:
    """The state of one forward pass of a module.

    Attributes:
        attention: the innermost pass, itself or around it, of a class named an attention.
        is_part: whether another pass of a class named an attention is around it.
        mixed: whether it called more than pointwise functions; kept for passes named an attention only.
        left_softmax: whether it left its softmax to the module around it.
        unfinished: the softmaxes inside it that multiplied no values.
        instead_of_softmax: the last function of logits that multiplied something without a softmax.
    """

    module: nn.Module
    depth: int
    hints: Hints
    attention: Frame | None
    is_part: bool = False
    mixed: bool = False
    left_softmax: bool = False
    softmaxes: int = 0
    calls: list[Call] = field(default_factory=list)
    failure: str | None = None
    unfinished: list[Softmax] = field(default_factory=list)
    instead_of_softmax: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of tracing one pass of a module.

    Attributes:
        calls: the attentions it computed.
        failure: why what it computed is not an attention matrix; None without a failure.
        unseen: the reason to give if nothing inside it was recorded; "" without one.
        mixed: whether it called more than pointwise functions.
        unused: other modules whose softmax this one took over and did not multiply values by, each with the reason.
    """

    calls: list[Call]
    failure: str | None
    unseen: str
    mixed: bool
    unused: list[tuple[nn.Module, str]]


def owner_of(softmax: Softmax) -> Frame:
    """Return the innermost module that contains the product, the softmax and the product with the values."""
    frames = [softmax.frame] if softmax.product is None else [softmax.frame, softmax.product.frame]
    return min(frames, key=lambda frame: frame.depth)

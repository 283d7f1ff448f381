"""torch.jit.trace: sizes are tensors while it records, and what is decided on one would be kept as a constant."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from clearhead.errors import OptionError

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """Decorate a function that looks at sizes and adds nothing to a graph: in it, sizes are numbers.

    What it computes of tensors is a constant of the graph.
    """

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not torch.jit.is_tracing():  # type: ignore[attr-defined]
            return function(*args, **options)
        state = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            return function(*args, **options)
        finally:
            torch._C._set_tracing_state(state)  # type: ignore[attr-defined]

    return cast(F, call)


def refuse_tracing(subject: str) -> None:
    """Raise an error while torch.jit.trace records, about a subject that depends on more than the shapes of tensors.

    Raises:
        OptionError: torch.jit.trace is at work.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise OptionError(f"torch.jit.trace cannot record {subject}. Use torch.compile or torch.export.")

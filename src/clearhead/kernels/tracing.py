"""torch.jit.trace: while it records, sizes are tensors, and a branch on one would become a constant."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

from clearhead.errors import OptionError

F = TypeVar("F", bound=Callable[..., Any])


def untraced(function: F) -> F:
    """Decorate a function that reads sizes and records nothing: inside it, sizes are numbers.

    Tensors that it computes become constants of the graph.
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
    """Raise an error if torch.jit.trace records, which cannot record the subject.

    Raises:
        OptionError: torch.jit.trace records.
    """
    if torch.jit.is_tracing():  # type: ignore[attr-defined]
        raise OptionError(f"torch.jit.trace cannot record {subject}. Use torch.compile or torch.export.")

"""Compare small steps of the ranks: whether each one succeeded, and whether all compute the same statistic."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from clearhead.distributed.exchange import Ranks
from clearhead.errors import DtypeError, OptionError, RanksError

_SIZES = 6  # how many integers of a statistic's arguments ranks compare
_Made = TypeVar("_Made")


def together(ranks: Ranks, make: Callable[[], _Made], query: Tensor) -> _Made:
    """Return the result of `make` on this rank, after checking that it succeeded on every rank.

    Raises:
        RanksError: it failed on another rank.
    """
    ok = False
    try:
        made = make()
        ok = True
    finally:
        numbers = ranks.gather_numbers("attention with a mask tensor", [int(ok)], query.device)
    raise_where_refused([accepted for (accepted,) in numbers])
    return made


def same_question(ranks: Ranks, question: str, check: Callable[[], Sequence[int]], device: torch.device) -> None:
    """Check that every rank computes the same statistic with the same sizes, before anything is sent.

    Args:
        check: raises if this rank's arguments are wrong; returns at most `_SIZES` integers that must be equal.
    Raises:
        RanksError: another rank refused its arguments, or computes something else.
    """
    own = [0] * (1 + _SIZES)
    try:
        sizes = [_whole(question, size) for size in check()]
        own[: 1 + len(sizes)] = 1, *sizes
    finally:
        reports = ranks.gather_numbers(question, own, device)
    raise_where_refused([report[0] for report in reports])
    for rank, report in enumerate(reports):
        if report != own:
            raise RanksError(
                f"this rank computes {question} with sizes {own[1:]}, but rank {rank} with {report[1:]}. "
                "Call the same on every rank."
            )


def _whole(question: str, size: Any) -> int:
    """Return a size as an integer that ranks can send."""
    try:
        number = operator.index(size)
    except TypeError:
        raise DtypeError(f"{question} got {size!r}, expected a whole number.") from None
    if abs(number) >= 2**62:
        raise OptionError(f"{question} got {number}, expected a number of fewer than 63 bits.")
    return number


def device_of(query: Any) -> torch.device:
    """Return the device on which ranks compare their calls: that of the query."""
    has_memory = isinstance(query, Tensor) and not query.is_meta
    return query.device if has_memory else torch.device("cpu")


def raise_where_refused(accepted: list[int]) -> None:
    """Raise if a rank refused its own call.

    Args:
        accepted: 1 or 0 for each rank.
    Raises:
        RanksError: the message names the first one.
    """
    if not all(accepted):
        raise RanksError(
            f"rank {accepted.index(0)} refused its own call, so this rank does not compute. See that rank's error."
        )

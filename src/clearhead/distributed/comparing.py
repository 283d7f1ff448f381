"""Compare what ranks do before and after their transfers, so that an error of one rank is an error of all."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor

from clearhead.distributed.exchange import NUMBERS, Ranks, as_numbers, as_text
from clearhead.errors import DtypeError, OptionError, RanksError

ATTENTION, MODEL = "attention", "a model's forward"  # names of calls that a rank may refuse
_SIZES = 6  # how many integers of a statistic's arguments ranks compare
_Made = TypeVar("_Made")
_Given = ParamSpec("_Given")


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
        numbers = ranks.gather_numbers("attention with a mask", [int(ok)], query.device)
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


class Steps:
    """The steps of one computation on this rank, between transfers that all ranks make.

    An error in a step is kept, and later steps do nothing, while the transfers go on for the other ranks. At the end of
    the block the rank with the error raises it, the others raise RanksError, and the ranks can go on. Anything else
    that leaves the block early, such as a KeyboardInterrupt, ends the group, so that no rank waits.

    Example:
        with Steps(ranks, "entropy", key.device) as steps:
            for owner, key in travelling:
                steps(add, owner, key)
    """

    def __init__(self, ranks: Ranks, call: str, device: torch.device) -> None:
        self._ranks, self._call, self._device = ranks, call, device
        self._error: Exception | None = None

    def __call__(self, step: Callable[_Given, _Made], *given: _Given.args, **named: _Given.kwargs) -> _Made | None:
        """Return the result of one step, or None if it or an earlier one failed."""
        if self._error is None:
            try:
                return step(*given, **named)
            except Exception as error:  # noqa: BLE001 (raised at the end of the block)
                self._error = error
        return None

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._ranks.end(error)
            return
        if self._ranks.size > 1:
            self._compare()
        if self._error is not None:
            raise self._error

    def _compare(self) -> None:
        """Tell the other ranks how this one fared, and raise if one of them failed."""
        own = [0] * NUMBERS
        if self._error is not None:
            own = [1, *_shown(self._error)]
        reports = self._ranks.gather_numbers(f"end of {self._call}", own, self._device)
        for rank, (failed, *shown) in enumerate(reports):
            if failed and self._error is None:
                raise RanksError(
                    f"rank {rank} raised an error during {self._call}, so no rank has a result. It was: "
                    f"{as_text(shown)}"
                )


def begin_backward(
    ranks: Ranks, number: int, grads: Sequence[Tensor | None], saved: Callable[[], Sequence[Any]], device: torch.device
) -> tuple[list[bool], Sequence[Any]]:
    """Check that every rank is in the backward pass of the same call, before anything is sent.

    Args:
        number: the number of the call, equal on all ranks.
        grads: this rank's gradients of out and lse.
        saved: returns this rank's saved tensors, or raises: after a change in place, for example.
    Returns:
        For each gradient, whether some rank has it; and the saved tensors.
    Raises:
        RanksError: another rank computes something else, or has lost its saved tensors.
    """
    ok, tensors = 0, cast(Sequence[Any], ())
    try:
        tensors = saved()
        ok = 1
    finally:
        own = [ok, number, *(int(grad is not None) for grad in grads)]
        rows = ranks.gather_numbers("backward of attention", own, device)
    raise_where_refused([row[0] for row in rows])
    for rank, row in enumerate(rows):
        if row[1] != number:
            raise RanksError(
                f"this rank computes the backward pass of call {number} of distributed.attention, but rank {rank} "
                f"that of call {row[1]}. Call backward in the same order on every rank."
            )
    return [any(row[2 + place] for row in rows) for place in range(len(grads))], tensors


def _shown(error: Exception) -> list[int]:
    """Return the name and the first line of an error as integers that ranks can send."""
    text = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".encode()
    size = 8 * (NUMBERS - 1)
    return as_numbers(text[:size].ljust(size))


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

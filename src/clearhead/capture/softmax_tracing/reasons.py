"""Sentences that say why attention found by softmax tracing is not recorded."""

import math

from torch import Tensor, nn

from clearhead.capture.call import Call
from clearhead.capture.softmax_tracing import layouts
from clearhead.capture.softmax_tracing.traces import Softmax


def row_count_reason(module: nn.Module, calls: list[Call], outputs: list[Tensor]) -> str | None:
    """Return why weights do not match the rows of a module's output: it has as many rows as keys, but fewer queries.

    In Informer, only some queries attend, and the weights do not say which.
    """
    lengths = {
        math.prod(output.shape[start:stop])
        for output in outputs[:1]
        for start in range(output.dim())
        for stop in range(start + 1, output.dim() + 1)
    }
    for call in calls:
        rows, keys = call.query.shape[2], call.key.shape[2]
        if 1 < rows < keys and keys in lengths and rows not in lengths:
            return f"{type(module).__name__} attends from {rows} queries alone, and has {keys} rows of output"
    return None


def unfinished_reason(softmaxes: list[Softmax]) -> str:
    """Return why softmaxes that multiplied no values are not attention."""
    for softmax in softmaxes:
        if softmax.weights.given is None:
            continue
        if softmax.product is None:
            return "the logits of its softmax are not a product of queries and keys"
        if softmax.covered:
            return "only a part of its softmax multiplies values"
        return "its softmax multiplies no values in a product that Clearhead sees"
    return ""


def unnormalised_reason(module: nn.Module, step: str) -> str:
    """Why a module of any name that multiplies values by weights without a softmax is not recorded."""
    return (
        f"{type(module).__name__} multiplies a product of two tensors, changed by {step}, by a third one: if that is "
        "attention, its weights are not a softmax"
    )


def changed_weights_reason(
    softmax: Softmax, through: tuple[str, ...], now: layouts.Layout | None, summed: list[int]
) -> str:
    """Return why weights differ from the softmax they come from."""
    weights = softmax.weights
    if now is not None and not weights.runs_along(now, summed):
        if weights.touches(now, summed):
            return "multiplies values by a part of each row of its softmax: its keys are in several tensors, or a sink"
        return "sums its weights over another axis than its softmax"
    steps = ", ".join(dict.fromkeys(step.strip("_") for step in through))
    if steps:
        hint = " Call model.eval() to observe it without dropout." if "dropout" in steps else ""
        return f"changes its weights between the softmax and the values ({steps}).{hint}"
    if weights.is_exponential:
        return "multiplies its values by exponentials, and divides by their sum later"
    return "overwrites its weights between the softmax and the values"

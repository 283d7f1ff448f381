"""`explain`: the plan of `attention` for some arguments, as `plan.match` and `plan.plan` decide it."""

from typing import cast

from torch import Tensor

from clearhead import arguments
from clearhead.kernels import modes
from clearhead.kernels.calls import checks
from clearhead.kernels.calls.prepare import is_causal_rule, is_simple, matrix_takes, prepare
from clearhead.kernels.measured import costs
from clearhead.kernels.native.cpu_targets import current
from clearhead.kernels.plan import (
    FAST_PATH,
    NESTED,
    NO_MATCH,
    TORCH_FASTER,
    TORCH_FUNCTION,
    TORCH_FUSED,
    TORCHSCRIPT,
    Plan,
    cost_key,
    in_pieces,
    match,
    needs_gradients,
    plan,
)
from clearhead.masks import Mask
from clearhead.masks.kinds import from_causal_bias


@arguments.checked(
    nested=("query", "key", "value"),
    convert={"attn_mask": from_causal_bias},
)
def explain(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | Mask | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False, *, softcap: float | None = None,
    sinks: Tensor | None = None, return_lse: bool = False, return_matrix: bool = False, kernel: str | None = None,
) -> Plan:  # fmt: skip
    """Return how `attention` would compute a call here and now: path, kernel, CPU target and reason.

    Nothing is computed.

    Args, Raises: those of `attention`.

    Example:
        >>> import torch
        >>> q = torch.zeros(1, 2, 3, 5)
        >>> explain(q, q, q, kernel="reference")
        Plan(path='kernel', kernel='reference', target=None, reason='asked for by name')
        >>> explain(q.to("meta"), q.to("meta"), q.to("meta")).path
        'custom operator'
    """
    if is_causal_rule(attn_mask) and not is_causal:
        attn_mask, is_causal = None, True
    if is_simple(attn_mask, dropout_p, softcap, sinks, return_matrix, kernel):
        mask, with_lse = cast("Tensor | None", attn_mask), bool(return_lse)
        matched = match(query, key, value, is_causal, scale, mask, enable_gqa, with_lse)
        if matched != NO_MATCH:
            return _plan_of(matched, query, key, value)
    dropout_p, scale, softcap = map(checks.number, (dropout_p, scale, softcap))
    checks.tensors(query, key, value)
    if query.is_nested or key.is_nested or value.is_nested:
        q, k, v = (tensor.unbind()[0] for tensor in (query, key, value))
        each = explain(q, k, v, None, dropout_p, is_causal, scale, True, softcap=softcap, sinks=sinks, kernel=kernel)
        reason = f"each sequence is a separate call ({each.path}); {each.reason}"
        return Plan(NESTED, each.kernel, each.target, reason)
    if modes.traces_torchscript():
        return Plan(TORCHSCRIPT, kernel, None, "torch.jit.trace records one operator; each run plans again")
    checks.dropout(dropout_p)
    _, problem = prepare(
        query, key, value, attn_mask, is_causal, scale, enable_gqa, softcap, sinks, float(dropout_p),
        dense=return_matrix and not matrix_takes(attn_mask),
    )  # fmt: skip
    return plan(problem, kernel)


def _plan_of(matched: int, query: Tensor, key: Tensor, value: Tensor) -> Plan:
    """Return the plan of a call that `match` decided."""
    if matched == TORCH_FUSED:
        return Plan(TORCH_FUNCTION, "torch", None, "torch's function uses one of its fused operators on CUDA")
    target, why = current(query.dtype)
    if matched == TORCH_FASTER:
        call = cost_key(query, key, needs_gradients(query, key, value))
        return Plan(TORCH_FUNCTION, "torch", None, costs.why(*call))
    name = None if target is None else target.name
    reason = f"plain tensors with at most a mask; target {name} is {why}{in_pieces(name, query)}"
    return Plan(FAST_PATH, "native", name, reason)

"""One attention computation, described once: what every kernel is given and what it gives back."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Problem:
    """softmax(softcap(Q Kᵀ · scale) + bias, masked) V, already validated.

    Attributes:
        query: (B, H, L, D).
        key: (B, H_kv, S, D); H_kv divides H, query head h reads key head h // (H // H_kv).
        value: (B, H_kv, S, D_v).
        scale: logit multiplier, no unit.
        is_causal: top-left: query i may attend keys 0..i.
        allow: boolean, broadcastable to (B, H, L, S), True = may attend; None = everything.
        bias: float, broadcastable to (B, H, L, S), added to the logits; None = nothing.
        softcap: logits become softcap·tanh(logits / softcap) before bias and mask; None = off.
        sinks: (H,) extra logits that take weight and give no value; None = none.
        dropout_p: probability in [0, 1) that a weight is dropped; the rest are scaled by 1/(1-p).
        seed: names the dropout pattern, so that backward meets the same one.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    scale: float
    is_causal: bool = False
    allow: Tensor | None = None
    bias: Tensor | None = None
    softcap: float | None = None
    sinks: Tensor | None = None
    dropout_p: float = 0.0
    seed: int = 0

    @property
    def group(self) -> int:
        """How many query heads share one key head."""
        return self.query.shape[1] // self.key.shape[1]


@dataclass(frozen=True, slots=True)
class Result:
    """What a forward pass gives.

    Attributes:
        out: (B, H, L, D_v), query's dtype; 0 for a row that may attend nothing.
        lse: (B, H, L), float32 or wider, natural log of the row's sum of exp(logits); -inf for an empty row.
    """

    out: Tensor
    lse: Tensor


@dataclass(frozen=True, slots=True)
class Gradients:
    """Gradients of query, key, value and, where the problem has them, bias and sinks; each in its tensor's shape."""

    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None = None
    sinks: Tensor | None = None


class Kernel(Protocol):
    """One way to compute a Problem. Stateless; one instance a file, registered in `select.py`."""

    name: str

    def refuses(self, problem: Problem) -> str | None:
        """Why this kernel cannot compute the problem, in one line; None if it can."""

    def forward(self, problem: Problem) -> Result:
        """Compute output and log-sum-exp. Never sees a problem it refuses. Not differentiable."""

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        """Compute the gradients from what forward gave. `grad_lse` is None where the lse was not used."""

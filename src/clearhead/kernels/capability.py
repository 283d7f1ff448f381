"""Kernel capabilities: the protocol of every kernel, and its optional parts."""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from clearhead.kernels.problem import Gradients, Problem, Result
    from clearhead.kernels.second_pass import Statistics, Wanted


class Capability(Flag):
    """The parts of the protocol. A kernel lists those it implements in `capabilities`."""

    FORWARD = auto()
    GRADIENTS = auto()
    STATISTICS = auto()
    WEIGHTS = auto()
    LINEAR = auto()


class Kernel(Protocol):
    """An implementation that computes a Problem. Stateless; one class per file, listed in `registry.py`.

    Attributes:
        name: the name by which callers select it.
        capabilities: the parts of this protocol, and of the three below, that it implements.
        devices: the device types it computes on; empty for all of torch's.
        has_targets: whether it has a compiled copy for each CPU target (cpu_targets.py).
    """

    name: str
    capabilities: Capability
    devices: tuple[str, ...]
    has_targets: bool

    def unavailable(self) -> str | None:
        """Return why this machine cannot run this kernel at all, in one line; None if it can."""

    def describe(self) -> str:
        """Describe the kernel and what it runs on here, in one line. Called only if it is available."""

    def refuses(self, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
        """Return why this kernel does not have a capability for the problem, in one line; None if it has."""

    def forward(self, problem: Problem) -> Result:
        """Compute output and lse, without a graph. Never called with a problem it refuses."""

    def backward(self, problem: Problem, result: Result, grad_out: Tensor, grad_lse: Tensor | None) -> Gradients:
        """Compute the gradients, given the result of forward. `grad_lse` is None if the lse was not used."""

    def takes_some_keys(self, problem: Problem) -> bool:
        """Return whether `backward` accepts some of the keys with the result of all keys.

        It does if it computes each row's sum of dO · O from the output, not from the weights.
        """


class WithStatistics(Kernel, Protocol):
    """Has Capability.STATISTICS."""

    def statistics(
        self, problem: Problem, lse: Tensor, rows: range, keys: range, wanted: Wanted, statistics: Statistics
    ) -> None:
        """Write the wanted statistics of some rows and keys into `statistics`; sums over rows are accumulated."""

    def forward_with(self, problem: Problem, wanted: Wanted, statistics: Statistics) -> Result:
        """Compute `forward`, and write entropy, maximum, squares, mass and top-k of each row into `statistics`."""


class WithWeights(Kernel, Protocol):
    """Has Capability.WEIGHTS."""

    def forward_with_weights(
        self, problem: Problem, weights: Tensor, wanted: Wanted | None = None, statistics: Statistics | None = None
    ) -> Result:
        """Compute `forward` and the weights, (B, H, L, S); their mean over heads if heads have stride 0.

        With `wanted` and `statistics`, also what `forward_with` writes.
        """


class WithLinear(Kernel, Protocol):
    """Has Capability.LINEAR."""

    def refuses_linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> str | None:
        """Return why this kernel cannot compute the layer, in one line; None if it can."""

    def linear(
        self, x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, strides: tuple[int, ...], length: int
    ) -> None:
        """Write x weightᵀ + bias, (R, O), into `out`, whose last axis is one head's width, contiguous.

        Args:
            strides: the strides of `out`: batch, head, row, 1. Row r of the product is row r % length of batch
                r // length.
        """

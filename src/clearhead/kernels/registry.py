"""The kernels, in order of preference, and which of them has a capability."""

from dataclasses import dataclass
from typing import cast

from clearhead.kernels.capability import Capability, Kernel, WithLinear, WithStatistics, WithWeights
from clearhead.kernels.native.kernel import Native
from clearhead.kernels.portable.reference import Reference
from clearhead.kernels.portable.torch_sdpa import TorchSdpa
from clearhead.kernels.problem import Problem
from clearhead.kernels.triton.kernel import Triton

# The reference is never chosen: callers ask for it by name.
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (Native(), Triton(), TorchSdpa(), Reference())}


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether this machine can run a kernel at all, and why (for `clearhead doctor`)."""

    kernel: str
    available: bool
    reason: str


def available() -> list[Availability]:
    """Each kernel, and whether this machine can run it.

    >>> [(a.kernel, a.available) for a in available() if a.kernel == "reference"]
    [('reference', True)]
    """
    rows = []
    for name, kernel in KERNELS.items():
        why_not = kernel.unavailable()
        rows.append(Availability(name, why_not is None, why_not or kernel.describe()))
    return rows


def reason_against(kernel: Kernel, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
    """Why a kernel cannot compute this of a problem, in one line; None if it can."""
    if capability not in kernel.capabilities:
        return f"the {kernel.name} kernel has no {str(capability.name).lower()}"
    return kernel.unavailable() or kernel.refuses(problem, capability)


def with_gradients(name: str, problem: Problem) -> bool:
    """Whether a kernel computes the gradients of a problem on its own device, which an interpreter does not."""
    kernel = KERNELS[name]
    return problem.query.device.type in kernel.devices and reason_against(kernel, problem, Capability.GRADIENTS) is None


def with_statistics(problem: Problem, name: str | None = None) -> WithStatistics | str:
    """The kernel that computes statistics of a problem, the one of a name if one is given; or why none can."""
    return cast(WithStatistics | str, _first(problem, Capability.STATISTICS, name))


def with_weights(problem: Problem) -> WithWeights | str:
    """The kernel that computes output and dense weights of a problem, or why none can."""
    return cast(WithWeights | str, _first(problem, Capability.WEIGHTS))


def with_linear() -> WithLinear | None:
    """The kernel that computes linear layers on this machine; None where there is none."""
    for kernel in KERNELS.values():
        if Capability.LINEAR in kernel.capabilities and kernel.unavailable() is None:
            return cast(WithLinear, kernel)
    return None


def _first(problem: Problem, capability: Capability, name: str | None = None) -> Kernel | str:
    """The first kernel for the problem's device that can, or the one of a name; else the first reason why not."""
    reasons = []
    device = problem.query.device.type
    for kernel in KERNELS.values() if name is None else [KERNELS[name]]:
        if capability in kernel.capabilities:
            why_not = reason_against(kernel, problem, capability)
            if why_not is None and (name is not None or not kernel.devices or device in kernel.devices):
                return kernel
            reasons.append(why_not or f"it runs on {' and '.join(kernel.devices)}")
    return reasons[0] if reasons else "no kernel can"

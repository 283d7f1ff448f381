"""The kernels in order of preference, and look-up by capability."""

from dataclasses import dataclass
from typing import cast

from clearhead.errors import ClearheadError
from clearhead.kernels.capability import Capability, Kernel, WithLinear, WithStatistics, WithWeights
from clearhead.kernels.native.kernel import Native
from clearhead.kernels.portable.reference import Reference
from clearhead.kernels.portable.torch_sdpa import TorchSdpa
from clearhead.kernels.problem import Problem
from clearhead.kernels.triton.kernel import Triton

# The reference is never chosen automatically, only by name.
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (Native(), Triton(), TorchSdpa(), Reference())}


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether this machine can run a kernel, and why (for `clearhead doctor`)."""

    kernel: str
    available: bool
    reason: str


def available() -> list[Availability]:
    """Return each kernel, and whether this machine can run it. A forced CPU target that it cannot run is a reason.

    >>> [(a.kernel, a.available) for a in available() if a.kernel == "reference"]
    [('reference', True)]
    """
    rows = []
    for name, kernel in KERNELS.items():
        reason = kernel.unavailable()
        try:
            rows.append(Availability(name, reason is None, reason or kernel.describe()))
        except ClearheadError as error:
            rows.append(Availability(name, False, str(error)))
    return rows


def reason_against(kernel: Kernel, problem: Problem, capability: Capability = Capability.FORWARD) -> str | None:
    """Return why a kernel does not have a capability for a problem, in one line; None if it has."""
    if capability not in kernel.capabilities:
        return f"the {kernel.name} kernel has no {str(capability.name).lower()}"
    return kernel.unavailable() or kernel.refuses(problem, capability)


def with_gradients(name: str, problem: Problem) -> bool:
    """Return whether a kernel computes the gradients of a problem on its own device, not in an interpreter."""
    kernel = KERNELS[name]
    return problem.query.device.type in kernel.devices and reason_against(kernel, problem, Capability.GRADIENTS) is None


def with_statistics(problem: Problem, name: str | None = None) -> WithStatistics | str:
    """Return the kernel (of this name, if given) that computes statistics of a problem, or why none can."""
    return cast(WithStatistics | str, _first(problem, Capability.STATISTICS, name))


def with_weights(problem: Problem) -> WithWeights | str:
    """Return the kernel that computes output and dense weights of a problem, or why none can."""
    return cast(WithWeights | str, _first(problem, Capability.WEIGHTS))


def with_linear() -> WithLinear | None:
    """Return the kernel that computes linear layers on this machine; None if there is none."""
    for kernel in KERNELS.values():
        if Capability.LINEAR in kernel.capabilities and kernel.unavailable() is None:
            return cast(WithLinear, kernel)
    return None


def _first(problem: Problem, capability: Capability, name: str | None = None) -> Kernel | str:
    """Return the first kernel (of this name, if given) with the capability for the problem, else the first reason."""
    reasons = []
    device = problem.query.device.type
    for kernel in KERNELS.values() if name is None else [KERNELS[name]]:
        if capability in kernel.capabilities:
            reason = reason_against(kernel, problem, capability)
            if reason is None and (name is not None or not kernel.devices or device in kernel.devices):
                return kernel
            reasons.append(reason or f"it runs on {' and '.join(kernel.devices)}")
    return reasons[0] if reasons else "no kernel can"

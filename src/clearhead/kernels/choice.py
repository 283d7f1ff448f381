"""Which kernel computes a problem, and why."""

from dataclasses import dataclass, field

from clearhead.errors import KernelError
from clearhead.kernels.native import Native
from clearhead.kernels.problem import Kernel, Problem
from clearhead.kernels.reference import Reference
from clearhead.kernels.torch_sdpa import TorchSdpa

# In order of preference. The reference is never chosen by itself: it is there to be asked for.
KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in (Native(), TorchSdpa(), Reference())}


@dataclass(frozen=True, slots=True)
class Choice:
    """The kernel for a problem.

    Attributes:
        kernel: its name.
        reason: why this one, in one line.
        refused: name -> why not, for each kernel that was passed over.
    """

    kernel: str
    reason: str
    refused: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether this machine can run a kernel at all, and why (for `clearhead doctor`)."""

    kernel: str
    available: bool
    reason: str


def select(problem: Problem, kernel: str | None = None) -> Choice:
    """Choose the kernel for a problem, or check the one that was asked for.

    Raises:
        KernelError: no kernel has that name, or it cannot compute this problem; says which can.

    Example:
        >>> import torch
        >>> q = torch.zeros(1, 2, 3, 5)
        >>> select(Problem(q, q, q, scale=1.0), kernel="reference")
        Choice(kernel='reference', reason='asked for by name', refused={})
    """
    if kernel is not None:
        if kernel not in KERNELS:
            raise KernelError(f"there is no kernel named {kernel!r}. The kernels are {', '.join(KERNELS)}.")
        why_not = _refusal(KERNELS[kernel], problem)
        if why_not is not None:
            able = [name for name, other in KERNELS.items() if _refusal(other, problem) is None]
            raise KernelError(
                f"kernel {kernel!r} cannot compute this: {why_not}. "
                f"Use kernel={' or '.join(repr(name) for name in able)}, or kernel=None to let Clearhead choose."
            )
        return Choice(kernel, "asked for by name")
    refused: dict[str, str] = {}
    for name, candidate in KERNELS.items():
        why_not = _refusal(candidate, problem)
        if why_not is None:
            reason = f"the first that can; {'; '.join(f'{n}: {r}' for n, r in refused.items())}" if refused else ""
            return Choice(name, reason or "the fastest that can", refused)
        refused[name] = why_not
    raise KernelError("no kernel can compute this: " + "; ".join(f"{n}: {r}" for n, r in refused.items()))


def available() -> list[Availability]:
    """Say of each kernel whether this machine can run it.

    >>> [(a.kernel, a.available) for a in available() if a.kernel == "reference"]
    [('reference', True)]
    """
    answers = []
    for name, kernel in KERNELS.items():
        why_not = kernel.unavailable()
        answers.append(Availability(name, why_not is None, why_not or kernel.describe()))
    return answers


def pick(problem: Problem, kernel: str | None) -> Kernel:
    """The kernel that `select` would choose, without the reasons: they cost more than a small problem does."""
    if kernel is None:
        for candidate in KERNELS.values():
            if _refusal(candidate, problem) is None:
                return candidate
    return KERNELS[select(problem, kernel).kernel]


def _refusal(kernel: Kernel, problem: Problem) -> str | None:
    return kernel.unavailable() or kernel.refuses(problem)

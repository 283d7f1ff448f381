"""How to compute attention: one Problem, several kernels that all give the same Result. See README.md."""

from clearhead.kernels.autograd import run
from clearhead.kernels.choice import Availability, Choice, available, select
from clearhead.kernels.native import Target, target, targets
from clearhead.kernels.problem import Gradients, Kernel, Problem, Result

__all__ = [
    "Availability",
    "Choice",
    "Gradients",
    "Kernel",
    "Problem",
    "Result",
    "Target",
    "available",
    "run",
    "select",
    "target",
    "targets",
]

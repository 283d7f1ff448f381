"""How to compute attention: one Problem, several kernels that all give the same Result. See README.md."""

from clearhead.kernels.autograd import run
from clearhead.kernels.choice import Availability, Choice, available, select
from clearhead.kernels.native import Target, target, targets
from clearhead.kernels.problem import Gradients, Kernel, Problem, Result
from clearhead.kernels.second_pass import Cells, Statistics, Wanted, statistics

__all__ = [
    "Availability",
    "Cells",
    "Choice",
    "Gradients",
    "Kernel",
    "Problem",
    "Result",
    "Statistics",
    "Target",
    "Wanted",
    "available",
    "run",
    "select",
    "statistics",
    "target",
    "targets",
]

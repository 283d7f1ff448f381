"""How to compute attention: one Problem, several kernels that all give the same Result. See README.md."""

from clearhead.kernels.autograd import run
from clearhead.kernels.choice import Availability, Choice, available, select
from clearhead.kernels.dense import with_weights
from clearhead.kernels.native import starts_with_0_or_1
from clearhead.kernels.precision import autocast, in_own_dtype, is_autocast
from clearhead.kernels.problem import Gradients, Kernel, Problem, Result
from clearhead.kernels.projection import native_wins, project, project_to_heads
from clearhead.kernels.second_pass import Cells, Statistics, Wanted, run_with, statistics
from clearhead.kernels.short import attend, attend_with_lse
from clearhead.kernels.targets import Target, target, targets
from clearhead.kernels.tracing import refuse_tracing, untraced

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
    "attend",
    "attend_with_lse",
    "autocast",
    "available",
    "in_own_dtype",
    "is_autocast",
    "native_wins",
    "project",
    "project_to_heads",
    "refuse_tracing",
    "run",
    "run_with",
    "select",
    "starts_with_0_or_1",
    "statistics",
    "target",
    "targets",
    "untraced",
    "with_weights",
]

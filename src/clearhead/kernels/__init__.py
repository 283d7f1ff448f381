"""Compute attention: one Problem, several kernels that all give the same Result. See README.md."""

from clearhead.kernels.autograd import run, run_planned
from clearhead.kernels.capability import Capability, Kernel
from clearhead.kernels.dense import run_with_weights, with_weights
from clearhead.kernels.explanation import explain
from clearhead.kernels.fast_path import attend, attend_with_lse
from clearhead.kernels.native.cpu_targets import Target, target, targets
from clearhead.kernels.plan import Choice, Plan, select
from clearhead.kernels.precision import autocast, in_own_dtype, is_autocast
from clearhead.kernels.problem import Gradients, Problem, Result
from clearhead.kernels.projection import linear_is_faster, project, project_to_heads
from clearhead.kernels.registry import Availability, available
from clearhead.kernels.second_pass import Cells, Statistics, Wanted, run_with, statistics
from clearhead.kernels.tracing import refuse_tracing, untraced

__all__ = [
    "Availability",
    "Capability",
    "Cells",
    "Choice",
    "Gradients",
    "Kernel",
    "Plan",
    "Problem",
    "Result",
    "Statistics",
    "Target",
    "Wanted",
    "attend",
    "attend_with_lse",
    "autocast",
    "available",
    "explain",
    "in_own_dtype",
    "is_autocast",
    "linear_is_faster",
    "project",
    "project_to_heads",
    "refuse_tracing",
    "run",
    "run_planned",
    "run_with",
    "run_with_weights",
    "select",
    "statistics",
    "target",
    "targets",
    "untraced",
    "with_weights",
]

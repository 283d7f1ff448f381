"""The plan of a call: its path, its kernel and its CPU target, and why. Everything is decided here, once a call.

`match` is the decision for plain tensors, which the library also makes for `attend` (fast_path.py); `plan` that for
every other call, once it is described.
`explanation.explain` says, for the arguments of `attention`, what these two decide.
"""

from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.autograd import forward_ad

from clearhead.errors import KernelError
from clearhead.kernels import modes
from clearhead.kernels.calls.prepare import records_operators
from clearhead.kernels.capability import Kernel
from clearhead.kernels.measured import costs
from clearhead.kernels.measured.costs import table_of
from clearhead.kernels.native import cpu_targets
from clearhead.kernels.native.call import float32_pieces
from clearhead.kernels.native.cpu_targets import current, forced
from clearhead.kernels.native.library import library, reads_tensors
from clearhead.kernels.portable import torch_cuda
from clearhead.kernels.portable.torch_sdpa import flash_can
from clearhead.kernels.problem import Problem, carries_tangent
from clearhead.kernels.registry import KERNELS, reason_against
from clearhead.kernels.triton.kernel import Triton, slower_than_torch
from clearhead.masks import Mask

FAST_PATH = "fast path"
TORCH_FUNCTION = "torch function"
KERNEL = "kernel"
CHUNKED_RULE = "chunked rule"
CUSTOM_OPERATOR = "custom operator"
TORCHSCRIPT = "TorchScript operator"
DECOMPOSED = "decomposed"
TORCH_STEPS = "torch steps"
NESTED = "nested"


class Plan(NamedTuple):
    """How a call is computed.

    Attributes:
        path: "fast path" (the library reads the caller's tensors), "torch function" (torch's own function is called
            on them), "kernel" (the call is described, then given to a kernel), "chunked rule" (the same, a block of
            queries at a time), "custom operator" (torch.compile, export, vmap and tracers record one operator),
            "TorchScript operator", "decomposed" (torch's operators, for ONNX), "torch steps" (differentiable any
            number of times and forward) or "nested" (each sequence by itself).
        kernel: its name; None where torch's steps alone compute, or the operator decides each time it runs.
        target: the CPU target of the native kernel; None for the others.
        reason: why, in a sentence.
    """

    path: str
    kernel: str | None
    target: str | None
    reason: str


# What `match` answers; the library has the same numbers (native/binding/fast_path.cpp).
NO_MATCH, NATIVE, NATIVE_GRADIENTS, TORCH_FASTER, TORCH_FUSED, UNREADABLE = range(6)
# Bound once, because `match` runs before every small attention: behind a backward pass a look-up by name takes 0.2 µs.
_compiler, _is_dynamo_compiling = torch.compiler, torch.compiler.is_dynamo_compiling
_match = library.match if reads_tensors else None


def match(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None, grouped: bool,
    with_lse: bool = False, learns: bool | None = None, watched: bool | None = None,
) -> int:  # fmt: skip
    """Which path a call on plain tensors takes: NO_MATCH, NATIVE, NATIVE_GRADIENTS, TORCH_FASTER or TORCH_FUSED.

    It matches tensors of torch's own class, or parameters, on the CPU, of one float dtype, none empty, query
    (B, H, L, D), key (B, H_kv, S, D), value (B, H_kv, S, E); a mask that spreads to (B, H, L, S), bool, float32 or of
    their dtype, or None. B may be 1 for key and value, H_kv too, and with `grouped` H_kv divides H. All may lack B, or
    B and H. It does not match a mask that learns, a call that torch records, transforms or watches, or one that needs
    gradients and gives the lse. On CUDA, TORCH_FUSED: a call without mask and lse for which torch has a fused operator.

    Args:
        learns: whether it needs gradients; None = as autograd does.
        watched: whether torch records, transforms or watches it; None = look. False below torch's dispatcher.
    """
    looks = watched is None
    if _match is None or (looks and (_is_dynamo_compiling() or _compiler._is_compiling_flag)):
        return NO_MATCH
    matched: int = _match(
        table_of(forced.get()), looks, query, key, value, mask, grouped, is_causal, scale, with_lse, learns
    )
    if matched == UNREADABLE:
        fused = not with_lse and takes_fused(query, key, value, is_causal, scale, mask, grouped)
        return TORCH_FUSED if fused else NO_MATCH
    if forward_ad._current_level >= 0 and matched != NO_MATCH and carries_tangent(query, key, value, mask):
        return NO_MATCH
    return matched


def takes_fused(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool, scale: float | None, mask: Tensor | None, grouped: bool
) -> bool:
    """Return whether torch has a fused operator for a call of UNREADABLE tensors, which may be on a GPU."""
    if mask is not None or type(query) is not Tensor or not query.is_cuda:
        return False
    return torch_cuda.takes(query, key, value, is_causal, scale, grouped)


def forget() -> None:
    """Look at the environment, the targets and the measured costs again at the next call."""
    cpu_targets.forget()
    costs.forget()


def needs_gradients(*tensors: Tensor | None) -> bool:
    """Whether autograd records, and a tensor requires a gradient."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def plan(problem: Problem, kernel: str | None = None) -> Plan:
    """Decide how a described call is computed.

    Args:
        problem: what to compute; its attention may hold a mask that stays a rule.
        kernel: the name of the kernel to use; None chooses.
    Raises:
        KernelError: no kernel has the name asked for, or it cannot compute this; says which can.

    Example:
        >>> q = torch.zeros(1, 2, 3, 5)
        >>> plan(Problem(q, q, q), kernel="reference")
        Plan(path='kernel', kernel='reference', target=None, reason='asked for by name')
    """
    rule = problem.attention.rule
    if modes.differentiates_forward() and rule is None and kernel in (None, "torch"):
        return Plan(TORCH_STEPS, None, None, "forward-mode differentiation looks into every step")
    if records_operators(problem):
        if modes.exports_to_onnx():
            return Plan(DECOMPOSED, None, None, "ONNX has no operator of ours")
        return Plan(CUSTOM_OPERATOR, kernel, None, "torch records or transforms operators; each run plans again")
    if rule is None:
        chosen, refused = choose(problem, kernel)
        target = _target_of(chosen, problem)
        return Plan(KERNEL, chosen.name, target, _why(kernel, refused) + in_pieces(target, problem.query))
    chosen, refused = choose(_block_of(problem, cast(Mask, rule)), kernel)
    reason = f"the mask is too large for a tensor, so a block of queries at a time; {_why(kernel, refused)}"
    return Plan(CHUNKED_RULE, chosen.name, _target_of(chosen, problem), reason)


def _target_of(kernel: Kernel, problem: Problem) -> str | None:
    target = current(problem.query.dtype)[0] if kernel.has_targets else None
    return None if target is None else target.name


def _block_of(problem: Problem, rule: Mask) -> Problem:
    """A problem with a mask and a bias of the kind that the rule's blocks have."""
    first = range(1)
    allow = rule.allow.block(first, first, device=problem.query.device) if rule.allow is not None else None
    bias = rule.bias.bias_block(first, first, device=problem.query.device) if rule.bias is not None else None
    return problem.change(rule=None, allow=allow, bias=bias)


def choose(problem: Problem, kernel: str | None = None) -> tuple[Kernel, dict[str, str]]:
    """The kernel for a problem, and why not, by name, of each kernel that was passed over.

    Raises:
        KernelError: no kernel has the name asked for, or it cannot compute this; says which can.
    """
    if kernel is not None:
        return _asked_for(problem, kernel), {}
    refused: dict[str, str] = {}
    for name, candidate in KERNELS.items():
        why_not = reason_against(candidate, problem) or _slower(candidate, problem)
        if why_not is None:
            return candidate, refused
        refused[name] = why_not
    raise KernelError("no kernel can compute this: " + _listed(refused))


def _asked_for(problem: Problem, name: str) -> Kernel:
    if name not in KERNELS:
        raise KernelError(f"there is no kernel named {name!r}. The kernels are {', '.join(KERNELS)}.")
    why_not = reason_against(KERNELS[name], problem)
    if why_not is not None:
        able = [other for other, kernel in KERNELS.items() if reason_against(kernel, problem) is None]
        raise KernelError(
            f"kernel {name!r} cannot compute this: {why_not}. "
            f"Use kernel={' or '.join(map(repr, able))}, or kernel=None to let Clearhead choose."
        )
    return KERNELS[name]


def _slower(kernel: Kernel, problem: Problem) -> str | None:
    """Why torch's function is faster than a kernel for a problem that both compute, in one line; None if it is not."""
    if not kernel.has_targets:
        return slower_than_torch(problem) if kernel.name == Triton.name else None
    call = cost_key(problem.query, problem.key, problem.learns())
    # What torch's function cannot compute, the torch kernel does in float32, a block at a time, which is slower still:
    # a soft cap of 30 on bfloat16 (1, 8, 512, 64) takes 120 ms there and 33 here (one thread of a Xeon with AMX).
    # With gradients both kernels' backward passes are Python here, so only instructions that ours lacks make up for it.
    saves = costs.torch_saves(*call) or 0.0
    least = costs.ALWAYS if problem.learns() else costs.DESCRIBING
    if saves < least or not flash_can(problem) or (torch.is_grad_enabled() and problem.attention.learning()):
        return None
    return costs.why(*call)


def cost_key(query: Tensor, key: Tensor, learns: bool) -> tuple[torch.dtype, bool, torch.Size, int, int]:
    """What the costs of a call depend on."""
    return query.dtype, learns, query.shape, key.shape[-2], torch.get_num_threads()


def _why(kernel: str | None, refused: dict[str, str]) -> str:
    if kernel is not None:
        return "asked for by name"
    return f"the first that can; {_listed(refused)}" if refused else "the fastest that can"


def _listed(refused: dict[str, str]) -> str:
    return "; ".join(f"{name}: {reason}" for name, reason in refused.items())


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


def select(problem: Problem, kernel: str | None = None) -> Choice:
    """Choose the kernel for a problem, or check the one that was asked for.

    Raises:
        KernelError: no kernel has that name, or it cannot compute this problem; says which can.

    Example:
        >>> q = torch.zeros(1, 2, 3, 5)
        >>> select(Problem(q, q, q), kernel="reference")
        Choice(kernel='reference', reason='asked for by name', refused={})
    """
    chosen, refused = choose(problem, kernel)
    return Choice(chosen.name, _why(kernel, refused), refused)


def in_pieces(target: str | None, query: Tensor) -> str:
    """What the caller's matmul precision makes of products on tile registers, to append to a reason; else ""."""
    pieces = float32_pieces(query.dtype)
    if pieces == 0 or target is None or not cpu_targets.has_tiles(target):
        return ""
    precision = torch.get_float32_matmul_precision()
    return f"; float32 is multiplied as {pieces} bfloat16, because torch's matmul precision is {precision!r}"

"""The mask of a problem in the form that torch's fused operators take, and the rows that it leaves empty."""

import torch
from torch import Tensor

from clearhead.kernels.portable.blockwise import EMPTY
from clearhead.kernels.precision import wide
from clearhead.kernels.problem import Problem
from clearhead.spec import four_axes


def added_mask(problem: Problem) -> Tensor | None:
    """Return the mask as it is added to the logits: four axes, not expanded, without a graph; None without a mask.

    It is float32 if the bias and the query differ in dtype: in a 16-bit dtype -1e5 could become -inf, and 100 has no
    digits after the point.
    """
    allow, bias, dtype = problem.attention.allow, problem.attention.bias, problem.query.dtype
    if allow is not None:
        mask = torch.zeros(allow.shape, dtype=dtype, device=allow.device).masked_fill_(~allow, -torch.inf)
    elif bias is not None:
        mask = bias.detach() if bias.dtype == dtype else bias.detach().to(wide(dtype))
    else:
        return None
    return four_axes(mask)


def empty_rows(problem: Problem) -> Tensor | None:
    """Return which rows the mask leaves empty, bool (B, H, L), without synchronising; None without a mask."""
    allow, bias = problem.attention.allow, problem.attention.bias
    if allow is not None:
        empty = ~four_axes(allow).any(-1)
    elif bias is not None:
        empty = (four_axes(bias.detach()).to(wide(bias.dtype)) < EMPTY).all(-1)  # float16 cannot represent EMPTY
    else:
        return None
    return empty.expand(problem.query.shape[:3])

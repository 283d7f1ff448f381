"""Attention for TorchScript: `torch.ops.clearhead.attention`, which torch.jit.trace records and torch.jit.script calls.

While torch.jit.trace records, sizes are tensors, and a branch on a size would become a constant of the graph. So the
whole call is recorded as one operator, which dispatches each time it runs.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from clearhead import kernels
from clearhead.errors import OptionError
from clearhead.masks import Mask

_library = torch.library.Library("clearhead", "FRAGMENT")
_ARGUMENTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, "
    "float? scale=None, bool enable_gqa=False, *, float? softcap=None, Tensor? sinks=None"
)


def define(attention: Callable[..., Any]) -> None:
    """Register `attention` as an operator of torch, and let torch.jit.script compile calls of it into that operator."""
    _library.define(f"attention({_ARGUMENTS}, bool return_lse=False, str? kernel=None) -> Tensor")
    _library.define(f"attention_with_lse({_ARGUMENTS}, str? kernel=None) -> (Tensor, Tensor)")

    def output(*args: Any, return_lse: bool = False, **options: Any) -> Tensor:
        if return_lse:
            raise OptionError(
                "in TorchScript attention returns only the output. For the lse call "
                "torch.ops.clearhead.attention_with_lse, with the same arguments."
            )
        return attention(*args, **options)

    def with_lse(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        return attention(*args, **options, return_lse=True)

    _library.impl("attention", output, "CompositeImplicitAutograd")
    _library.impl("attention_with_lse", with_lse, "CompositeImplicitAutograd")
    torch.jit._builtins._register_builtin(attention, "clearhead::attention")


def record(*args: Any, return_lse: bool, return_matrix: bool, **options: Any) -> Any:
    """Call `attention` as one operator, which torch.jit.trace records."""
    if return_matrix:
        kernels.refuse_tracing("return_matrix=True, which returns an AttentionMatrix instead of a tensor")
    query, key, value, mask, *others = args
    if isinstance(mask, Mask):
        mask = _as_tensor(mask, query, key)
    operators = torch.ops.clearhead
    operator = operators.attention_with_lse if return_lse else operators.attention
    return operator(query, key, value, mask, *others, **options)


@kernels.untraced
def _as_tensor(mask: Mask, query: Tensor, key: Tensor) -> Tensor | None:
    """Return a mask as a tensor of this call's sizes: a constant of the graph, which does not fit other sizes."""
    rows, cols = range(query.shape[-2]), range(key.shape[-2])
    allow = None if mask.allow is None else mask.allow.block(rows, cols, device=query.device)
    bias = None if mask.bias is None else mask.bias.bias_block(rows, cols, device=query.device)
    tensor = allow if bias is None else bias if allow is None else bias.masked_fill(~allow, -torch.inf)
    if tensor is None or query.dim() >= 4:
        return tensor
    if query.dim() == 3:
        return tensor[:, 0] if tensor.shape[1] == 1 else tensor[0]
    return tensor[0, 0]

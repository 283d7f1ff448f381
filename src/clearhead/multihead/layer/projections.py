"""The module's projections: from the caller's (B, L, E) or (L, B, E) into heads, and from heads back."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from clearhead import kernels
from clearhead.kernels import modes

if TYPE_CHECKING:
    from clearhead.multihead.layer.module import MultiheadAttention


def inward(module: "MultiheadAttention", query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Project query, key and value, and split them into heads: (B, H, L, D), (B, H_kv, S, D) twice."""
    narrow = module.num_kv_heads * module.head_dim
    sizes = [module.embed_dim, narrow, narrow]
    packed = module._qkv_same_embed_dim
    weights = (
        module.in_proj_weight.split(sizes)
        if packed
        else (module.q_proj_weight, module.k_proj_weight, module.v_proj_weight)
    )
    biases = (None, None, None) if module.in_proj_bias is None else module.in_proj_bias.split(sizes)
    if not modes.records_operators(query) and kernels.linear_is_faster(query, weights[0], biases[0]):
        # The output of attention has the layout of the queries, so those stay in the caller's layout and merging heads
        # is free. A key is read once per block of queries, so the rows of one head are made contiguous.
        q = split_heads(module, kernels.project(query, weights[0], biases[0]))
        if packed and key is value:
            both = module.in_proj_weight[module.embed_dim :]
            bias = None if module.in_proj_bias is None else module.in_proj_bias[module.embed_dim :]
            k, v = _to_heads(module, key, both, bias).split(module.num_kv_heads, 1)
            return q, k, v
        return q, _to_heads(module, key, weights[1], biases[1]), _to_heads(module, value, weights[2], biases[2])
    if packed and query is key and key is value:
        parts = F.linear(query, module.in_proj_weight, module.in_proj_bias).split(sizes, -1)
    else:
        parts = map(F.linear, (query, key, value), weights, biases)
    q, k, v = (split_heads(module, part) for part in parts)
    return q, k, v


def outward(module: "MultiheadAttention", heads: Tensor) -> Tensor:
    """Merge heads (B, H, L, D) and project them: (B, L, E) or (L, B, E)."""
    x = (heads.transpose(1, 2) if module.batch_first else heads.permute(2, 0, 1, 3)).flatten(-2)
    last = module.out_proj
    if not _is_unmodified(last) or modes.records_operators(x):
        return last(x)
    return kernels.project(x, last.weight, last.bias)


def _is_unmodified(last: torch.nn.Module) -> bool:
    """Return whether the linear layer has torch's class and `forward`, without hooks or parametrizations."""
    attributes = last.__dict__
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return (
        type(last) is torch.nn.modules.linear.NonDynamicallyQuantizableLinear
        and "forward" not in attributes
        and not any(attributes[name] for name in hooks)
        and not torch.nn.modules.module._has_any_global_hook()
    )


def split_heads(module: "MultiheadAttention", x: Tensor) -> Tensor:
    """Split (B, L, H·D) or (L, B, H·D) into heads, (B, H, L, D): a view."""
    x = x.unflatten(-1, (-1, module.head_dim))
    return x.transpose(1, 2) if module.batch_first else x.permute(1, 2, 0, 3)


def _to_heads(module: "MultiheadAttention", x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return kernels.project_to_heads(x, weight, bias, module.head_dim, module.batch_first)

"""Convert the textbook class whose heads share one small projection to `MultiheadAttention`, exactly.

The class reshapes (B, L, H·D) to (B, L, H, D) first and then applies one Linear(D, D) to every head. In the paper each
head has its own E×D projection: 3·E·E numbers where that class has 3·D·D. The class is equivalent to a block-diagonal
projection that has the same block H times.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from clearhead.errors import OptionError, ShapeError
from clearhead.multihead.layer.shared_scale import find_scale

if TYPE_CHECKING:
    from clearhead.multihead.layer.module import MultiheadAttention


def block_diagonal(block: Tensor, times: int) -> Tensor:
    """Return (times·D, times·D) with the block (D, D) repeated on the diagonal.

    >>> block_diagonal(torch.tensor([[5.0]]), 2).tolist()
    [[5.0, 0.0], [0.0, 5.0]]
    """
    return torch.block_diag(*[block] * times)


def load_shared_heads(
    cls: type["MultiheadAttention"],
    source: torch.nn.Module | Mapping[str, Tensor],
    num_heads: int | None,
    scale: float | None,
) -> "MultiheadAttention":
    """Convert a module with shared heads; see MultiheadAttention.from_shared_heads."""
    if num_heads is None:
        num_heads = getattr(source, "heads", None)
        if num_heads is None:
            raise OptionError("num_heads is not given and the source has no `heads`. Pass num_heads.")
    state = source.state_dict() if isinstance(source, torch.nn.Module) else dict(source)
    for name in ("queries.weight", "keys.weight", "values.weight", "fc_out.weight"):
        if name not in state:
            raise OptionError(f"the source has no {name}; it has {', '.join(state)}. Rename its weights to these.")
    head_dim, joined = state["queries.weight"].shape[0], state["fc_out.weight"].shape[1]
    embed_dim = state["fc_out.weight"].shape[0]
    for name in ("queries.weight", "keys.weight", "values.weight"):
        if tuple(state[name].shape) != (head_dim, head_dim) or head_dim * num_heads != joined or joined != embed_dim:
            raise ShapeError(
                f"{name} is {tuple(state[name].shape)} and fc_out.weight {tuple(state['fc_out.weight'].shape)}, with "
                f"{num_heads} heads; expected (D, D) and (H·D, H·D). If the weights are (H·D, H·D), the heads do not "
                f"share them: load them as in_proj_weight."
            )
    out_weight = state["fc_out.weight"]
    biased = any(f"{name}.bias" in state for name in ("queries", "keys", "values", "fc_out"))
    module = cls(embed_dim, num_heads, bias=biased, batch_first=True, device=out_weight.device, dtype=out_weight.dtype)
    # Our module scales logits by 1/sqrt(head_dim); a different scale of the source is folded into the queries.
    if scale is None and isinstance(source, torch.nn.Module) and type(source).forward is not torch.nn.Module.forward:
        scale = find_scale(source, state, num_heads)
    stretch = 1.0 if scale is None else scale * head_dim**0.5
    factors = {"queries": stretch, "keys": 1.0, "values": 1.0}
    with torch.no_grad():
        blocks = [block_diagonal(state[f"{name}.weight"] * factor, num_heads) for name, factor in factors.items()]
        module.in_proj_weight.copy_(torch.cat(blocks))
        module.out_proj.weight.copy_(out_weight)
        if biased:
            zero = torch.zeros(head_dim, device=out_weight.device, dtype=out_weight.dtype)
            rows = [(state.get(f"{name}.bias", zero) * factor).repeat(num_heads) for name, factor in factors.items()]
            module.in_proj_bias.copy_(torch.cat(rows))
            if "fc_out.bias" in state:
                module.out_proj.bias.copy_(state["fc_out.bias"])
    return module

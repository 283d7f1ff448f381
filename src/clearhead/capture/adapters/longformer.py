"""Describe Longformer and LED as one matrix: a window of keys around each query, and global tokens.

Global tokens attend to all tokens, and all attend to them. They have their own projections. With queries [q, 0] for
ordinary rows and [0, q_global] for global ones, and keys [k, k_global], one matrix holds both.
"""

from typing import Any

import torch
from torch import Tensor, nn

from clearhead.capture.call import Call
from clearhead.matrix.inputs import RowValues
from clearhead.spec import Attention

CLASSES = ("LongformerSelfAttention", "LEDEncoderSelfAttention")


def describe(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
    """Return the Call of one pass of the module, from its arguments: (hidden_states, attention_mask, …).

    Queries and keys are projected again, which is cheap compared with the attention. The output does not change.
    """
    given = dict(zip(("hidden_states", "attention_mask"), args, strict=False)) | kwargs
    hidden, marks = given["hidden_states"], given["attention_mask"]  # marks: (B, L), < 0 padding, > 0 global
    heads, width = module.num_heads, module.head_dim

    def project(layer: nn.Module) -> Tensor:
        return layer(hidden).unflatten(-1, (heads, width)).transpose(1, 2)

    with torch.no_grad():
        query, key, value = project(module.query), project(module.key), project(module.value)
        everywhere, padding = marks > 0, marks < 0
        row_values = None
        allow = _allowed(everywhere, padding, module.one_sided_attn_window_size)
        if bool(everywhere.any()):
            rows = everywhere[:, None, :, None]
            query, key = (
                torch.cat([query.masked_fill(rows, 0.0), project(module.query_global).masked_fill(~rows, 0.0)], -1),
                torch.cat([key, project(module.key_global)], -1),
            )
            row_values = RowValues(everywhere, project(module.value_global))
    return Call(
        module=module,
        query=query,
        key=key,
        attention=Attention(width**-0.5),
        mask=allow,
        value=value,
        out=output[0],
        rows=(~everywhere.any(0)).nonzero().flatten().tolist(),  # global rows use values of their own projection
        row_values=row_values,
    )


def _allowed(everywhere: Tensor, padding: Tensor, reach: int) -> Tensor:
    """(B, 1, L, L): which tokens each token may attend to; a padded token attends to none."""
    place = torch.arange(everywhere.shape[1], device=everywhere.device)
    near = (place[:, None] - place).abs() <= reach
    allow = near | everywhere[:, None, :] | everywhere[:, :, None]
    return (allow & ~padding[:, None, :] & ~padding[:, :, None])[:, None]

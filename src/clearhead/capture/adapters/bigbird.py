"""Describe BigBird and BigBird-Pegasus as one matrix.

A block of queries attends to the first and the last block of keys, to its neighbours, and to a few random blocks. The
model counts a block twice if a random block is one that it attends to anyway; outside training it always draws the
first block. A key that is counted m times weighs m·exp(logit), so log m is added to its logit. This takes one more
column of the query and of the key for each block that is ever repeated, instead of a table.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearhead.capture.call import Call, attention_of

CLASSES = ("BigBirdBlockSparseAttention", "BigBirdPegasusBlockSparseAttention")
_NAMES = ("hidden_states", "band_mask", "from_mask", "to_mask")
_OLD_PLANS = (1024, 3072, 4096)  # lengths for which the model draws blocks in an older way


def describe(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Call:
    """Return the Call of one pass of the module, from its arguments: (hidden_states, band_mask, from_mask, to_mask, …).

    Queries and keys are projected again, which is cheap compared with the attention. The output does not change.
    """
    given = dict(zip(_NAMES, args, strict=False)) | kwargs
    hidden, real = given["hidden_states"], given["to_mask"][:, 0, 0] > 0  # (B, L): not padding
    heads, width = module.num_attention_heads, module.attention_head_size
    block, length = module.block_size, len(real[0])
    with torch.no_grad():
        query, key, value = (
            layer(hidden).unflatten(-1, (heads, width)).transpose(1, 2)
            for layer in (module.query, module.key, module.value)
        )
        copies = _copies(_drawn(module, length).to(hidden.device), length // block)
        allow = (copies > 0).repeat_interleave(block, 1).repeat_interleave(block, 2)[None]
        allow = allow & real[:, None, None, :] & real[:, None, :, None]  # a padded token attends to none
        more, at = _logarithms(copies, block)
        scale = width**-0.5
        query = torch.cat([query, (more / scale).to(query.dtype).expand(len(query), heads, -1, -1)], -1)
        key = torch.cat([key, at.to(key.dtype).expand(len(key), heads, -1, -1)], -1)
    everybody = real.all(0).nonzero().flatten().tolist()
    return Call(
        module=module,
        query=query,
        key=key,
        attention=attention_of(query, scale),
        mask=allow,
        value=value,
        out=output[0],
        rows=[row for row in everybody if block <= row < length - block] or everybody,  # these see few blocks
    )


def _drawn(module: Any, length: int) -> Tensor:
    """Return (H, blocks - 2, r): the random blocks of each block of queries but the first and the last.

    They are drawn with the model's own code and seed; numpy's generator is restored.
    """
    block, drawn = module.block_size, module.num_random_blocks
    before = np.random.get_state()  # the generator that the model uses
    try:
        np.random.seed(module.seed)
        if length in _OLD_PLANS:
            most = module.max_seqlen
            plans = [
                module._bigbird_block_rand_mask(most, most, block, block, drawn, last_idx=1024)[: length // block - 2]
                for _ in range(module.num_attention_heads)
            ]
        else:
            where, counts = module._get_rand_attn_plan(length, block, drawn)
            plans = module._bigbird_block_rand_mask_with_head(
                from_seq_length=length,
                to_seq_length=length,
                from_block_size=block,
                to_block_size=block,
                num_heads=module.num_attention_heads,
                plan_from_length=where,
                plan_num_rand_blocks=counts,
            )
    finally:
        np.random.set_state(before)
    return torch.from_numpy(np.stack(plans)).long()


def _copies(drawn: Tensor, blocks: int) -> Tensor:
    """(H, blocks, blocks), int64: how often a block of queries has each block of keys; of H alike, one.

    >>> _copies(torch.zeros(3, 3, 1, dtype=torch.long), 5)[0]
    tensor([[1, 1, 1, 1, 1],
            [2, 1, 1, 0, 1],
            [2, 1, 1, 1, 1],
            [2, 0, 1, 1, 1],
            [1, 1, 1, 1, 1]])
    """
    if bool((drawn == drawn[:1]).all()):
        drawn = drawn[:1]
    place = torch.arange(blocks, device=drawn.device)
    near = (place[:, None] - place).abs() <= 1
    ends = (place == 0) | (place == blocks - 1)
    copies = (near | ends | ends[:, None]).long().expand(len(drawn), -1, -1).clone()
    copies[:, 1:-1].scatter_add_(2, drawn, torch.ones_like(drawn))
    return copies


def _logarithms(copies: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """(H, L, e) and (L, e) whose product is log m where a key is there m times, for the e blocks that ever repeat."""
    often = (copies > 1).any(0).any(0).nonzero().flatten()
    more = copies[:, :, often].clamp_min(1).double().log().repeat_interleave(block, 1)
    at = torch.nn.functional.one_hot(often, copies.shape[2]).T.repeat_interleave(block, 0)
    return more, at

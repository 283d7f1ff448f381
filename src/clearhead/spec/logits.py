"""From products to logits, in torch: scale, soft cap, biases, masks and band, for a rectangle or for single pairs."""

import torch
from torch import Tensor

from clearhead.spec import rule as rules
from clearhead.spec.attention import Attention, four_axes
from clearhead.spec.band import EVERYWHERE, outside


def logits(
    attention: Attention, scaled: Tensor, rows: Tensor | None = None, keys: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Return the logits of an attention, or of a rectangle of it, -inf where masked.

    Args:
        attention: its tensors broadcast to the products (see `Attention.pairs`) and have their dtype.
        scaled: (B, H, L, S), q·k times `attention.multiplier`.
        rows, keys: the query index of each row and the key index of each column; None = all, in order.

    Example:
        >>> logits(Attention(band_high=0, softcap=2.0), torch.full((1, 1, 2, 2), 100.0))[0, 0].tolist()
        [[2.0, -inf], [2.0, 2.0]]
    """
    x = scaled
    if attention.softcap is not None:
        x = torch.tanh(x / attention.softcap) * attention.softcap
    if attention.bias is not None:
        x = x + attention.bias
    if attention.key_bias is not None:
        x = x + attention.key_bias
    if attention.band == EVERYWHERE and attention.alibi is None and attention.rule is None:
        return x if attention.allow is None else x.masked_fill(~attention.allow, -torch.inf)
    rows = torch.arange(x.shape[-2], device=x.device) if rows is None else rows
    keys = torch.arange(x.shape[-1], device=x.device) if keys is None else keys
    query, key = rows[:, None] + attention.first_query, keys + attention.first_key
    if attention.alibi is not None:
        x = x - attention.alibi[:, None, None] * (query - key).abs()
    if attention.allow is not None:
        x = x.masked_fill(~attention.allow, -torch.inf)
    if attention.rule is not None:
        batch, head = (torch.arange(size, device=x.device) for size in x.shape[:2])
        x = x.masked_fill(~attention.rule.rule(batch[:, None, None, None], head[:, None, None], query, key), -torch.inf)
    return x if attention.band == EVERYWHERE else x.masked_fill(outside(attention.band, query, key), -torch.inf)


def logits_at(
    attention: Attention, scaled: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor, full: tuple[int, ...]
) -> Tensor:
    """Return the logits of single pairs, each given by its batch entry, query head, query and key.

    Args:
        scaled: q·k times the multiplier, in the indices' broadcast shape, like the result.
        full: (B, H, L, S) of the attention.
    """
    x = scaled
    if attention.softcap is not None:
        x = attention.softcap * torch.tanh(x / attention.softcap)
    for added in (attention.bias, attention.key_bias):
        if added is not None:
            x = x + four_axes(added).expand(full)[batch, head, row, key]
    query_position, key_position = row + attention.first_query, key + attention.first_key
    if attention.alibi is not None:
        x = x - attention.alibi[head] * (query_position - key_position).abs()
    if attention.allow is not None:
        x = x.masked_fill(~four_axes(attention.allow).expand(full)[batch, head, row, key], -torch.inf)
    if attention.rule is not None:
        x = x.masked_fill(~attention.rule.rule(batch, head, query_position, key_position), -torch.inf)
    if attention.band == EVERYWHERE:
        return x
    return x.masked_fill(outside(attention.band, query_position, key_position), -torch.inf)


def cap_slope(attention: Attention, scaled: Tensor) -> Tensor | None:
    """Return the derivative of the soft cap at scaled products; None without a cap."""
    if attention.softcap is None:
        return None
    tanh = torch.tanh(scaled / attention.softcap)
    return 1 - tanh * tanh


def distances(attention: Attention, length: int, keys: int, device: torch.device) -> Tensor:
    """Return |query position - key position|, the distance ALiBi uses: int64, (L, S)."""
    rows = torch.arange(length, device=device)[:, None] + attention.offset
    return (rows - torch.arange(keys, device=device)).abs()


def allowed(attention: Attention, full: tuple[int, int, int, int], rows: range, device: torch.device) -> Tensor | None:
    """Return where some queries may attend by mask and rule, without the band; None = everywhere.

    Args:
        full: (B, H, L, S) of the attention.
        rows: indices of the queries.
    Returns:
        bool, (B or 1, H or 1, rows or 1, S or 1).
    """
    allow = None if attention.allow is None else four_axes(attention.allow)
    if allow is not None and allow.shape[2] > 1:
        allow = allow[:, :, rows.start : rows.stop]
    if attention.rule is None:
        return allow
    queries = range(rows.start + attention.first_query, rows.stop + attention.first_query)
    keys = range(attention.first_key, attention.first_key + full[3])
    strip = rules.block(attention.rule, full[:2], queries, keys, device)
    return strip if allow is None else allow if strip is None else allow & strip

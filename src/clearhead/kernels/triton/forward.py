"""The forward pass: output and lse, and in the same pass entropy, maximum, squares and mass of each row.

Source: Dao 2023 (FlashAttention-2), alg. 1.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from clearhead.kernels.triton.tile import (
    capped,
    decode,
    device,
    finish_logits,
    kept,
    key_range,
    load_rows,
    multiplier,
    product,
    row_pointers,
    store_rows,
)


class RowStatistics(NamedTuple):
    """Outputs for statistics of rows, (B, H, L) float32, contiguous; None = not wanted."""

    entropy: Any
    maximum: Any
    squares: Any
    mass: Any


@device
def store_row(pointer, index, sizes, rows, numbers):
    """Store one number per row of a contiguous (B·H, L)."""
    tl.store(pointer + index.to(tl.int64) * sizes.length + rows, numbers, mask=rows < sizes.length)


@triton.jit(do_not_specialize=["sizes"])
def forward(
    query, key, value, out, lse, terms, numbers, sizes,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Compute ROWS queries of one head over all keys they may attend, KEYS at a time."""
    block, batch, head = decode(tl.program_id(0), tl.cdiv(sizes.length, ROWS), sizes.heads)
    kv_head = head // (sizes.heads // sizes.kv_heads)
    rows = block * ROWS + tl.arange(0, ROWS)
    q = load_rows(query, batch, head, rows, sizes.length, terms.width, WIDTH)
    scale = multiplier(terms, head)
    top = tl.full([ROWS], float("-inf"), tl.float32)  # the largest logit so far
    total = tl.zeros([ROWS], tl.float32)  # the sum of exp(logit - top)
    shifted = tl.zeros([ROWS], tl.float32)  # the sum of exp(logit - top)·(logit - top)
    squares = tl.zeros([ROWS], tl.float32)
    result = tl.zeros([ROWS, VALUE_WIDTH], tl.float32)
    first, last = key_range(sizes, block * ROWS, ROWS, KEYS)
    for start in range(first, last, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = load_rows(key, batch, kv_head, columns, sizes.keys, terms.width, WIDTH)
        x, _ = capped(product(q, tl.trans(k), PRECISION) * scale, terms)
        x = finish_logits(x, terms, sizes, batch, head, rows[:, None], columns[None, :])
        new_top = tl.maximum(top, tl.max(x, 1))
        finite = tl.where(new_top == float("-inf"), 0.0, new_top)
        below = x - finite[:, None]
        weights = tl.exp(below)
        fade = tl.exp(top - finite)
        if numbers.entropy is not None:
            rise = tl.where(top == float("-inf"), 0.0, finite - top)
            shifted = fade * (shifted - total * rise) + tl.sum(weights * tl.where(weights > 0, below, 0.0), 1)
        if numbers.squares is not None:
            squares = fade * fade * squares + tl.sum(weights * weights, 1)
        total = fade * total + tl.sum(weights, 1)
        if terms.head_words is not None:
            keep = kept(terms, sizes, batch, head, rows[:, None], columns[None, :])
            weights = tl.where(keep, weights * terms.keep_factor, 0.0)
        v = load_rows(value, batch, kv_head, columns, sizes.keys, terms.value_width, VALUE_WIDTH)
        result = result * fade[:, None] + product(weights.to(v.dtype), v, PRECISION)
        top = new_top

    fade, divisor, ahead, logarithm = normalise(top, total, terms, head)
    share = fade / divisor  # factor from exp(logit - top) to the weight after the softmax
    store_rows(out, batch, head, rows, sizes.length, terms.value_width, result * share[:, None], VALUE_WIDTH)
    logarithm = logarithm.to(lse.pointer.dtype.element_ty) + tl.log(divisor).to(lse.pointer.dtype.element_ty)
    tl.store(row_pointers(lse, batch, head, rows, rows * 0), logarithm, mask=rows < sizes.length)
    index = batch * sizes.heads + head
    if numbers.mass is not None:
        store_row(numbers.mass, index, sizes, rows, total * share)
    if numbers.maximum is not None:
        store_row(numbers.maximum, index, sizes, rows, tl.where(total > 0, share, 0.0))
    if numbers.squares is not None:
        store_row(numbers.squares, index, sizes, rows, squares * share * share)
    if numbers.entropy is not None:
        entropy = share * (total * (tl.log(divisor) + ahead) - shifted)
        store_row(numbers.entropy, index, sizes, rows, tl.where(total > 0, entropy, 0.0))


@device
def normalise(top, total, terms, head):
    """Return (exp(top - base), the sum of exp(logit - base), base - top, base), which normalise a row's sums.

    The base is the largest of the logits and the sink. For an empty row the sum is 1 and the base is -inf.
    """
    base = top
    if terms.sinks is not None:
        base = tl.maximum(top, tl.load(terms.sinks + head))
    finite = tl.where(base == float("-inf"), 0.0, base)
    fade = tl.exp(top - finite)
    whole = total * fade
    if terms.sinks is not None:
        whole += tl.exp(tl.load(terms.sinks + head) - finite)
    ahead = tl.where(total > 0, finite - top, 0.0)
    return fade, tl.where(whole == 0, 1.0, whole), ahead, tl.where(whole == 0, float("-inf"), finite)

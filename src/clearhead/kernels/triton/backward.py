"""The backward pass. Without atomics, so two runs give the same bits.

With P the weights, dP = dO Vᵀ and δ = Σⱼ P dP = dO · O, the gradient of a logit is P (dP - δ + d lse). Source: Dao 2023
(FlashAttention-2), alg. 2.
"""

import triton
import triton.language as tl

from clearhead.kernels.triton.forward import store_row
from clearhead.kernels.triton.tile import (
    capped,
    decode,
    device,
    distances,
    finish_logits,
    kept,
    key_range,
    load_lse,
    load_rows,
    multiplier,
    product,
    row_pointers,
    row_range,
    store_rows,
)


@device
def gradient_of_logits(x, grad_weights, terms, sizes, batch, head, rows, columns, lse_high, lse_low, shift):
    """Return the weights after dropout, and the gradient of the logits. The last three arguments broadcast."""
    weights = tl.exp((x - lse_high) - lse_low)
    dropped = weights
    if terms.head_words is not None:
        keep = kept(terms, sizes, batch, head, rows, columns)
        dropped = tl.where(keep, weights * terms.keep_factor, 0.0)
        grad_weights = tl.where(keep, grad_weights * terms.keep_factor, 0.0)
    return dropped, weights * (grad_weights - shift)


@triton.jit(do_not_specialize=["sizes"])
def backward_query(
    query, key, value, out, lse, grad_out, grad_lse, grad_query, shifts, alibi_rows, scale_rows, terms, sizes,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of ROWS queries, and each row's part of the gradients of ALiBi slopes and head scales.

    Also writes each row's shift δ - d lse, which the other kernels read.
    """
    block, batch, head = decode(tl.program_id(0), tl.cdiv(sizes.length, ROWS), sizes.heads)
    kv_head = head // (sizes.heads // sizes.kv_heads)
    index = batch * sizes.heads + head
    rows = block * ROWS + tl.arange(0, ROWS)
    q = load_rows(query, batch, head, rows, sizes.length, terms.width, WIDTH)
    upstream = load_rows(grad_out, batch, head, rows, sizes.length, terms.value_width, VALUE_WIDTH)
    o = load_rows(out, batch, head, rows, sizes.length, terms.value_width, VALUE_WIDTH)
    lse_high, lse_low = load_lse(lse, batch, head, rows, sizes.length)
    shift = tl.sum(o.to(tl.float32) * upstream.to(tl.float32), 1)
    if grad_lse is not None:
        pointers = row_pointers(grad_lse, batch, head, rows, rows * 0)
        shift -= tl.load(pointers, mask=rows < sizes.length, other=0.0).to(tl.float32)
    shift = tl.where(lse_high == float("inf"), 0.0, shift)  # no gradient passes through an empty row
    store_row(shifts, index, sizes, rows, shift)

    scale = multiplier(terms, head)
    grad = tl.zeros([ROWS, WIDTH], tl.float32)
    by_distance = tl.zeros([ROWS], tl.float32)
    first, last = key_range(sizes, block * ROWS, ROWS, KEYS)
    for start in range(first, last, KEYS):
        columns = start + tl.arange(0, KEYS)
        k = load_rows(key, batch, kv_head, columns, sizes.keys, terms.width, WIDTH)
        v = load_rows(value, batch, kv_head, columns, sizes.keys, terms.value_width, VALUE_WIDTH)
        x, slope = capped(product(q, tl.trans(k), PRECISION) * scale, terms)
        x = finish_logits(x, terms, sizes, batch, head, rows[:, None], columns[None, :])
        grad_weights = product(upstream, tl.trans(v), PRECISION)
        _, grad_logits = gradient_of_logits(
            x, grad_weights, terms, sizes, batch, head, rows[:, None], columns[None, :],
            lse_high[:, None], lse_low[:, None], shift[:, None],
        )  # fmt: skip
        if alibi_rows is not None:
            by_distance += tl.sum(grad_logits * distances(sizes, rows[:, None], columns[None, :]), 1)
        grad += product((grad_logits * slope).to(k.dtype), k, PRECISION)

    store_rows(grad_query, batch, head, rows, sizes.length, terms.width, grad * scale, WIDTH)
    if alibi_rows is not None:
        store_row(alibi_rows, index, sizes, rows, -by_distance)
    if scale_rows is not None:
        store_row(scale_rows, index, sizes, rows, tl.sum(grad * q.to(tl.float32), 1) * terms.scale)


@triton.jit(do_not_specialize=["sizes"])
def backward_key(
    query, key, value, lse, grad_out, grad_key, grad_value, shifts, terms, sizes,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Compute the gradients of KEYS keys and their values, over all queries of all heads that read them.

    Tiles are (keys, queries), so that none has to be transposed before its second product.
    """
    block, batch, kv_head = decode(tl.program_id(0), tl.cdiv(sizes.keys, KEYS), sizes.kv_heads)
    group = sizes.heads // sizes.kv_heads
    columns = block * KEYS + tl.arange(0, KEYS)
    k = load_rows(key, batch, kv_head, columns, sizes.keys, terms.width, WIDTH)
    v = load_rows(value, batch, kv_head, columns, sizes.keys, terms.value_width, VALUE_WIDTH)
    grad_k = tl.zeros([KEYS, WIDTH], tl.float32)
    grad_v = tl.zeros([KEYS, VALUE_WIDTH], tl.float32)
    first, last = row_range(sizes, block * KEYS, ROWS, KEYS)
    for member in range(0, group):
        head = kv_head * group + member
        index = batch * sizes.heads + head
        scale = multiplier(terms, head)
        for start in range(first, last, ROWS):
            rows = start + tl.arange(0, ROWS)
            q = load_rows(query, batch, head, rows, sizes.length, terms.width, WIDTH)
            upstream = load_rows(grad_out, batch, head, rows, sizes.length, terms.value_width, VALUE_WIDTH)
            lse_high, lse_low = load_lse(lse, batch, head, rows, sizes.length)
            shift = tl.load(shifts + index.to(tl.int64) * sizes.length + rows, mask=rows < sizes.length, other=0.0)
            x, slope = capped(product(k, tl.trans(q), PRECISION) * scale, terms)
            x = finish_logits(x, terms, sizes, batch, head, rows[None, :], columns[:, None])
            grad_weights = product(v, tl.trans(upstream), PRECISION)
            weights, grad_logits = gradient_of_logits(
                x, grad_weights, terms, sizes, batch, head, rows[None, :], columns[:, None],
                lse_high[None, :], lse_low[None, :], shift[None, :],
            )  # fmt: skip
            grad_v += product(weights.to(upstream.dtype), upstream, PRECISION)
            grad_k += product((grad_logits * slope * scale).to(q.dtype), q, PRECISION)
    store_rows(grad_key, batch, kv_head, columns, sizes.keys, terms.width, grad_k, WIDTH)
    store_rows(grad_value, batch, kv_head, columns, sizes.keys, terms.value_width, grad_v, VALUE_WIDTH)


@triton.jit(do_not_specialize=["sizes", "batches", "heads", "bias_length", "bias_keys"])
def backward_bias(
    query, key, value, lse, grad_out, grad_bias, shifts, terms, sizes, batches, heads, bias_length, bias_keys, shared,
    WIDTH: tl.constexpr, VALUE_WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Compute one tile of the bias's gradient, summed over every axis that the bias broadcasts.

    Its shape is the bias's own, (batches, heads, bias_length, bias_keys). `shared` is how many batch entries and heads
    read one entry of the bias.
    """
    row_tiles, key_tiles = tl.cdiv(bias_length, ROWS), tl.cdiv(bias_keys, KEYS)
    block, bias_batch, bias_head = decode(tl.program_id(0), row_tiles * key_tiles, heads)
    row_tile, key_tile = block // key_tiles, block % key_tiles
    first_row, first_key = row_tile * ROWS, key_tile * KEYS
    last_row = tl.where(bias_length == 1, sizes.length, first_row + ROWS)
    last_key = tl.where(bias_keys == 1, sizes.keys, first_key + KEYS)
    total = tl.zeros([ROWS, KEYS], tl.float32)
    for reader in range(0, shared):
        # If heads share the bias, loop over the heads of a batch entry, then over those of the next entry.
        head = tl.where(heads == 1, reader % sizes.heads, bias_head)
        batch = bias_batch + tl.where(heads == 1, reader // sizes.heads, reader)
        kv_head = head // (sizes.heads // sizes.kv_heads)
        index = batch * sizes.heads + head
        scale = multiplier(terms, head)
        for row in range(first_row, last_row, ROWS):
            rows = row + tl.arange(0, ROWS)
            q = load_rows(query, batch, head, rows, sizes.length, terms.width, WIDTH)
            upstream = load_rows(grad_out, batch, head, rows, sizes.length, terms.value_width, VALUE_WIDTH)
            lse_high, lse_low = load_lse(lse, batch, head, rows, sizes.length)
            shift = tl.load(shifts + index.to(tl.int64) * sizes.length + rows, mask=rows < sizes.length, other=0.0)
            allowed_first, allowed_last = key_range(sizes, row, ROWS, KEYS)
            for start in range(tl.maximum(first_key, allowed_first), tl.minimum(last_key, allowed_last), KEYS):
                columns = start + tl.arange(0, KEYS)
                k = load_rows(key, batch, kv_head, columns, sizes.keys, terms.width, WIDTH)
                v = load_rows(value, batch, kv_head, columns, sizes.keys, terms.value_width, VALUE_WIDTH)
                x, _ = capped(product(q, tl.trans(k), PRECISION) * scale, terms)
                x = finish_logits(x, terms, sizes, batch, head, rows[:, None], columns[None, :])
                grad_weights = product(upstream, tl.trans(v), PRECISION)
                _, grad_logits = gradient_of_logits(
                    x, grad_weights, terms, sizes, batch, head, rows[:, None], columns[None, :],
                    lse_high[:, None], lse_low[:, None], shift[:, None],
                )  # fmt: skip
                total += grad_logits
    store_bias(grad_bias, bias_batch, bias_head, first_row, first_key, bias_length, bias_keys, total, ROWS, KEYS)


@device
def store_bias(
    grad_bias, batch, head, first_row, first_key, length, keys, total, ROWS: tl.constexpr, KEYS: tl.constexpr
):
    """Store a tile of the bias's gradient, summed along an axis of size 1."""
    rows, columns = first_row + tl.arange(0, ROWS), first_key + tl.arange(0, KEYS)
    if (length == 1) & (keys == 1):
        tl.store(row_pointers(grad_bias, batch, head, first_row * 0, first_key * 0), tl.sum(tl.sum(total, 1), 0))
    elif length == 1:
        tl.store(row_pointers(grad_bias, batch, head, columns * 0, columns), tl.sum(total, 0), mask=columns < keys)
    elif keys == 1:
        tl.store(row_pointers(grad_bias, batch, head, rows, rows * 0), tl.sum(total, 1), mask=rows < length)
    else:
        inside = (rows < length)[:, None] & (columns < keys)[None, :]
        tl.store(row_pointers(grad_bias, batch, head, rows[:, None], columns[None, :]), total, mask=inside)

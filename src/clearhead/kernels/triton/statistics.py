"""The second pass over weights whose lse is known: statistics of rows, column sums, and the cells of a map.

Without atomics: one program writes each number, so two runs give the same bits.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from clearhead.kernels.triton.forward import store_row
from clearhead.kernels.triton.tile import (
    capped,
    decode,
    device,
    finish_logits,
    key_range,
    load_lse,
    load_rows,
    multiplier,
    product,
    row_range,
)


class RowOutputs(NamedTuple):
    """Outputs for statistics of rows, (B, H, L) float32, and for top-k, (B, H, L, k); None = not wanted."""

    entropy: Any
    maximum: Any
    squares: Any
    mass: Any
    distance: Any
    spread: Any
    best: Any
    best_keys: Any  # int64


class Part(NamedTuple):
    """The queries to process; distances are |query + offset - key|. Never specialised."""

    first_row: Any
    last_row: Any
    offset: Any
    top: Any  # how many of the largest weights are wanted


@device
def tile_weights(
    query, key, lse, terms, sizes, batch, head, rows, columns, WIDTH: tl.constexpr, PRECISION: tl.constexpr
):
    """Return the weights of a tile (rows, columns), and their logarithms, -inf where a query may not attend."""
    kv_head = head // (sizes.heads // sizes.kv_heads)
    q = load_rows(query, batch, head, rows, sizes.length, terms.width, WIDTH)
    k = load_rows(key, batch, kv_head, columns, sizes.keys, terms.width, WIDTH)
    lse_high, lse_low = load_lse(lse, batch, head, rows, sizes.length)
    x, _ = capped(product(q, tl.trans(k), PRECISION) * multiplier(terms, head), terms)
    x = finish_logits(x, terms, sizes, batch, head, rows[:, None], columns[None, :])
    logs = (x - lse_high[:, None]) - lse_low[:, None]
    return tl.exp(logs), logs


@device
def ranked(weights, columns, keys):
    """Pack weights and their keys in int64: larger for a larger weight, then for a lower key; -1 past the last key.

    The bits of non-negative float32 numbers have the order of the numbers.
    """
    bits = weights.to(tl.int32, bitcast=True).to(tl.int64)
    return tl.where(columns < keys, (bits << 32) | (0x7FFFFFFF - columns).to(tl.int64), -1)


@device
def merge_best(best, ranked_tile, TOP: tl.constexpr):
    """Return the TOP largest of the list so far, (ROWS, TOP) in descending order, and of a tile."""
    new = tl.topk(ranked_tile, TOP, 1)
    # For two descending lists, the larger of a[i] and b[TOP - 1 - i] for each i are the TOP largest.
    return tl.sort(tl.maximum(best, tl.flip(new, 1)), 1, True)


@triton.jit(do_not_specialize=["sizes", "part"])
def row_statistics(
    query, key, lse, terms, outputs, sizes, part,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """Compute statistics of ROWS queries of one head."""
    block, batch, head = decode(tl.program_id(0), tl.cdiv(part.last_row - part.first_row, ROWS), sizes.heads)
    index = batch * sizes.heads + head
    first_row = part.first_row + block * ROWS
    rows = first_row + tl.arange(0, ROWS)
    mass = tl.zeros([ROWS], tl.float32)
    logs_sum = tl.zeros([ROWS], tl.float32)
    maximum = tl.zeros([ROWS], tl.float32)
    squares = tl.zeros([ROWS], tl.float32)
    distance = tl.zeros([ROWS], tl.float32)
    first, last = key_range(sizes, first_row, ROWS, KEYS)
    if TOP > 0:
        # Keys outside the band have weight 0, and the lowest come first: tile 0 lists them, or this if it is skipped.
        lowest = tl.zeros([ROWS], tl.int32)[:, None] + tl.arange(0, TOP)[None, :]
        listed = ranked(lowest.to(tl.float32) * 0, lowest, sizes.keys)
        best = tl.where((first > 0) | (last <= first), listed, -1)
    for start in range(first, last, KEYS):
        columns = start + tl.arange(0, KEYS)
        weights, logs = tile_weights(query, key, lse, terms, sizes, batch, head, rows, columns, WIDTH, PRECISION)
        mass += tl.sum(weights, 1)
        if outputs.entropy is not None:
            logs_sum += tl.sum(weights * tl.where(weights > 0, logs, 0.0), 1)
        if outputs.maximum is not None:
            maximum = tl.maximum(maximum, tl.max(weights, 1))
        if outputs.squares is not None:
            squares += tl.sum(weights * weights, 1)
        if (outputs.distance is not None) | (outputs.spread is not None):
            away = tl.abs(rows[:, None] + part.offset - columns[None, :]).to(tl.float32)
            distance += tl.sum(weights * away, 1)
        if TOP > 0:
            best = merge_best(best, ranked(weights, columns[None, :], sizes.keys), TOP)

    if outputs.spread is not None:
        # Relative to an integer near the mean, so that the spread of a row on one key is exactly 0 at any distance.
        divisor = tl.where(mass > 0, mass, 1.0)
        centre = tl.floor(distance / divisor + 0.5)
        near = tl.zeros([ROWS], tl.float32)
        near_squared = tl.zeros([ROWS], tl.float32)
        for start in range(first, last, KEYS):
            columns = start + tl.arange(0, KEYS)
            weights, _ = tile_weights(query, key, lse, terms, sizes, batch, head, rows, columns, WIDTH, PRECISION)
            away = tl.abs(rows[:, None] + part.offset - columns[None, :]).to(tl.float32) - centre[:, None]
            near += tl.sum(weights * away, 1)
            near_squared += tl.sum(weights * away * away, 1)
        variance = near_squared / divisor - (near / divisor) * (near / divisor)
        store_row(outputs.spread, index, sizes, rows, tl.sqrt(tl.maximum(variance, 0.0)))
    store_numbers(outputs, index, sizes, rows, -logs_sum, maximum, squares, mass, distance)
    if TOP > 0:
        store_best(outputs, part, index, sizes, rows, best, TOP)


@device
def store_numbers(outputs, index, sizes, rows, entropy, maximum, squares, mass, distance):
    """Write the statistics that are wanted."""
    if outputs.entropy is not None:
        store_row(outputs.entropy, index, sizes, rows, entropy)
    if outputs.maximum is not None:
        store_row(outputs.maximum, index, sizes, rows, maximum)
    if outputs.squares is not None:
        store_row(outputs.squares, index, sizes, rows, squares)
    if outputs.mass is not None:
        store_row(outputs.mass, index, sizes, rows, mass)
    if outputs.distance is not None:
        store_row(outputs.distance, index, sizes, rows, distance)


@device
def store_best(outputs, part, index, sizes, rows, best, TOP: tl.constexpr):
    """Write the largest weights of each row, and their keys."""
    places = tl.arange(0, TOP)
    targets = (index.to(tl.int64) * sizes.length + rows)[:, None] * part.top + places[None, :]
    inside = (rows < sizes.length)[:, None] & (places < part.top)[None, :]
    listed = tl.maximum(best, 0)
    tl.store(outputs.best + targets, (listed >> 32).to(tl.int32).to(tl.float32, bitcast=True), mask=inside)
    tl.store(outputs.best_keys + targets, 0x7FFFFFFF - (listed & 0x7FFFFFFF), mask=inside)


@triton.jit(do_not_specialize=["sizes", "part"])
def column_sums(
    query, key, lse, received, terms, sizes, part,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """Compute the weight that KEYS keys of one head receive from the part's queries: (B·H, S) float32, contiguous."""
    block, batch, head = decode(tl.program_id(0), tl.cdiv(sizes.keys, KEYS), sizes.heads)
    columns = block * KEYS + tl.arange(0, KEYS)
    total = tl.zeros([KEYS], tl.float32)
    first, last = row_range(sizes, block * KEYS, ROWS, KEYS)
    for start in range(tl.maximum(first, part.first_row), tl.minimum(last, part.last_row), ROWS):
        rows = start + tl.arange(0, ROWS)
        weights, _ = tile_weights(query, key, lse, terms, sizes, batch, head, rows, columns, WIDTH, PRECISION)
        total += tl.sum(tl.where((rows < part.last_row)[:, None], weights, 0.0), 0)
    index = (batch * sizes.heads + head).to(tl.int64)
    tl.store(received + index * sizes.keys + columns, total, mask=columns < sizes.keys)


@triton.jit(do_not_specialize=["sizes", "part", "down", "across"])
def map_cells(
    query, key, lse, cells, row_edges, key_edges, terms, sizes, part, down, across,
    WIDTH: tl.constexpr, PRECISION: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, BY_MAXIMUM: tl.constexpr,
):  # fmt: skip
    """Compute one cell of a map: sum or maximum of its weights over the part's queries. Cells may overlap."""
    cell, batch, head = decode(tl.program_id(0), down * across, sizes.heads)
    first_row = tl.maximum(tl.load(row_edges + cell // across * 2).to(tl.int32), part.first_row)
    last_row = tl.minimum(tl.load(row_edges + cell // across * 2 + 1).to(tl.int32), part.last_row)
    first_key = tl.load(key_edges + cell % across * 2).to(tl.int32)
    last_key = tl.load(key_edges + cell % across * 2 + 1).to(tl.int32)
    gathered = tl.zeros([ROWS], tl.float32)
    for row in range(first_row, last_row, ROWS):
        rows = row + tl.arange(0, ROWS)
        band_first, band_last = key_range(sizes, row, ROWS, 1)
        for start in range(tl.maximum(first_key, band_first), tl.minimum(last_key, band_last), KEYS):
            columns = start + tl.arange(0, KEYS)
            weights, _ = tile_weights(query, key, lse, terms, sizes, batch, head, rows, columns, WIDTH, PRECISION)
            inside = (rows < last_row)[:, None] & (columns < last_key)[None, :]
            weights = tl.where(inside, weights, 0.0)
            if BY_MAXIMUM:
                gathered = tl.maximum(gathered, tl.max(weights, 1))
            else:
                gathered += tl.sum(weights, 1)
    number = tl.max(gathered, 0) if BY_MAXIMUM else tl.sum(gathered, 0)
    index = (batch * sizes.heads + head).to(tl.int64)
    tl.store(cells + index * down * across + cell, number)

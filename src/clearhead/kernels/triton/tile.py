"""Device functions that load a tile and compute its logits. Imports Triton, so only `launch.py` and kernels import it.

A kernel takes its arguments as named tuples. A field that is None is a compile-time constant, so absent features cost
nothing.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import triton
import triton.language as tl

from clearhead.kernels.triton.blocks import is_interpreted


def device(function: Callable[..., Any]) -> Any:
    """Decorate a function that kernels call. In Triton's interpreter, whose calls take 1 ms (3.8), it stays Python."""
    return function if is_interpreted() else triton.jit(function)


class Strided(NamedTuple):
    """A tensor with four axes, (B, H, rows, columns), and its strides in elements; 0 along a broadcast axis."""

    pointer: Any
    batch: Any
    head: Any
    row: Any
    column: Any


class Sizes(NamedTuple):
    """The sizes and the band of a problem. Never specialised, because decode changes them at each step."""

    heads: Any
    kv_heads: Any
    length: Any
    keys: Any
    low: Any  # limits on key - query, both counted from 0; None = no limit
    high: Any
    first_query: Any  # positions, for distances and dropout
    first_key: Any


class Terms(NamedTuple):
    """The terms of the logits, and dropout; None for each that a problem does not have.

    A width is None if it fills a tile. Loads then need no mask along it, so they are vectorised and pipelined.
    """

    width: Any
    value_width: Any
    scale: Any
    head_scale: Any  # (H,) float32
    softcap: Any
    bias: Any  # Strided
    allow: Any  # Strided, uint8
    alibi: Any  # (H,) float32
    sinks: Any  # (H,) float32
    head_words: Any  # (B·H,) int32, the hash of seed and head (spec/dropout.py)
    threshold: Any
    keep_factor: Any


@device
def decode(program, blocks, heads):
    """Return (block, batch, head) of a program. The last blocks come first: under a causal mask they take longest."""
    block = blocks - 1 - program % blocks
    index = program // blocks
    return block, index // heads, index % heads


@device
def row_pointers(tensor, batch, head, rows, columns):
    """Return pointers to (rows, columns) of one head. 64-bit, because offsets in a long bias exceed 2³¹ elements."""
    base = tensor.pointer + batch.to(tl.int64) * tensor.batch + head.to(tl.int64) * tensor.head
    return base + rows.to(tl.int64) * tensor.row + columns.to(tl.int64) * tensor.column


@device
def load_rows(tensor, batch, head, rows, count, width, WIDTH: tl.constexpr):
    """Load (len(rows), WIDTH) numbers of one head; 0 past `count` rows or `width` columns."""
    columns = tl.arange(0, WIDTH)
    inside = (rows < count)[:, None]
    if width is not None:
        inside &= (columns < width)[None, :]
    return tl.load(row_pointers(tensor, batch, head, rows[:, None], columns[None, :]), mask=inside, other=0.0)


@device
def store_rows(tensor, batch, head, rows, count, width, numbers, WIDTH: tl.constexpr):
    """Store numbers in the layout of `load_rows`, in the tensor's dtype."""
    columns = tl.arange(0, WIDTH)
    inside = (rows < count)[:, None]
    if width is not None:
        inside &= (columns < width)[None, :]
    pointers = row_pointers(tensor, batch, head, rows[:, None], columns[None, :])
    tl.store(pointers, numbers.to(tensor.pointer.dtype.element_ty), mask=inside)


@device
def product(a, b, PRECISION: tl.constexpr):
    """Return a @ b, summed in float32.

    PRECISION is Triton's, or "widened" for its interpreter, which reads the bits of a bfloat16 as an integer (3.8).
    """
    if PRECISION == "widened":
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:  # noqa: RET505 - Triton compiles what follows a return
        return tl.dot(a, b, input_precision=PRECISION)


@device
def multiplier(terms, head):
    """Return the factor on a product q·k."""
    scale = terms.scale
    if terms.head_scale is not None:
        scale = scale * tl.load(terms.head_scale + head)
    return scale


@device
def tanh(x):
    """Return tanh with a relative error of 5e-7; Triton's own is in a library that its interpreter does not have."""
    square = x * x
    series = x * (1 + square * (-0.33333333 + square * (0.13333333 + square * (-0.053968254 + square * 0.021869488))))
    bounded = tl.minimum(tl.maximum(x, -15.0), 15.0)
    return tl.where(tl.abs(x) < 0.25, series, 1 - 2 / (tl.exp(2 * bounded) + 1))


@device
def capped(scaled, terms):
    """Return the scaled products after the soft cap, and the derivative of the cap."""
    if terms.softcap is not None:
        curve = tanh(scaled / terms.softcap)
        return curve * terms.softcap, 1 - curve * curve
    else:  # noqa: RET505 - Triton compiles what follows a return
        return scaled, 1.0


@device
def finish_logits(x, terms, sizes, batch, head, rows, columns):
    """Add biases to capped products, and mask them: float32 logits, -inf where a query may not attend.

    `rows` and `columns` are index tensors of the tile's two axes, in either order, so the tile may be transposed.
    """
    inside = (rows < sizes.length) & (columns < sizes.keys)
    if terms.bias is not None:
        x += tl.load(row_pointers(terms.bias, batch, head, rows, columns), mask=inside, other=0.0).to(tl.float32)
    if terms.alibi is not None:
        x -= tl.load(terms.alibi + head) * distances(sizes, rows, columns)
    if terms.allow is not None:
        inside &= tl.load(row_pointers(terms.allow, batch, head, rows, columns), mask=inside, other=0) != 0
    if sizes.low is not None:
        inside &= columns - rows >= sizes.low
    if sizes.high is not None:
        inside &= columns - rows <= sizes.high
    # Every kernel treats a logit below -1e37 as masked; a NaN stays a NaN.
    return tl.where(inside & ((x >= -1e37) | (x != x)), x, float("-inf"))


@device
def distances(sizes, rows, columns):
    """Return |query position - key position|, float32."""
    return tl.abs(rows + (sizes.first_query - sizes.first_key) - columns).to(tl.float32)


@device
def mix(x):
    """Scramble 32-bit words: `mix` of spec/dropout.py."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    x ^= x >> 16
    return x


@device
def kept(terms, sizes, batch, head, rows, columns):
    """Return which weights dropout keeps: the pattern of spec/dropout.py."""
    word = tl.load(terms.head_words + batch * sizes.heads + head).to(tl.uint32, bitcast=True)
    row = mix(word + (rows + sizes.first_query).to(tl.uint32))
    key = mix((columns + sizes.first_key).to(tl.uint32))
    return mix(row ^ key) >= terms.threshold.to(tl.uint32)


@device
def key_range(sizes, first_row, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Return (first, last) of the keys that some of ROWS queries may attend; first is a multiple of KEYS."""
    first = 0
    last = sizes.keys
    if sizes.low is not None:
        first = tl.minimum(tl.maximum(first_row + sizes.low, 0), sizes.keys) // KEYS * KEYS
    if sizes.high is not None:
        last = tl.minimum(first_row + ROWS + sizes.high, sizes.keys)
    return first, last


@device
def row_range(sizes, first_key, ROWS: tl.constexpr, KEYS: tl.constexpr):
    """Return (first, last) of the queries that may attend some of KEYS keys; first is a multiple of ROWS."""
    first = 0
    last = sizes.length
    if sizes.high is not None:
        first = tl.minimum(tl.maximum(first_key - sizes.high, 0), sizes.length) // ROWS * ROWS
    if sizes.low is not None:
        last = tl.minimum(first_key + KEYS - sizes.low, sizes.length)
    return first, last


@device
def split_lse(lse):
    """Split a float64 lse into the sum of two float32, so that logits - lse keeps its digits if both are large (-1e9).

    For an empty row it is (inf, 0), so that its weights are 0.
    """
    high = lse.to(tl.float32)
    empty = high == float("-inf")
    low = tl.where(empty, 0.0, lse - tl.where(empty, 0.0, high).to(lse.dtype)).to(tl.float32)
    return tl.where(empty, float("inf"), high), tl.where(empty, 0.0, low)


@device
def load_lse(lse, batch, head, rows, length):
    """Load a row's lse as two float32, see `split_lse`; (inf, 0) past the last row."""
    numbers = tl.load(row_pointers(lse, batch, head, rows, rows * 0), mask=rows < length, other=float("-inf"))
    return split_lse(numbers)

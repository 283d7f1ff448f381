"""Traces: the products and softmaxes that a tensor comes from, on its way from queries and keys to the values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from clearhead.capture.softmax_tracing import layouts
from clearhead.capture.softmax_tracing.applied_weights import SoftmaxWeights
from clearhead.capture.softmax_tracing.contraction import Axes, Axis, Contraction
from clearhead.capture.softmax_tracing.position_codes import batch_and_heads, is_parameter

# Functions that move or copy numbers without changing them.
_SAME = frozenset(
    ("contiguous", "clone", "to", "type", "type_as", "float", "double", "half", "bfloat16", "detach", "__get__")
)


@dataclass(eq=False, slots=True)
class Product:
    """A product that may be of queries and keys. `contraction` is None after its module's pass."""

    contraction: Contraction | None
    layout: layouts.Layout
    frame: Any


@dataclass(eq=False, slots=True)
class Softmax:
    """A softmax, or an exponential that the model divides by its sum later. `open` until its module's pass ends.

    Attributes:
        sources: the number of products that its logits come from.
        home: the module named an attention that left it to the module around it.
        covered: how many of its weights have multiplied values, by their layout.
    """

    weights: SoftmaxWeights
    product: Product | None
    logits_layout: layouts.Layout | None
    frame: Any
    sources: int = 1
    home: nn.Module | None = None
    covered: dict[tuple[Any, ...], int] = field(default_factory=dict)
    done: bool = False
    open: bool = True


@dataclass(slots=True)
class Trace:
    """Where a tensor comes from: products before a softmax, softmaxes after, and what changed its numbers since."""

    products: list[tuple[Product, layouts.Layout | None]] = field(default_factory=list)
    softmaxes: list[tuple[Softmax, layouts.Layout | None]] = field(default_factory=list)
    through: tuple[str, ...] = ()


def derived(
    given: list[tuple[Tensor, Trace]], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
) -> list[tuple[Tensor, Trace]]:
    """Return the outputs of a function of traced tensors, and what they come from."""
    outputs = list(out) if isinstance(out, tuple | list) else [out]
    if out is None and args and isinstance(args[0], Tensor):  # out[i] = …
        outputs = [args[0]]
    elif not writes(func, kwargs) and any(output is tensor for output in outputs for tensor, _ in given):
        return []  # returns its argument: dropout outside training, a conversion to the same dtype
    if getattr(func, "__name__", "") in layouts.VIEWS | _SAME and args:
        given = [(tensor, trace) for tensor, trace in given if tensor is args[0]]  # view_as, type_as: of another
    traces = [Trace() for _ in outputs]
    for tensor, trace in given:
        for made, part in zip(traces, _derivation(trace, tensor, func, args, kwargs, outputs), strict=True):
            _join(made.products, part.products)
            _join(made.softmaxes, part.softmaxes)
            made.through = (*made.through, *(name for name in part.through if name not in made.through))
    return [
        (output, made)
        for output, made in zip(outputs, traces, strict=True)
        if isinstance(output, Tensor) and (made.products or made.softmaxes) and output.dim() > 0
    ]


def placed(made: Product, now: layouts.Layout | None) -> tuple[Contraction, list[Axes]] | None:
    """Return a product, and which of its axes each axis of a layout runs along; None if that was lost."""
    if now is None or made.contraction is None:
        return None
    product, original = layouts.split(made.contraction, made.layout, now)
    groups = layouts.names(now, original, product.result)
    return None if groups is None else (product, groups)


def mixed_logits(product: Contraction, traces: Sequence[Trace]) -> Trace | None:
    """Return the trace of a product that mixes the heads of logits with a matrix (talking heads), else None."""
    for side, trace in enumerate(traces):
        new = [a for a in product.result if a not in product.axes[side]]
        other = {a for a in product.own(1 - side) if product.sizes[a] > 1}
        if not trace.products or traces[1 - side].products or len(product.summed) != 1 or len(new) != 1:
            continue
        (made, now), (summed,) = trace.products[0], product.summed
        known = placed(made, now)
        if known is None or now is None or not other <= {summed, new[0]}:
            continue
        qk, groups = known
        mixed = groups[product.axes[side].index(summed)]
        if any(not _is_heads(qk, a) for a in mixed) or (not mixed and product.sizes[summed] > 1):
            continue
        order = [product.axes[side].index(summed if a == new[0] else a) for a in product.result]
        same = product.sizes[summed] == product.sizes[new[0]]
        return Trace([(made, now.permute(order) if same else None)], through=(*trace.through, "product"))
    return None


def _is_heads(product: Contraction, axis: Axis) -> bool:
    parts = batch_and_heads(product, axis)
    return parts[0] == 1 if parts is not None else axis in product.own(0) & product.own(1)


def writes(func: Any, kwargs: dict[str, Any]) -> bool:
    """Whether a torch function writes into one of its arguments: by name, `inplace=True`, `out=` or an index."""
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__" or bool(kwargs.get("inplace")) or isinstance(kwargs.get("out"), Tensor)


def _derivation(
    trace: Trace, tensor: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Any]
) -> list[Trace]:
    """Return what each output of a function comes from, through one of its arguments."""
    name = getattr(func, "__name__", "")
    through = trace.through if name in layouts.VIEWS | _SAME else (*trace.through, name)
    made = [Trace(through=through) for _ in outputs]
    for kind in ("products", "softmaxes"):
        for origin, now in getattr(trace, kind):
            places = [None] * len(outputs) if now is None else layouts.moved(now, tensor, func, args, kwargs, outputs)
            for part, place in zip(made, places, strict=True):
                getattr(part, kind).append((origin, place))
    return made


def _join(those: list[Any], more: list[Any]) -> None:
    """Add origins. Of several layouts the first is kept, which is safe: numbers are compared before recording."""
    for origin, now in more:
        same = next((n for n, item in enumerate(those) if item[0] is origin), None)
        if same is None:
            those.append((origin, now))
        elif those[same][1] is None:
            those[same] = (origin, now)


def product_of(
    logits: Tensor, trace: Trace | None, waiting: list[Product]
) -> tuple[Product | None, layouts.Layout | None]:
    """Return the product that logits come from, and their layout in it; else the first waiting product that fits."""
    known = trace.products if trace is not None else []
    for product, now in known:
        if now is not None and placed(product, now) is not None:
            return product, now
    for product in [product for product, _ in known] or waiting:
        shape = product.layout.shape
        if shape == logits.shape:
            return product, product.layout
        if shape[-2:] == logits.shape[-2:] and shape.numel() == logits.numel() and product.layout.is_contiguous():
            return product, product.layout.view(logits.shape)
    return (known[0][0], None) if known else (None, None)


def mixes_weights(trace: Trace, product: Contraction, side: int) -> bool:
    """Whether a product sums weights over heads, not keys, so that its result is weights again (talking heads)."""
    softmax, now = trace.softmaxes[0]
    if now is None or len(trace.softmaxes) > 1:
        return False
    summed = summed_axes(product, side)
    if softmax.weights.runs_along(now, summed) or softmax.weights.touches(now, summed):
        return False
    return not _sums_queries(softmax, now, summed)


def _sums_queries(softmax: Softmax, now: layouts.Layout, summed: list[int]) -> bool:
    """Whether the product sums over an axis of queries, as a transposed product does."""
    made = softmax.product
    known = None if made is None else placed(made, softmax.logits_layout)
    if known is None or len(summed) != 1:
        return False
    product, groups = known
    strides = softmax.weights.layout.stride()
    along = [group for group, s in zip(groups, strides, strict=True) if s == now.stride(summed[0])]
    own = product.own(0) & product.own(1)
    return any(group and not set(group) & own for group in along)


def summed_axes(product: Contraction, side: int) -> list[int]:
    """Return the axes of an operand that a product sums over."""
    return [product.axes[side].index(axis) for axis in product.summed]


def softmax_axes(trace: Trace | None, tensor: Tensor) -> list[int]:
    """Return the axes of a tensor that its softmax ran over; none if that is not known."""
    softmax, now = trace.softmaxes[0] if trace is not None and len(trace.softmaxes) == 1 else (None, None)
    if softmax is None or now is None:
        return []
    places = softmax.weights.part_along(now, list(range(tensor.dim())))
    return places if softmax.weights.runs_along(now, places) else []


def sums_over_keys(product: Contraction, traces: Sequence[Trace]) -> bool:
    """Whether a product multiplies an activation by a product of two others, over an axis that one of those brought."""
    for side, trace in enumerate(traces):
        if not trace.products or traces[1 - side].products or is_layer(product) or len(product.summed) != 1:
            continue
        made, now = trace.products[0]
        known = placed(made, now)
        if known is None or is_layer(known[0]):
            continue
        qk, groups = known
        brought = groups[product.axes[side].index(next(iter(product.summed)))]
        if brought and not set(brought) & (qk.own(0) & qk.own(1)):
            return True
    return False


def is_layer(product: Contraction) -> bool:
    """Whether an operand is a parameter. The product is then a layer, unless a module is named an attention."""
    return any(map(is_parameter, product.tensors))

"""Attention a model computes by its own hand: a product, a softmax, and another product, with the values.

Models older than the attention interface (GPT-J, GPT-Neo, BLOOM, MPT, DeBERTa, XLNet …), and most attention people
write themselves, multiply queries and keys, scale, add, mask and call softmax. Every torch function is seen on its way:
tensors that come from a product of two, or from a softmax, are followed to the next product. There the weights must
equal the softmax, or a masked softmax of the same logits; only then is the attention recorded, and else it is named.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from clearhead.capture.call import NO_NUMBERS, Call, holds_numbers
from clearhead.capture.softmax_tracing import layouts, pointwise
from clearhead.capture.softmax_tracing.applied_weights import Weights, as_used
from clearhead.capture.softmax_tracing.axis_roles import Hints, four_axes, roles
from clearhead.capture.softmax_tracing.contraction import Axis, Contraction, contraction
from clearhead.capture.softmax_tracing.fit_logits import Fit
from clearhead.capture.softmax_tracing.reasons import changed, other_rows, unfinished
from clearhead.capture.softmax_tracing.traces import Product, Softmax, Trace, derived, placed, tensors_in, writes

_SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax}
_EXPONENTIALS = {torch.exp, Tensor.exp, torch.exp_, Tensor.exp_}

# Products that wait for a softmax: content comes first, positions later, and a model adds few of them.
WAITING = 8


@dataclass(eq=False, slots=True)
class _Frame:
    """One forward pass of a module.

    Attributes:
        named: the innermost pass around it, or itself, of a class that is called an attention.
        mixed: whether it did more than work on each position alone; kept for `named` passes only.
        handed: whether it left its softmax to the module around it.
        unfinished: the softmaxes inside it that multiplied no values.
        instead: what logits went through last before they multiplied something, where no softmax did.
    """

    module: nn.Module
    depth: int
    hints: Hints
    named: _Frame | None
    mixed: bool = False
    handed: bool = False
    softmaxes: int = 0
    calls: list[Call] = field(default_factory=list)
    failure: str | None = None
    unfinished: list[Softmax] = field(default_factory=list)
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pass of a module came to.

    Attributes:
        calls: the attentions it computed.
        failure: why what it computed is no attention matrix; None if nothing of it failed.
        unseen: what to say of it if nothing inside it was recorded; "" if there is nothing particular.
        mixed: whether it did more than work on each position alone.
        left: other modules that left their softmax to this one, which did not multiply values by it, and why.
    """

    calls: list[Call]
    failure: str | None
    unseen: str
    mixed: bool
    left: list[tuple[nn.Module, str]]


class ByHand:
    """Follows products and softmaxes through the functions that the modules of a model call."""

    def __init__(self) -> None:
        self._frames: list[_Frame] = []
        self._products: list[Product] = []
        self._softmaxes: list[Softmax] = []
        self._traces: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._before_exponential: Tensor | None = None
        self._fit = Fit()

    def begin(self, module: nn.Module, given: tuple[object, ...], named: bool) -> None:
        """A module starts; `named`: its class is called an attention."""
        around = self._frames[-1].named if self._frames else None
        frame = _Frame(module, len(self._frames), Hints.of(module, given), around)
        if named:
            frame.named = frame
            for tensor in (*tensors_in(given, {}), *module.buffers()):
                self._known[tensor] = True
        self._frames.append(frame)

    def end(self, module: nn.Module, output: Any) -> Outcome:
        """It is done: what it computed.

        A module inside an attention, or without parts of its own, hands what is unfinished to the one around it.
        """
        frame = self._frames.pop()
        inside = frame.named is not None and frame.named is not frame
        around = self._frames[-1] if self._frames and (inside or next(module.children(), None) is None) else None
        for product in [p for p in self._products if p.frame is frame]:
            self._pass_on(product, around)
        left = []
        for softmax in [s for s in self._softmaxes if s.frame is frame]:
            if softmax.done or around is None:
                softmax.open = False
                self._softmaxes.remove(softmax)
                left.append(softmax)
            else:
                softmax.frame, frame.handed = around, True
                softmax.home = softmax.home or (module if frame.named is frame else None)
        left = [s for s in left if not s.done]
        if frame.named is not None:
            frame.named.unfinished += [s for s in left if s.home is None]
            self._notice(frame.named, tensors_in((output,), {}))
        if frame.failure is None and frame.named is frame:
            frame.failure = other_rows(
                module, frame.calls, tensors_in((output,) if not isinstance(output, tuple) else output, {})
            )
        calls = [] if frame.failure else frame.calls
        return Outcome(
            calls,
            frame.failure,
            unfinished(frame.unfinished)
            or (f"its values are multiplied by what is no softmax ({frame.instead})" * bool(frame.instead)),
            frame.mixed and not frame.handed,
            [(s.home, unfinished([s])) for s in left if s.home is not None],
        )

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A function is about to be called: keep what it is going to overwrite."""
        if not writes(func, kwargs):
            return
        target = kwargs.get("out", args[0] if args else kwargs.get("input"))
        if not isinstance(target, Tensor):
            return
        if func in _EXPONENTIALS and self._of(target) is not None:
            self._before_exponential = target.detach().clone()
        for softmax in self._softmaxes:
            softmax.weights.keep(target)

    def saw(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Look at one torch function called inside the module that began last."""
        if not self._frames:
            return
        frame = self._frames[-1]
        given = tensors_in(args, kwargs)
        if frame.named is not None and not frame.named.mixed:
            frame.named.mixed = pointwise.mixes(func, args, kwargs)
            self._notice(frame.named, given)
            for tensor in tensors_in((out,), {}):
                self._known[tensor] = True
        traced = [(tensor, trace) for tensor in given if (trace := self._of(tensor)) is not None]
        product = contraction(func, args, kwargs) if isinstance(out, Tensor) else None
        if product is not None and out.dim() == len(product.result):
            self._multiplied(frame, product, out, func)
        elif func in _SOFTMAXES or (func in _EXPONENTIALS and traced):
            self._softmax(frame, func, args, kwargs, out)
        elif traced:
            self._derived(traced, func, args, kwargs, out)

    def lost(self, error: Exception) -> None:
        """Name the attention that runs now: an error came up while it was looked at. The model is not to notice."""
        if self._frames:
            frame = self._frames[-1].named or self._frames[-1]
            name = type(frame.module).__name__
            frame.failure = f"Clearhead could not follow what {name} computes: {type(error).__name__}: {error}"

    def _notice(self, named: _Frame, tensors: list[Tensor]) -> None:
        """A tensor that comes from nowhere: something ran that no function mode sees, a scripted function for one."""
        if not named.mixed:
            named.mixed = any(t not in self._known and not isinstance(t, nn.Parameter) for t in tensors)

    def _pass_on(self, product: Product, around: _Frame | None) -> None:
        if around is None:
            product.contraction = None
            self._products.remove(product)
        else:
            product.frame = around

    def _of(self, tensor: Tensor) -> Trace | None:
        """What a tensor comes from, of what is still open."""
        trace = self._traces.get(tensor)
        if trace is None:
            return None
        trace.products = [item for item in trace.products if item[0].contraction is not None]
        trace.softmaxes = [item for item in trace.softmaxes if item[0].open]
        return trace if trace.products or trace.softmaxes else None

    def _multiplied(self, frame: _Frame, product: Contraction, out: Tensor, func: Any) -> None:
        """A product: of weights and values, of weights and something else, or perhaps of queries and keys."""
        traced = [self._of(tensor) or Trace() for tensor in product.tensors]
        weighted = [side for side in (0, 1) if traced[side].softmaxes]
        if not weighted:
            steps = [step.strip("_") for other in traced if other.products for step in other.through]
            if frame.named is not None and steps:
                frame.named.instead = steps[-1]
            if product.summed and len(product.result) > 1 and (frame.named is not None or not _is_layer(product)):
                self._remember(frame, product, out)
            return
        side = weighted[0]
        trace = traced[side]
        if len(weighted) == 1 and not self._mixes_weights(trace, product, side):
            self._valued(frame, trace, product, side)
            return
        both = [item for other in traced for item in other.softmaxes]
        unique = {id(item[0]): (item[0], None) for item in both}
        self._traces[out] = Trace([], list(unique.values()), (*trace.through, func.__name__))

    def _remember(self, frame: _Frame, product: Contraction, out: Tensor) -> None:
        made = Product(product, layouts.layout(out), frame)
        self._products.append(made)
        if len(self._products) > WAITING:
            self._products.pop(0).contraction = None
        self._traces[out] = Trace([(made, made.layout)])

    def _mixes_weights(self, trace: Trace, product: Contraction, side: int) -> bool:
        """Whether a product sums weights over heads, not over keys: weights they stay."""
        softmax, now = trace.softmaxes[0]
        if now is None or len(trace.softmaxes) > 1:
            return False
        summed = _summed(product, side)
        if softmax.weights.runs_along(now, summed) or softmax.weights.touches(now, summed):
            return False
        return not self._over_queries(softmax, now, summed)

    def _over_queries(self, softmax: Softmax, now: layouts.Layout, summed: list[int]) -> bool:
        """Whether an axis summed over is one of the queries, as in the transposed product."""
        made = softmax.product
        known = None if made is None else placed(made, softmax.logits_layout)
        if known is None or len(summed) != 1:
            return False
        product, groups = known
        strides = softmax.weights.layout.stride()
        along = [group for group, s in zip(groups, strides, strict=True) if s == now.stride(summed[0])]
        own = product.own(0) & product.own(1)
        return any(group and not set(group) & own for group in along)

    def _valued(self, frame: _Frame, trace: Trace, product: Contraction, side: int) -> None:
        """Weights have multiplied values: compare them with their softmax."""
        owners = [self._owner(softmax) for softmax, _ in trace.softmaxes]
        owner = min(owners, key=lambda item: item.depth)
        name = type(owner.module).__name__
        softmax, now = trace.softmaxes[0]
        if len(trace.softmaxes) > 1:
            count = max(owner.softmaxes, len(trace.softmaxes))
            owner.failure = (
                f"{name} takes {count} softmaxes in one pass and multiplies its values by several of them combined, so "
                "that none of them alone is its attention"
            )
            for other, _ in trace.softmaxes:
                other.done = True
            return
        if softmax.product is None or softmax.product.contraction is None:
            return  # its logits are no product: told of when the module is done
        summed = _summed(product, side)
        used = as_used(softmax.weights, product.tensors[side], now, summed)
        if used is None:
            softmax.done = True
            owner.failure = f"{name} {changed(softmax, trace.through, now, summed)}"
            return
        key = (now.storage_offset(), now.shape, now.stride()) if now is not None else ()
        softmax.covered[key] = used.count
        if not softmax.done and sum(softmax.covered.values()) >= used.total:
            softmax.done = True
            call = self._call(owner, softmax, used.logits)
            if isinstance(call, str):
                owner.failure = f"{name} {call}"
            else:
                owner.calls.append(call)

    def _owner(self, softmax: Softmax) -> _Frame:
        """The innermost module in which the product, the softmax and the product with the values all are."""
        frames = [softmax.frame] if softmax.product is None else [softmax.frame, softmax.product.frame]
        return min(frames, key=lambda frame: frame.depth)

    def _call(self, owner: _Frame, softmax: Softmax, logits: Tensor) -> Call | str:
        """The Call of a softmax that multiplied values, or why there is none."""
        made, axis = softmax.product, softmax.weights.axis
        known = None if made is None else placed(made, softmax.logits_layout)
        if known is None or axis is None:
            if softmax.sources > 1:
                return f"puts its logits together from {softmax.sources} products, each of queries and keys of its own"
            return "moves its logits between the product and the softmax, so that they have no queries and keys"
        product, groups = known
        along: tuple[Axis, ...] = groups[axis] or (product.result[max(axis - logits.dim(), -len(product.result))],)
        found = roles(product, along, owner.hints)
        if found is None:
            return "takes its softmax along an axis that queries and keys share"
        with torch.no_grad():
            table, query, key = four_axes(product, found, logits, groups)
            if owner.hints.in_blocks(table.shape):
                rows, keys = table.shape[2:]
                return f"attends in blocks of {rows} queries and {keys} keys, which are not one matrix over its input"
            return self._fit.call(owner.module, table, query, key)

    def _softmax(self, frame: _Frame, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = dict(zip(("input", "dim"), args, strict=False)) | kwargs
        logits, axis = given.get("input", given.get("self")), given.get("dim")
        if not isinstance(logits, Tensor) or not isinstance(out, Tensor) or logits.dim() == 0:
            return
        by_hand = func in _EXPONENTIALS
        before, self._before_exponential = self._before_exponential, None
        if by_hand:
            axis = None
        elif isinstance(axis, int) and logits.dim() > 1:
            axis %= logits.dim()
        else:
            return
        trace = self._of(logits)
        made, now = self._product_of(logits, trace)
        sources = len(trace.products) if trace is not None else 1
        if by_hand and made is None:
            self._derived([(logits, trace)] if trace is not None else [], func, args, kwargs, out)
            return
        frame.softmaxes += not by_hand
        if not holds_numbers(out):
            if made is not None:
                (frame.named or made.frame).failure = NO_NUMBERS
            return
        source = before if out is logits and before is not None else logits
        softmax = Softmax(Weights.of(source, out, axis), made, now, frame, sources)
        self._softmaxes.append(softmax)
        self._traces[out] = Trace([], [(softmax, softmax.weights.layout)])

    def _product_of(self, logits: Tensor, trace: Trace | None) -> tuple[Product | None, layouts.Layout | None]:
        """The product logits come from, and where in it they are; if that was lost, of all that wait the first that
        fits."""
        known = trace.products if trace is not None else []
        for product, now in known:
            if now is not None and placed(product, now) is not None:
                return product, now
        waiting = [product for product, _ in known] or self._products
        for product in waiting:
            shape = product.layout.shape
            if shape == logits.shape:
                return product, product.layout
            if shape[-2:] == logits.shape[-2:] and shape.numel() == logits.numel() and product.layout.is_contiguous():
                return product, product.layout.view(logits.shape)
        return (known[0][0], None) if known else (None, None)

    def _derived(
        self, given: list[tuple[Tensor, Trace]], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """Something else was made of tensors that are followed: follow it too."""
        for output, trace in derived(given, func, args, kwargs, out):
            self._traces[output] = trace


def _is_layer(product: Contraction) -> bool:
    """Whether an operand is a parameter: then the product is a layer, unless a module is called an attention."""
    return any(isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter) for t in product.tensors)


def _summed(product: Contraction, side: int) -> list[int]:
    """Which axes of an operand a product sums over."""
    return [product.axes[side].index(axis) for axis in product.summed]

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

from clearhead.capture import axes, pointwise
from clearhead.capture.call import Call
from clearhead.capture.contraction import Axis, Contraction, contraction
from clearhead.capture.fitting import Fit
from clearhead.capture.roles import Hints, four_axes, roles
from clearhead.capture.used import Weights, as_used

_SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax}
_EXPONENTIALS = {torch.exp, Tensor.exp, torch.exp_, Tensor.exp_}

# Products that wait for a softmax: content comes first, positions later, and a model adds few of them.
WAITING = 8

_SAME = frozenset("contiguous clone to type type_as float double half bfloat16 detach __get__ __set__".split())


@dataclass(eq=False, slots=True)
class _Frame:
    """One forward pass of a module.

    Attributes:
        named: the innermost pass around it, or itself, of a class that is called an attention.
        mixed: whether it did more than work on each position alone; kept for `named` passes only.
        handed: whether it left its softmax to the module around it.
        unfinished: the softmaxes inside it that multiplied no values.
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
    unfinished: list[_Softmax] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Product:
    """A product that may be one of queries and keys, until its module is done: then it is None."""

    contraction: Contraction | None
    layout: axes.Layout
    frame: _Frame


@dataclass(eq=False, slots=True)
class _Softmax:
    """A softmax, or the exponential of one computed by hand, until its module is done.

    Attributes:
        home: the module that is called an attention and left it to the one around.
        covered: which of its weights have multiplied values: how many numbers, by their layout.
    """

    weights: Weights
    product: _Product | None
    logits_layout: axes.Layout | None
    frame: _Frame
    home: nn.Module | None = None
    covered: dict[tuple[Any, ...], int] = field(default_factory=dict)
    done: bool = False
    open: bool = True


@dataclass(slots=True)
class _Trace:
    """Where a tensor comes from: products before a softmax, softmaxes after, and what changed its numbers since."""

    products: list[tuple[_Product, axes.Layout | None]] = field(default_factory=list)
    softmaxes: list[tuple[_Softmax, axes.Layout | None]] = field(default_factory=list)
    through: tuple[str, ...] = ()


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
        self._products: list[_Product] = []
        self._softmaxes: list[_Softmax] = []
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
            for tensor in (*_tensors(given, {}), *module.buffers()):
                self._known[tensor] = True
        self._frames.append(frame)

    def end(self, module: nn.Module, output: Any) -> Outcome:
        """It is done: what it computed. A module without parts hands what is unfinished to the one around it."""
        frame = self._frames.pop()
        around = self._frames[-1] if self._frames and next(module.children(), None) is None else None
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
            self._notice(frame.named, _tensors((output,), {}))
        calls = [] if frame.failure else frame.calls
        return Outcome(
            calls,
            frame.failure,
            _unfinished(frame.unfinished),
            frame.mixed and not frame.handed,
            [(s.home, _unfinished([s])) for s in left if s.home is not None],
        )

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """A function is about to be called: keep what it is going to overwrite."""
        if not _writes(func, kwargs):
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
        given = _tensors(args, kwargs)
        if frame.named is not None and not frame.named.mixed:
            frame.named.mixed = pointwise.mixes(func, args, kwargs)
            self._notice(frame.named, given)
            for tensor in _tensors((out,), {}):
                self._known[tensor] = True
        traced = [(tensor, trace) for tensor in given if (trace := self._of(tensor)) is not None]
        product = contraction(func, args, kwargs) if isinstance(out, Tensor) else None
        if product is not None and out.dim() == len(product.result):
            self._multiplied(frame, product, out, func)
        elif func in _SOFTMAXES or (func in _EXPONENTIALS and traced):
            self._softmax(frame, func, args, kwargs, out)
        elif traced:
            self._derived(traced, func, args, kwargs, out)

    def _notice(self, named: _Frame, tensors: list[Tensor]) -> None:
        """A tensor that comes from nowhere: something ran that no function mode sees, a scripted function for one."""
        if not named.mixed:
            named.mixed = any(t not in self._known and not isinstance(t, nn.Parameter) for t in tensors)

    def _pass_on(self, product: _Product, around: _Frame | None) -> None:
        if around is None:
            product.contraction = None
            self._products.remove(product)
        else:
            product.frame = around

    def _of(self, tensor: Tensor) -> _Trace | None:
        """What a tensor comes from, of what is still open."""
        trace = self._traces.get(tensor)
        if trace is None:
            return None
        trace.products = [item for item in trace.products if item[0].contraction is not None]
        trace.softmaxes = [item for item in trace.softmaxes if item[0].open]
        return trace if trace.products or trace.softmaxes else None

    def _multiplied(
        self, frame: _Frame, product: Contraction, out: Tensor, func: Any
    ) -> None:
        """A product: of weights and values, of weights and something else, or perhaps of queries and keys."""
        traced = [self._of(tensor) for tensor in product.tensors]
        weighted = [side for side in (0, 1) if traced[side] is not None and traced[side].softmaxes]
        if not weighted:
            if product.summed and len(product.result) > 1 and (frame.named is not None or not _is_layer(product)):
                self._remember(frame, product, out)
            return
        side = weighted[0]
        trace = traced[side]
        if len(weighted) == 1 and not self._mixes_weights(trace, product, side):
            self._valued(frame, trace, product, side)
            return
        both = [item for tr in traced if tr is not None for item in tr.softmaxes]
        unique = {id(item[0]): (item[0], None) for item in both}
        self._traces[out] = _Trace([], list(unique.values()), (*trace.through, func.__name__))

    def _remember(self, frame: _Frame, product: Contraction, out: Tensor) -> None:
        made = _Product(product, axes.layout(out), frame)
        self._products.append(made)
        if len(self._products) > WAITING:
            self._products.pop(0).contraction = None
        self._traces[out] = _Trace([(made, made.layout)])

    def _mixes_weights(self, trace: _Trace, product: Contraction, side: int) -> bool:
        """Whether a product sums weights over heads, not over keys: weights they stay."""
        softmax, now = trace.softmaxes[0]
        if now is None or len(trace.softmaxes) > 1:
            return False
        summed = _summed(product, side)
        return not softmax.weights.runs_along(now, summed) and not self._over_queries(softmax, now, summed)

    def _over_queries(self, softmax: _Softmax, now: axes.Layout, summed: list[int]) -> bool:
        """Whether an axis summed over is one of the queries, as in the transposed product."""
        made = softmax.product
        if made is None or made.contraction is None or softmax.logits_layout is None:
            return False
        groups = axes.names(softmax.logits_layout, made.layout, made.contraction.result)
        if groups is None or len(summed) != 1:
            return False
        strides = softmax.weights.layout.stride()
        along = [group for group, s in zip(groups, strides, strict=True) if s == now.stride(summed[0])]
        own = made.contraction.own(0) & made.contraction.own(1)
        return any(group and not set(group) & own for group in along)

    def _valued(self, frame: _Frame, trace: _Trace, product: Contraction, side: int) -> None:
        """Weights have multiplied values: compare them with their softmax."""
        owners = [self._owner(softmax) for softmax, _ in trace.softmaxes]
        owner = min(owners, key=lambda item: item.depth)
        name = type(owner.module).__name__
        softmax, now = trace.softmaxes[0]
        if len(trace.softmaxes) > 1:
            count = max(owner.softmaxes, len(trace.softmaxes))
            owner.failure = (
                f"{name} takes {count} softmaxes in one pass and multiplies its values by a combination of several, so "
                "that none of them alone is its attention (a product of several, as by landmarks, has rows of either sign)"
            )
            for other, _ in trace.softmaxes:
                other.done = True
            return
        if softmax.product is None or softmax.product.contraction is None:
            return  # its logits are no product: told of when the module is done
        used = as_used(softmax.weights, product.tensors[side], now, _summed(product, side))
        if used is None:
            softmax.done = True
            owner.failure = _changed(name, trace.through)
            return
        key = (now.storage_offset(), now.shape, now.stride()) if now is not None else ()
        softmax.covered[key] = used.count
        if not softmax.done and sum(softmax.covered.values()) >= used.total:
            softmax.done = True
            call = self._call(owner, softmax, used.logits)
            if call is None:
                owner.failure = f"{name} multiplies queries and keys along axes Clearhead does not know"
            else:
                owner.calls.append(call)

    def _owner(self, softmax: _Softmax) -> _Frame:
        """The innermost module in which the product, the softmax and the product with the values all are."""
        frames = [softmax.frame] if softmax.product is None else [softmax.frame, softmax.product.frame]
        return min(frames, key=lambda frame: frame.depth)

    def _call(self, owner: _Frame, softmax: _Softmax, logits: Tensor) -> Call | None:
        made = softmax.product
        assert made is not None and made.contraction is not None  # as _valued has found  # noqa: PT018, S101
        product, axis = made.contraction, softmax.weights.axis
        groups = None if softmax.logits_layout is None else axes.names(softmax.logits_layout, made.layout, product.result)
        if groups is None or axis is None:
            return None
        along: tuple[Axis, ...] = groups[axis] or (product.result[max(axis - logits.dim(), -len(product.result))],)
        found = roles(product, along, owner.hints)
        if found is None:
            return None
        with torch.no_grad():
            table, query, key = four_axes(product, found, logits, groups)
            return self._fit.call(owner.module, table, query, key)

    def _softmax(self, frame: _Frame, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = dict(zip(("input", "dim"), args, strict=False)) | kwargs
        logits, axis = given.get("input", given.get("self")), given.get("dim")
        if not isinstance(logits, Tensor) or not isinstance(out, Tensor) or logits.dim() == 0:
            return
        by_hand = func in _EXPONENTIALS
        before, self._before_exponential = self._before_exponential, None
        if not by_hand and (not isinstance(axis, int) or logits.dim() < 2):
            return
        axis = None if by_hand else axis % logits.dim()
        trace = self._of(logits)
        made, now = self._product_of(logits, trace)
        if by_hand and made is None:
            self._derived([(logits, trace)] if trace is not None else [], func, args, kwargs, out)
            return
        frame.softmaxes += not by_hand
        source = before if out is logits and before is not None else logits
        softmax = _Softmax(Weights.of(source, out, axis), made, now, frame)
        self._softmaxes.append(softmax)
        self._traces[out] = _Trace([], [(softmax, softmax.weights.layout)])

    def _product_of(self, logits: Tensor, trace: _Trace | None) -> tuple[_Product | None, axes.Layout | None]:
        """The product logits come from, and where in it they are; if that was lost, of all that wait the first that
        fits."""
        known = trace.products if trace is not None else []
        for product, now in known:
            if now is not None and axes.names(now, product.layout, product.contraction.result) is not None:
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
        self, given: list[tuple[Tensor, _Trace]], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """Something else was made of tensors that are followed: follow it too."""
        outputs = list(out) if isinstance(out, tuple | list) else [out]
        if out is None and args and isinstance(args[0], Tensor):  # out[i] = …
            outputs = [args[0]]
        traces = [_Trace() for _ in outputs]
        for tensor, trace in given:
            if any(output is tensor for output in outputs) and not _writes(func, kwargs):
                continue  # dropout outside training: the same tensor
            for made, part in zip(traces, _derivation(trace, tensor, func, args, kwargs, outputs), strict=True):
                _join(made.products, part.products)
                _join(made.softmaxes, part.softmaxes)
                made.through = (*made.through, *(name for name in part.through if name not in made.through))
        for output, made in zip(outputs, traces, strict=True):
            if isinstance(output, Tensor) and (made.products or made.softmaxes) and output.dim() > 0:
                self._traces[output] = made


def _tensors(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors among arguments, and in lists and tuples of them."""
    found: list[Tensor] = []
    for arg in (*args, *kwargs.values()):
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, list | tuple):
            found += [item for item in arg if isinstance(item, Tensor)]
    return found


def _is_layer(product: Contraction) -> bool:
    """Whether an operand is a parameter: then the product is a layer, unless a module is called an attention."""
    return any(isinstance(t, nn.Parameter) or isinstance(t._base, nn.Parameter) for t in product.tensors)


def _summed(product: Contraction, side: int) -> list[int]:
    """Which axes of an operand a product sums over."""
    return [product.axes[side].index(axis) for axis in product.summed]


def _writes(func: Any, kwargs: dict[str, Any]) -> bool:
    name = getattr(func, "__name__", "")
    in_place = name.endswith("_") and not name.endswith("__")
    return in_place or name == "__setitem__" or bool(kwargs.get("inplace")) or isinstance(kwargs.get("out"), Tensor)


def _derivation(
    trace: _Trace, tensor: Tensor, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], outputs: list[Any]
) -> list[_Trace]:
    """What each output of a function comes from, by one of its arguments."""
    name = getattr(func, "__name__", "")
    through = trace.through if name in axes.VIEWS | _SAME else (*trace.through, name)
    made = [_Trace(through=through) for _ in outputs]
    for source, target in (("products", "products"), ("softmaxes", "softmaxes")):
        for origin, now in getattr(trace, source):
            places = [None] * len(outputs) if now is None else axes.moved(now, tensor, func, args, kwargs, outputs)
            for part, place in zip(made, places, strict=True):
                getattr(part, target).append((origin, place))
    return made


def _join(those: list[Any], more: list[Any]) -> None:
    """Add origins; one that is there twice at different places is nowhere in particular."""
    for origin, now in more:
        same = next((n for n, item in enumerate(those) if item[0] is origin), None)
        if same is None:
            those.append((origin, now))
        elif not _same_place(those[same][1], now):
            those[same] = (origin, None)


def _same_place(one: axes.Layout | None, other: axes.Layout | None) -> bool:
    if one is None or other is None:
        return False
    return (one.shape, one.stride(), one.storage_offset()) == (other.shape, other.stride(), other.storage_offset())


def _unfinished(softmaxes: list[_Softmax]) -> str:
    """Why softmaxes that multiplied no values are no attention."""
    for softmax in softmaxes:
        if softmax.weights.given is None:
            continue
        if softmax.product is None:
            return "the logits of its softmax are no product of queries and keys"
        if softmax.covered:
            return "only a part of its softmax multiplies values"
        return "its softmax multiplies no values in a product that Clearhead sees"
    return ""


def _changed(name: str, through: tuple[str, ...]) -> str:
    """Why weights are not the softmax they came from."""
    steps = ", ".join(dict.fromkeys(step.strip("_") for step in through)) or "a product along another axis"
    hint = " Call model.eval() to observe it without dropout." if any("dropout" in step for step in through) else ""
    return f"{name} changes its weights between the softmax and the values ({steps}), so that they are no softmax.{hint}"

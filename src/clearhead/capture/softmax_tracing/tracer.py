"""Softmax tracing: find attention in code that has no adapter, from its softmax.

Models older than the attention interface (GPT-J, GPT-Neo, BLOOM, MPT, DeBERTa, XLNet …), and most custom attention,
multiply queries and keys, scale, add, mask and call softmax. The tracer sees every torch function. It follows tensors
that come from a product of two tensors, or from a softmax, to the next product. There the weights must equal the
softmax, or a masked softmax of the same logits; only then is the attention recorded, else it is listed as missed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from clearhead.capture.call import NO_NUMBERS, NO_TOKENS, Call, holds_numbers
from clearhead.capture.softmax_tracing import layouts, pointwise, reasons
from clearhead.capture.softmax_tracing.applied_weights import SoftmaxWeights, match_softmax
from clearhead.capture.softmax_tracing.axis_roles import Hints, arranged_by_role
from clearhead.capture.softmax_tracing.contraction import Contraction, contraction
from clearhead.capture.softmax_tracing.fit_logits import LogitsFit
from clearhead.capture.softmax_tracing.frames import Frame, Outcome, owner_of
from clearhead.capture.softmax_tracing.position_codes import PositionCodes, tensors_in
from clearhead.capture.softmax_tracing.traces import (
    Product,
    Softmax,
    Trace,
    derived,
    is_layer,
    mixed_logits,
    mixes_weights,
    product_of,
    softmax_axes,
    summed_axes,
    sums_over_keys,
    writes,
)
from clearhead.capture.softmax_tracing.weighted_values import WeightedValues, described_product

_SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax}
_EXPONENTIALS = {torch.exp, Tensor.exp, torch.exp_, Tensor.exp_}

# Number of products kept for a later softmax: content products come before position products, and models add few.
WAITING = 8


class SoftmaxTracer:
    """Follows products and softmaxes through the torch functions that a model's modules call.

    Args:
        describe_products: whether `take_weighted` returns each product of weights and values, for editing.
    """

    def __init__(self, *, describe_products: bool = False) -> None:
        self._describe_products = describe_products
        self._weighted: tuple[nn.Module, WeightedValues] | None = None
        self._frames: list[Frame] = []
        self._products: list[Product] = []
        self._softmaxes: list[Softmax] = []
        self._traces: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._before_exponential: Tensor | None = None
        self._codes = PositionCodes()
        self._fit = LogitsFit()

    def begin(self, module: nn.Module, given: tuple[object, ...], named: bool) -> None:
        """Note that a module starts. `named`: its class is named an attention."""
        around = self._frames[-1].attention if self._frames else None
        frame = Frame(module, len(self._frames), Hints.of(module, given), around)
        if named:
            frame.attention, frame.is_part = frame, around is not None
            for tensor in (*tensors_in(given, {}), *module.buffers()):
                self._known[tensor] = True
        if not self._frames:
            self._codes.begin(tensors_in(given, {}))
        self._frames.append(frame)

    def end(self, module: nn.Module, output: Any) -> Outcome:
        """Return what a module computed, at the end of its pass.

        A module inside an attention, or one without submodules, passes its unfinished products and softmaxes on to the
        module around it.
        """
        frame = self._frames.pop()
        inside = frame.attention is not None and frame.attention is not frame
        around = self._frames[-1] if self._frames and (inside or next(module.children(), None) is None) else None
        for product in [p for p in self._products if p.frame is frame]:
            if around is not None:
                product.frame = around
            else:
                product.contraction = None
                self._products.remove(product)
        unused = []
        for softmax in [s for s in self._softmaxes if s.frame is frame]:
            if softmax.done or around is None:
                softmax.open = False
                self._softmaxes.remove(softmax)
                unused.append(softmax)
            else:
                softmax.frame, frame.left_softmax = around, True
                softmax.home = softmax.home or (module if frame.attention is frame else None)
        unused = [s for s in unused if not s.done]
        if frame.attention is not None:
            frame.attention.unfinished += [s for s in unused if s.home is None]
            self._notice_unknown(frame.attention, tensors_in((output,), {}))
        if frame.failure is None and frame.attention is frame:
            frame.failure = reasons.row_count_reason(
                module, frame.calls, tensors_in((output,) if not isinstance(output, tuple) else output, {})
            )
        if frame.failure is None and frame.attention is None and frame.instead_of_softmax and not frame.calls:
            frame.failure = reasons.unnormalised_reason(module, frame.instead_of_softmax)
        unseen = reasons.unfinished_reason(frame.unfinished)
        if not unseen and frame.instead_of_softmax:
            unseen = f"its values are multiplied by what is not a softmax ({frame.instead_of_softmax})"
        return Outcome(
            calls=[] if frame.failure else frame.calls,
            failure=frame.failure,
            unseen=unseen,
            mixed=frame.mixed and not frame.left_softmax,
            unused=[(s.home, reasons.unfinished_reason([s])) for s in unused if s.home is not None],
        )

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Copy traced tensors that a function is about to overwrite."""
        if not writes(func, kwargs):
            return
        target = kwargs.get("out", args[0] if args else kwargs.get("input"))
        if not isinstance(target, Tensor):
            return
        if func in _EXPONENTIALS and self._trace_of(target) is not None:
            self._before_exponential = target.detach().clone()
        for softmax in self._softmaxes:
            softmax.weights.keep(target)

    def after(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Trace one torch function that the innermost running module called."""
        if not self._frames:
            return
        frame = self._frames[-1]
        given = tensors_in(args, kwargs)
        if frame.attention is not None and not frame.attention.mixed:
            frame.attention.mixed = pointwise.mixes(func, args, kwargs, part=frame.attention.is_part)
            self._notice_unknown(frame.attention, given)
            for tensor in tensors_in((out,), {}):
                self._known[tensor] = True
        origins = [(tensor, trace) for tensor in given if (trace := self._trace_of(tensor)) is not None]
        product = contraction(func, args, kwargs, self._keys_of) if isinstance(out, Tensor) else None
        if product is not None and out.dim() == len(product.result):
            self._trace_product(frame, product, out, func)
        elif func is torch.einsum and any(self._keys_of(tensor) for tensor, _ in origins):
            self._note_einsum(origins)
        elif func in _SOFTMAXES or (func in _EXPONENTIALS and origins):
            self._trace_softmax(frame, func, args, kwargs, out)
        elif origins:
            self._trace_other(origins, func, args, kwargs, out)
        self._codes.after(func, args, kwargs, out)

    def take_weighted(self) -> tuple[nn.Module, WeightedValues] | None:
        """Return the product of weights and values that the last function computed, and its module. Returns it once."""
        weighted, self._weighted = self._weighted, None
        return weighted

    def lost(self, error: Exception) -> None:
        """Mark the running attention as failed: tracing it raised an error, which the model must not see."""
        if self._frames:
            frame = self._frames[-1].attention or self._frames[-1]
            name = type(frame.module).__name__
            frame.failure = f"Clearhead could not follow what {name} computes: {type(error).__name__}: {error}"

    def _notice_unknown(self, attention: Frame, tensors: list[Tensor]) -> None:
        """Note tensors of unknown origin, from code that no function mode sees, such as a scripted function."""
        if not attention.mixed:
            attention.mixed = any(t not in self._known and not isinstance(t, nn.Parameter) for t in tensors)

    def _keys_of(self, tensor: Tensor) -> list[int]:
        return softmax_axes(self._trace_of(tensor), tensor)

    def _trace_of(self, tensor: Tensor) -> Trace | None:
        """Return the open products and softmaxes that a tensor comes from."""
        trace = self._traces.get(tensor)
        if trace is None:
            return None
        trace.products = [item for item in trace.products if item[0].contraction is not None]
        trace.softmaxes = [item for item in trace.softmaxes if item[0].open]
        return trace if trace.products or trace.softmaxes else None

    def _trace_product(self, frame: Frame, product: Contraction, out: Tensor, func: Any) -> None:
        """Trace a product: of weights and values, of weights and another tensor, or perhaps of queries and keys."""
        traces = [self._trace_of(tensor) or Trace() for tensor in product.tensors]
        weighted = [side for side in (0, 1) if traces[side].softmaxes]
        if not weighted and (mixed := mixed_logits(product, traces)) is not None:
            self._traces[out] = mixed
            return
        if not weighted:
            steps = [step.strip("_") for other in traces if other.products for step in other.through]
            if steps and (frame.attention is not None or sums_over_keys(product, traces)):
                (frame.attention or frame).instead_of_softmax = steps[-1]
            if product.summed and len(product.result) > 1 and (frame.attention is not None or not is_layer(product)):
                self._add_waiting(frame, product, out)
            return
        side = weighted[0]
        trace = traces[side]
        if len(weighted) == 1 and not mixes_weights(trace, product, side):
            self._trace_weighted_values(trace, product, side, out)
            return
        both = [item for other in traces for item in other.softmaxes]
        unique = {id(item[0]): (item[0], None) for item in both}
        self._traces[out] = Trace([], list(unique.values()), (*trace.through, func.__name__))

    def _add_waiting(self, frame: Frame, product: Contraction, out: Tensor) -> None:
        left, right = product.tensors
        product = replace(product, codes=(self._codes.get(left), self._codes.get(right)))
        made = Product(product, layouts.layout(out), frame)
        self._products.append(made)
        if len(self._products) > WAITING:
            self._products.pop(0).contraction = None
        self._traces[out] = Trace([(made, made.layout)])

    def _trace_weighted_values(self, trace: Trace, product: Contraction, side: int, out: Tensor) -> None:
        """Compare weights that multiply values with their softmax, and make a Call from them."""
        owners = [owner_of(softmax) for softmax, _ in trace.softmaxes]
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
            return  # its logits are not a product: reported when the module ends
        summed = summed_axes(product, side)
        keys = summed if now is None else softmax.weights.part_along(now, summed)
        sums_more, summed = len(keys) < len(summed), keys
        matched = match_softmax(softmax.weights, product.tensors[side], now, summed)
        if matched is None:
            softmax.done = True
            owner.failure = f"{name} {reasons.changed_weights_reason(softmax, trace.through, now, summed)}"
            return
        key = (now.storage_offset(), now.shape, now.stride()) if now is not None else ()
        if self._describe_products and now is not None and not sums_more:
            described = described_product(owner.hints, softmax, softmax.weights.logits)
            weighted = WeightedValues.of(out, product, side, softmax, now, described)
            if weighted is not None:
                self._weighted = (owner.module, replace(weighted, again=key in softmax.covered))
        softmax.covered[key] = matched.count
        if not softmax.done and sum(softmax.covered.values()) >= matched.total:
            softmax.done = True
            call = self._call(owner, softmax, matched.logits)
            if isinstance(call, str):
                owner.failure = f"{name} {call}"
            else:
                owner.calls.append(call)

    def _note_einsum(self, origins: list[tuple[Tensor, Trace]]) -> None:
        """Note an einsum that is not a product of weights and values, because it also changes the weights."""
        for softmax, _ in (item for _, trace in origins for item in trace.softmaxes):
            if softmax.product is not None and not softmax.done:
                softmax.done = True
                owner = owner_of(softmax)
                name = type(owner.module).__name__
                owner.failure = f"{name} multiplies its softmax by more than its values in one einsum"

    def _call(self, owner: Frame, softmax: Softmax, logits: Tensor) -> Call | str:
        """Return the Call of a softmax that multiplied values, or the reason why there is none."""
        described = described_product(owner.hints, softmax, logits)
        if isinstance(described, str):
            return described
        with torch.no_grad():
            table, query, key = arranged_by_role(described.product, described.roles, logits, described.groups)
            if owner.hints.in_blocks(table.shape, key):
                rows, keys = table.shape[2:]
                return f"attends in blocks of {rows} queries and {keys} keys, which are not one matrix over its input"
            return self._fit.call(owner.module, table, query, key)

    def _trace_softmax(self, frame: Frame, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        given = dict(zip(("input", "dim"), args, strict=False)) | kwargs
        logits, axis = given.get("input", given.get("self")), given.get("dim")
        if not isinstance(logits, Tensor) or not isinstance(out, Tensor) or logits.dim() == 0:
            return
        is_exponential = func in _EXPONENTIALS
        before, self._before_exponential = self._before_exponential, None
        if is_exponential:
            axis = None
        elif isinstance(axis, int) and logits.dim() > 1:
            axis %= logits.dim()
        else:
            return
        trace = self._trace_of(logits)
        made, now = product_of(logits, trace, self._products)
        sources = len(trace.products) if trace is not None else 1
        if is_exponential and made is None:
            self._trace_other([(logits, trace)] if trace is not None else [], func, args, kwargs, out)
            return
        frame.softmaxes += not is_exponential
        if not holds_numbers(out) or not out.numel():
            if made is not None:
                (frame.attention or made.frame).failure = NO_TOKENS if holds_numbers(out) else NO_NUMBERS
            return
        source = before if out is logits and before is not None else logits
        softmax = Softmax(SoftmaxWeights.of(source, out, axis), made, now, frame, sources)
        self._softmaxes.append(softmax)
        self._traces[out] = Trace([], [(softmax, softmax.weights.layout)])

    def _trace_other(
        self, given: list[tuple[Tensor, Trace]], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any
    ) -> None:
        """Trace the outputs of any other function of traced tensors."""
        for output, trace in derived(given, func, args, kwargs, out):
            self._traces[output] = trace

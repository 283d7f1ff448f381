"""Capture attention outside Hugging Face's interface, with a TorchFunctionMode that sees calls of attention functions.

The mode sees `F.scaled_dot_product_attention`, `nn.MultiheadAttention`, flex attention, and Clearhead's own functions,
whose first argument is a `kernels.Problem`; every other function goes to softmax tracing. While a mode is active, torch
does not use the C++ fast paths of nn.MultiheadAttention and nn.TransformerEncoderLayer, which no mode could see. Their
output is then the same to rounding.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearhead.arguments import Kind, kind
from clearhead.capture.adapters import flex_attention
from clearhead.capture.adapters.exported import as_function
from clearhead.capture.adapters.torch_compile import EagerMode, can_compile
from clearhead.capture.call import Call, attention_of
from clearhead.capture.head_outputs.replaced_outputs import before_edits, note_edit
from clearhead.capture.softmax_tracing.contraction import without_addend
from clearhead.capture.softmax_tracing.frames import Outcome
from clearhead.capture.softmax_tracing.tracer import SoftmaxTracer
from clearhead.capture.softmax_tracing.weighted_values import WeightedValues
from clearhead.errors import CaptureError
from clearhead.kernels import Problem, Result
from clearhead.masks import Mask, lower
from clearhead.masks.kinds import from_causal_bias
from clearhead.masks.lower import split_reach
from clearhead.spec import EVERYWHERE

# True while a function of Hugging Face's interface runs: the calls inside it are part of one recorded call.
within_interface: ContextVar[bool] = ContextVar("within_interface", default=False)

_sdpa = F.scaled_dot_product_attention
_mha = F.multi_head_attention_forward
_signature = inspect.signature(_mha)
_swapping = threading.RLock()


class Editor(Protocol):
    """Replaces the outputs of attention."""

    def edit(self, call: Call) -> Tensor | None:
        """Return the output (B, L, H, D_v) that replaces `call.out`; None to keep it."""
        ...

    def edit_weighted(self, module: nn.Module, weighted: WeightedValues) -> Tensor | None:
        """The same for a product of weights and values in a model's own code, in the product's own axes."""
        ...


class AttentionFunctionMode(TorchFunctionMode):
    """Calls `listener` with each attention computed in the module that `current` returns.

    Args:
        listener: called with each Call.
        current: returns the module that is computing attention now.
        missed: called with a module and the reason why its attention cannot be recorded.
        eager: the open EagerMode; begun here if the model imports torch's compiler while it runs.
        editor: replaces outputs; None keeps them.
    """

    def __init__(
        self,
        listener: Callable[[Call], Any],
        current: Callable[[], nn.Module | None],
        missed: Callable[[nn.Module, str], None],
        eager: EagerMode,
        editor: Editor | None = None,
    ) -> None:
        super().__init__()
        self._listener = listener
        self._current = current
        self._missed = missed
        self._eager = eager
        self._editor = editor
        self._tracer = SoftmaxTracer(describe_products=editor is not None)
        self.adapter_depth = 0  # number of running modules that an adapter records

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._eager.is_on and can_compile():  # the model has just imported torch's compiler
            if torch.compiler.is_compiling():
                return func(*args, **kwargs)
            self._eager.begin()
        if func is _mha:
            return self._multi_head(args, kwargs)
        if within_interface.get():
            return func(*args, **kwargs)
        run, func = func, as_function(func)
        if not self.adapter_depth:
            self._guarded(self._tracer.before, func, args, kwargs)
        out = run(*args, **kwargs)
        if func is _sdpa:
            out = self._report_sdpa(args, kwargs, out)
        elif args and isinstance(args[0], Problem):
            out = self._report_clearhead(args, out)
        elif flex_attention.is_flex(func):
            out = self._report_flex(args, out)
        if not self.adapter_depth:
            self._guarded(self._tracer.after, func, args, kwargs, out)
            out = self._edited_product(func, args, kwargs, out)
        return out

    def _edited_product(self, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
        """Return the edited product of weights and values that the tracer has just found in a model's own code."""
        weighted = self._tracer.take_weighted()
        if self._editor is None or weighted is None:
            return out
        module, values = weighted
        alone = without_addend(func, args, kwargs, out)
        edited = self._editor.edit_weighted(module, replace(values, out=alone))
        if edited is None or alone is out:
            return out if edited is None else edited
        return torch.where(edited == alone, out, edited + (out - alone))  # what no edit changes keeps its bits

    def _edited(self, call: Call, out: Tensor) -> Tensor | None:
        """Return what replaces the output `out`, (B, H, L, D_v), as (B, L, H, D_v); None keeps it."""
        return None if self._editor is None else self._editor.edit(replace(call, out=out.transpose(1, 2)))

    def _guarded(self, trace: Callable[..., None], *args: Any) -> None:
        """Trace what a model computes. An error in tracing is listed as missed, not raised in the model."""
        try:
            trace(*args)
        except Exception as error:  # noqa: BLE001 (the model runs on)
            self._tracer.lost(error)

    def begin(self, module: nn.Module, given: tuple[Any, ...], named: bool) -> None:
        """Note that a module starts, for softmax tracing."""
        self._tracer.begin(module, given, named)

    def end(self, module: nn.Module, output: Any) -> Outcome:
        """Report the attention that softmax tracing found in a module whose pass has ended."""
        outcome = self._tracer.end(module, output)
        for call in outcome.calls:
            self._listener(call)
        if outcome.failure is not None:
            self._missed(module, outcome.failure)
        for other, reason in outcome.unused:
            self._missed(other, f"{type(other).__name__} computes its attention by itself, and {reason}")
        return outcome

    def _report_sdpa(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> Tensor:
        """Report a call of torch's function. Return its output, edited if there is an editor."""
        module = self._current()
        if module is None:
            return out
        own = before_edits(out)
        call = describe_sdpa(module, own, *args, **kwargs)
        self._listener(call)
        edited = self._edited(call, out if out.dim() == 4 else out[(None,) * (4 - out.dim())])
        return out if edited is None else note_edit(out, edited.transpose(1, 2).reshape(out.shape))

    def _report_flex(self, args: tuple[Any, ...], out: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Report a call of flex attention, if its functions have an exact description."""
        module = self._current()
        if module is None:
            return out
        try:
            call = flex_attention.describe(module, args, before_edits(out[0]))
        except CaptureError as error:
            self._missed(module, str(error))
            return out
        self._listener(call)
        edited = self._edited(call, out[0])
        return out if edited is None else (note_edit(out[0], edited.transpose(1, 2)), *out[1:])

    def _report_clearhead(self, args: tuple[Any, ...], out: Any) -> Any:
        """Report Clearhead's own attention: a Problem."""
        module = self._current()
        if module is None:
            return out
        now = out[0] if isinstance(out, tuple) else out.out
        try:
            call = describe_problem(module, args[0], before_edits(now))
        except CaptureError as error:
            self._missed(module, str(error))
            return out
        self._listener(call)
        edited = self._edited(call, now)
        if edited is None:
            return out
        new = note_edit(now, edited.transpose(1, 2))
        return (new, *out[1:]) if isinstance(out, tuple) else Result(new, out.lse)

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run and report nn.MultiheadAttention's function, whose inner calls the mode does not see."""
        bound = _signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = bound.arguments
        if not options["need_weights"]:
            with self._swapped():
                return _mha(*args, **kwargs)
        # With need_weights it does not call SDPA. Its result is returned as it is; a second run gives queries and keys,
        # and where heads are edited, the output.
        result = _mha(*args, **kwargs)
        if self._editor is not None:
            with torch._C.DisableTorchFunction(), self._swapped():
                return _mha(**{**options, "need_weights": False})[0], result[1]
        # Other modes must not see the second run: an observer around this one has seen the first.
        with torch.no_grad(), torch._C.DisableTorchFunction(), self._swapped():
            _mha(**{**options, "need_weights": False, "training": False, "dropout_p": 0.0})
        return result

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        """Make F.scaled_dot_product_attention report its calls in this thread, inside the block."""
        mine = threading.get_ident()

        with _swapping:
            before = F.scaled_dot_product_attention  # torch's, or that of an observer around this one

            def reporting(*args: Any, **kwargs: Any) -> Tensor:
                out = before(*args, **kwargs)
                return self._report_sdpa(args, kwargs, out) if threading.get_ident() == mine else out

            F.scaled_dot_product_attention = reporting
            try:
                yield
            finally:
                F.scaled_dot_product_attention = before


def describe_problem(module: nn.Module, problem: Problem, out: Tensor) -> Call:
    """Return the Call of Clearhead's own attention, from a problem and its output (B, H, L, D_v)."""
    attention = problem.attention
    if isinstance(attention.rule, Mask):
        lowered = lower(attention.rule, *problem.shape[2:], device=problem.query.device)
        attention = replace(attention, rule=None).under(lowered)
    attention = attention.with_four_axes()
    return Call(
        module=module,
        query=problem.query,
        key=problem.key,
        attention=replace(attention, allow=None, dropout_p=0.0, seed=0),
        mask=attention.allow,
        value=problem.value,
        out=out.transpose(1, 2),
        dropout=attention.dropout_p > 0,
    )


def describe_sdpa(
    module: nn.Module,
    out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Call:
    """Return the Call of `F.scaled_dot_product_attention`. Three axes are (H, L, D), two axes are (L, D)."""
    reach = EVERYWHERE
    if attn_mask is not None and kind(attn_mask) is Kind.CAUSAL_BIAS:
        reach, attn_mask = split_reach(from_causal_bias(attn_mask))[0], None
    while query.dim() < 4 and query.dim() == key.dim() == value.dim():
        query, key, value, out = query[None], key[None], value[None], out[None]
        attn_mask = attn_mask[None] if attn_mask is not None and attn_mask.dim() == 3 else attn_mask
    if attn_mask is not None and attn_mask.dim() == 2:
        attn_mask = attn_mask[None, None]  # (L, S); two axes alone would be read as (B, S)
    return Call(
        module=module,
        query=query,
        key=key,
        attention=attention_of(query, scale, is_causal=is_causal, reach=reach),
        mask=attn_mask,
        value=value,
        out=out.transpose(-3, -2),
        dropout=dropout_p > 0,
    )

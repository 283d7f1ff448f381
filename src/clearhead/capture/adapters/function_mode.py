"""Attention outside Hugging Face's interface: a TorchFunctionMode that sees direct calls of attention functions.

It sees `F.scaled_dot_product_attention`, `nn.MultiheadAttention`, flex attention, and Clearhead's own functions, whose
first argument is a `kernels.Problem`; every other function goes to softmax tracing. While a mode is active, torch does
not use the C++ fast paths of nn.MultiheadAttention and nn.TransformerEncoderLayer, which no mode could see; their
output is then the same to rounding.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearhead.arguments import Kind, kind
from clearhead.capture.adapters import flex_attention
from clearhead.capture.call import Call, attention_of
from clearhead.capture.softmax_tracing.frames import Outcome
from clearhead.capture.softmax_tracing.tracer import SoftmaxTracer
from clearhead.errors import CaptureError
from clearhead.kernels import Problem
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


class AttentionFunctionMode(TorchFunctionMode):
    """Calls `listener` with each attention computed in the module that `current` returns.

    Args:
        listener: called with each Call.
        current: returns the module that is computing attention now.
        missed: called with a module and a reason where its attention cannot be recorded.
    """

    def __init__(
        self,
        listener: Callable[[Call], Any],
        current: Callable[[], nn.Module | None],
        missed: Callable[[nn.Module, str], None],
    ) -> None:
        super().__init__()
        self._listener = listener
        self._current = current
        self._missed = missed
        self._tracer = SoftmaxTracer()
        self.adapter_depth = 0  # how many running modules have an adapter, which records them

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _mha:
            return self._multi_head(args, kwargs)
        if within_interface.get():
            return func(*args, **kwargs)
        if not self.adapter_depth:
            self._guarded(self._tracer.before, func, args, kwargs)
        out = func(*args, **kwargs)
        if func is _sdpa:
            self._report_sdpa(args, kwargs, out)
        elif args and isinstance(args[0], Problem):
            self._report_clearhead(args, out)
        elif flex_attention.is_flex(func):
            self._report_flex(args, out)
        if not self.adapter_depth:
            self._guarded(self._tracer.after, func, args, kwargs, out)
        return out

    def _guarded(self, trace: Callable[..., None], *args: Any) -> None:
        """Trace what a model computes; an error in tracing is listed as missed and not raised in the model."""
        try:
            trace(*args)
        except Exception as error:  # noqa: BLE001 (the model runs on)
            self._tracer.lost(error)

    def begin(self, module: nn.Module, given: tuple[Any, ...], named: bool) -> None:
        """Note that a module starts, for softmax tracing."""
        self._tracer.begin(module, given, named)

    def end(self, module: nn.Module, output: Any) -> Outcome:
        """Report the attention that softmax tracing found in a module that is done."""
        outcome = self._tracer.end(module, output)
        for call in outcome.calls:
            self._listener(call)
        if outcome.failure is not None:
            self._missed(module, outcome.failure)
        for other, reason in outcome.unused:
            self._missed(other, f"{type(other).__name__} computes its attention by itself, and {reason}")
        return outcome

    def _report_sdpa(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        module = self._current()
        if module is not None:
            self._listener(describe_sdpa(module, out, *args, **kwargs))

    def _report_flex(self, args: tuple[Any, ...], out: tuple[Tensor, ...]) -> None:
        """Report a call of flex attention, if its functions have an exact description."""
        module = self._current()
        if module is None:
            return
        try:
            self._listener(flex_attention.describe(module, args, out[0]))
        except CaptureError as error:
            self._missed(module, str(error))

    def _report_clearhead(self, args: tuple[Any, ...], out: Any) -> None:
        """Report Clearhead's own attention: a Problem."""
        module = self._current()
        if module is None:
            return
        try:
            call = describe_problem(module, args[0], out[0] if isinstance(out, tuple) else out.out)
        except CaptureError as error:
            self._missed(module, str(error))
            return
        self._listener(call)

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run and report nn.MultiheadAttention's function, whose inner calls a mode does not see."""
        bound = _signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = bound.arguments
        if not options["need_weights"]:
            with self._swapped():
                return _mha(*args, **kwargs)
        # With need_weights it does not call SDPA. Its result is returned as it is; a second run gives queries and keys.
        result = _mha(*args, **kwargs)
        # Other modes must not see the second run: an observer around this one has seen the first.
        with torch.no_grad(), torch._C.DisableTorchFunction(), self._swapped():
            _mha(**{**options, "need_weights": False, "training": False, "dropout_p": 0.0})
        return result

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        """While open, F.scaled_dot_product_attention reports its calls in this thread."""
        mine = threading.get_ident()

        with _swapping:
            before = F.scaled_dot_product_attention  # torch's, or that of an observer around this one

            def reporting(*args: Any, **kwargs: Any) -> Tensor:
                out = before(*args, **kwargs)
                if threading.get_ident() == mine:
                    self._report_sdpa(args, kwargs, out)
                return out

            F.scaled_dot_product_attention = reporting
            try:
                yield
            finally:
                F.scaled_dot_product_attention = before


def describe_problem(module: nn.Module, problem: Problem, out: Tensor) -> Call:
    """A call of Clearhead's own attention: a problem, and its output (B, H, L, D_v)."""
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
    """The Call of `F.scaled_dot_product_attention`; tensors of three axes are read as (H, L, D), of two as (L, D)."""
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

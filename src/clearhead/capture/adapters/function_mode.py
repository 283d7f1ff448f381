"""Attention outside Hugging Face's interface: direct calls of torch's functions, and nn.MultiheadAttention.

A TorchFunctionMode sees each call of `F.scaled_dot_product_attention`, and each of Clearhead's own functions, whose
first argument is a `kernels.Problem`. While one is active, torch itself leaves the C++ fast paths of
nn.MultiheadAttention and nn.TransformerEncoderLayer, which would be seen by nobody; their output is then the same to
rounding.
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
from clearhead.capture.call import Call
from clearhead.capture.softmax_tracing.tracer import ByHand, Outcome
from clearhead.errors import CaptureError
from clearhead.kernels import Problem
from clearhead.masks import Mask, lower
from clearhead.masks.kinds import from_causal_bias
from clearhead.masks.lower import ANYWHERE, split_reach

# Set while a function of Hugging Face's interface runs: what it calls inside is its own affair.
within_interface: ContextVar[bool] = ContextVar("within_interface", default=False)

_sdpa = F.scaled_dot_product_attention
_mha = F.multi_head_attention_forward
_signature = inspect.signature(_mha)
_swapping = threading.RLock()


class Direct(TorchFunctionMode):
    """Tells `listener` of each attention computed in the module that `current` names.

    Args:
        listener: called with each Call.
        current: the module that runs now, and whether it looks like attention.
        missed: called with a module and a reason where a module's own softmax is of no known kind.
    """

    def __init__(
        self,
        listener: Callable[[Call], Any],
        current: Callable[[], tuple[nn.Module | None, bool]],
        missed: Callable[[nn.Module, str], None],
    ) -> None:
        super().__init__()
        self._listener = listener
        self._current = current
        self._missed = missed
        self._by_hand = ByHand()
        self.quiet = 0  # how many modules run whose classes say what they compute

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is _mha:
            return self._multi_head(args, kwargs)
        if within_interface.get():
            return func(*args, **kwargs)
        if not self.quiet:
            self._guarded(self._by_hand.before, func, args, kwargs)
        out = func(*args, **kwargs)
        if func is _sdpa:
            self._tell(args, kwargs, out)
        elif args and isinstance(args[0], Problem):
            self._tell_ours(func, args, kwargs, out)
        elif flex_attention.is_flex(func):
            self._tell_flex(args, out)
        if not self.quiet:
            self._guarded(self._by_hand.saw, func, args, kwargs, out)
        return out

    def _guarded(self, look: Callable[..., None], *args: Any) -> None:
        """Look at what a model computes; an error in that is told of as missed, and never the model's."""
        try:
            look(*args)
        except Exception as error:  # noqa: BLE001 (the model runs on)
            self._by_hand.lost(error)

    def begin(self, module: nn.Module, given: tuple[Any, ...], named: bool) -> None:
        """A module starts: what it multiplies and puts through a softmax is looked at."""
        self._by_hand.begin(module, given, named)

    def end(self, module: nn.Module, output: Any) -> Outcome:
        """It is done: tell of what it computed by its own hand."""
        outcome = self._by_hand.end(module, output)
        for call in outcome.calls:
            self._listener(call)
        if outcome.failure is not None:
            self._missed(module, outcome.failure)
        for other, reason in outcome.left:
            self._missed(other, f"{type(other).__name__} computes its attention by itself, and {reason}")
        return outcome

    def _tell(self, args: tuple[Any, ...], kwargs: dict[str, Any], out: Tensor) -> None:
        module, _ = self._current()
        if module is not None:
            self._listener(described(module, out, *args, **kwargs))

    def _tell_flex(self, args: tuple[Any, ...], out: tuple[Tensor, ...]) -> None:
        """A call of flex attention, if what its functions do can be said exactly."""
        module, _ = self._current()
        if module is None:
            return
        try:
            self._listener(flex_attention.described(module, args, out[0]))
        except CaptureError as error:
            self._missed(module, str(error))

    def _tell_ours(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Clearhead's own attention: a Problem, and perhaps a rule and dropout besides."""
        module, _ = self._current()
        if module is None:
            return
        given = inspect.signature(func).bind(*args, **kwargs).arguments
        try:
            call = of_problem(module, args[0], given.get("rule"), out[0] if isinstance(out, tuple) else out.out)
        except CaptureError as error:
            self._missed(module, str(error))
            return
        self._listener(replace(call, dropout=bool(given.get("dropout_p"))))

    def _multi_head(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """nn.MultiheadAttention's own function, which hides what it calls inside from a mode."""
        bound = _signature.bind(*args, **kwargs)
        bound.apply_defaults()
        options = bound.arguments
        if not options["need_weights"]:
            with self._swapped():
                return _mha(*args, **kwargs)
        # Asked for weights, it makes them by hand. Its answer stays as it is; queries and keys come from a second run.
        result = _mha(*args, **kwargs)
        # Nobody else is to see that one: an observer around this one has seen the first.
        with torch.no_grad(), torch._C.DisableTorchFunction(), self._swapped():
            _mha(**{**options, "need_weights": False, "training": False, "dropout_p": 0.0})
        return result

    @contextmanager
    def _swapped(self) -> Iterator[None]:
        """While open, F.scaled_dot_product_attention tells the listener; in other threads it is itself."""
        mine = threading.get_ident()

        with _swapping:
            before = F.scaled_dot_product_attention  # torch's, or that of an observer around this one

            def told(*args: Any, **kwargs: Any) -> Tensor:
                out = before(*args, **kwargs)
                if threading.get_ident() == mine:
                    self._tell(args, kwargs, out)
                return out

            F.scaled_dot_product_attention = told
            try:
                yield
            finally:
                F.scaled_dot_product_attention = before


def of_problem(module: nn.Module, problem: Problem, rule: Mask | None, out: Tensor) -> Call:
    """A call of Clearhead's own attention: a problem, the rule it was under besides, and its output (B, H, L, D_v)."""
    rows, keys = problem.query.shape[2], problem.key.shape[2]
    reach, allow, bias = problem.band, problem.allow, problem.bias
    alibi, offset = problem.alibi, problem.alibi_offset
    if rule is not None:  # then the problem itself has no mask
        lowered = lower(rule, rows, keys, device=problem.query.device)
        reach, allow, bias = lowered.reach, lowered.allow, lowered.bias
        alibi, offset = lowered.alibi, lowered.alibi_offset
    return Call(
        module=module,
        query=problem.query,
        key=problem.key,
        value=problem.value,
        out=out.transpose(1, 2),
        scale=problem.scale,
        reach=reach,
        mask=_four_axes(allow),
        bias=_four_axes(bias),
        softcap=problem.softcap,
        sinks=problem.sinks,
        alibi=alibi,
        alibi_offset=offset,
    )


def _four_axes(mask: Tensor | None) -> Tensor | None:
    """A Problem's mask broadcasts from the right; two axes alone would be read as (B, S)."""
    return None if mask is None else mask[(None,) * (4 - mask.dim())]


def described(
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
    """A call of `F.scaled_dot_product_attention`; three axes are read as (H, L, D) of one batch element, two as (L, D)
    of one head."""
    reach = ANYWHERE
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
        value=value,
        out=out.transpose(-3, -2),
        scale=scale,
        is_causal=is_causal,
        reach=reach,
        mask=attn_mask,
        dropout=dropout_p > 0,
    )

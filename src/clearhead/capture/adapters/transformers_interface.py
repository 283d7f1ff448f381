"""Hugging Face's attention interface: see each call on its way through the model's own attention function.

Every model that uses the interface asks `AttentionInterface.get_interface(name, default)` for its function at each
call. While somebody watches, the answer is that same function with a listener behind it; the name the model is set
to, its masks and its kernel stay as they are. This also sees "eager", which is never registered under its name.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import Tensor, nn

from clearhead.capture.adapters.function_mode import within_interface
from clearhead.capture.call import Call

# Told of each call; answers what it kept, as the model's own code may pass it on.
Listener = Callable[[Call], Any]

# Who watches in this thread. A thread of its own starts with nobody, so runs elsewhere are not mixed in.
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("listeners", default=())
_INTERFACE = "ALL_ATTENTION_FUNCTIONS"
_lock = threading.Lock()
_watching = 0
_original: Any = None


@contextmanager
def watched(listener: Listener) -> Iterator[None]:
    """Tell `listener` of every call in this thread; put everything back on leaving."""
    patched = "transformers" in sys.modules  # nobody can hold a model of a library that was not imported
    if patched:
        _install()
    _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:  # whoever came in between stays: generators and exit stacks may leave in another order
        _listeners.set(tuple(other for other in _listeners.get() if other is not listener))
        if patched:
            _remove()


def _install() -> None:
    global _watching, _original
    from transformers.modeling_utils import AttentionInterface

    with _lock:
        if _watching == 0:
            original = _original = AttentionInterface.get_interface

            def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
                function = original(self, attn_implementation, default)
                return _listened(function, attn_implementation) if _listeners.get() else function

            AttentionInterface.get_interface = get_interface
        _watching += 1


def _remove() -> None:
    global _watching, _original
    from transformers.modeling_utils import AttentionInterface

    with _lock:
        _watching -= 1
        if _watching == 0:
            AttentionInterface.get_interface, _original = _original, None


def _listened(function: Callable[..., Any], implementation: str | None) -> Callable[..., Any]:
    @functools.wraps(function)
    def listened(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Any = None,
        *args: Any,
        **options: Any,
    ) -> Any:
        token = within_interface.set(True)
        try:
            result = function(module, query, key, value, attention_mask, *args, **options)
        finally:
            within_interface.reset(token)
        call = describe(module, query, key, value, attention_mask, options, result[0], implementation)
        kept = [listener(call) for listener in _listeners.get()]
        lazy = next((matrix for matrix in kept if matrix is not None), None)
        if lazy is None or len(result) < 2 or result[1] is not None:
            return result
        # The model's kernel makes no weights: `outputs.attentions` holds the lazy matrix in their place.
        return (result[0], lazy, *result[2:])

    return listened


def speaks(module: nn.Module) -> bool:
    """Whether a module's own class uses the attention interface; its file may hold others that do not."""
    kind = type(module)
    if not hasattr(sys.modules.get(kind.__module__), _INTERFACE):
        return False
    methods = (inspect.unwrap(method) for method in vars(kind).values() if inspect.isfunction(method))
    return any(_INTERFACE in method.__code__.co_names for method in methods)


def describe(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Any,
    options: dict[str, Any],
    out: Tensor,
    implementation: str | None,
) -> Call:
    """What the interface's arguments mean, as each of its functions reads them (transformers 5.23)."""
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    # Eager knows no causality but the mask's. The others add it only where there is no mask and more than one query.
    is_causal = implementation not in ("eager", None) and mask is None and query.shape[2] > 1 and bool(causal)
    return Call(
        module=module,
        query=query,
        key=key,
        value=value,
        out=out,
        scale=options.get("scaling"),
        is_causal=is_causal,
        mask=mask,
        bias=options.get("position_bias"),
        softcap=options.get("softcap"),
        sinks=options.get("s_aux"),
        dropout=bool(options.get("dropout")),
    )

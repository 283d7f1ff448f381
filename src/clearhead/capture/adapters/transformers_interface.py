"""Observe Hugging Face models with a listener behind transformers' attention interface.

Every model that uses the interface asks `AttentionInterface.get_interface(name, default)` for its attention function
at each call. While a model is observed, `get_interface` returns that same function with a listener behind it. The
model's attention implementation, masks and kernel do not change. This covers "eager" too, which is not registered.
"""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from clearhead.capture.adapters.function_mode import Editor, within_interface
from clearhead.capture.call import Call, attention_of
from clearhead.capture.head_outputs.replaced_outputs import note_edit
from clearhead.spec import Attention

# Called with each Call; returns the recorded matrix, which the model may return as `attentions`.
Listener = Callable[[Call], Any]
# Called before it with (module, query, key, mask, options); returns the matrix of a call that is like the one before,
# so that nothing else has to be described; None for any other.
Follower = Callable[[nn.Module, Tensor, Tensor, Any, dict[str, Any]], Any]

# The listeners and editors of this thread. A new thread has none, so runs in other threads are not recorded.
_listeners: ContextVar[tuple[tuple[Listener, Follower | None], ...]] = ContextVar("listeners", default=())
_editors: ContextVar[tuple[Editor, ...]] = ContextVar("editors", default=())
_NUMBERS = (float, int, type(None))
_INTERFACE = "ALL_ATTENTION_FUNCTIONS"
_lock = threading.Lock()
_observers = 0
_original: Any = None


@contextmanager
def listening(listener: Listener, follower: Follower | None = None) -> Iterator[None]:
    """Inside the block, pass every call in this thread to `follower`, and those it declines to `listener`."""
    with _entered(_listeners, (listener, follower)):
        yield


@contextmanager
def editing(editor: Editor) -> Iterator[None]:
    """Inside the block, let `editor` replace the outputs of the interface in this thread."""
    with _entered(_editors, editor):
        yield


@contextmanager
def _entered(entries: ContextVar[tuple[Any, ...]], entry: Any) -> Iterator[None]:
    patched = "transformers" in sys.modules  # otherwise the model is not from transformers
    if patched:
        _install()
    entries.set((*entries.get(), entry))
    try:
        yield
    finally:  # remove only this entry: generators and exit stacks may exit in any order
        entries.set(tuple(other for other in entries.get() if other is not entry))
        if patched:
            _remove()


def _install() -> None:
    global _observers, _original
    from transformers.modeling_utils import AttentionInterface

    with _lock:
        if _observers == 0:
            original = _original = AttentionInterface.get_interface
            listened = functools.lru_cache(maxsize=64)(_listened)  # models ask at each call

            def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Callable[..., Any]:
                function = original(self, attn_implementation, default)
                watched = _listeners.get() or _editors.get()
                return listened(function, attn_implementation) if watched else function

            AttentionInterface.get_interface = get_interface
        _observers += 1


def _remove() -> None:
    global _observers, _original
    from transformers.modeling_utils import AttentionInterface

    with _lock:
        _observers -= 1
        if _observers == 0:
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
        call = lazy = None
        for listener, follower in _listeners.get():
            matrix = None if follower is None else follower(module, query, key, attention_mask, options)
            if matrix is None:
                if call is None:
                    call = describe(module, query, key, value, attention_mask, options, result[0], implementation)
                matrix = listener(call)
            lazy = matrix if lazy is None else lazy
        if _editors.get():
            if call is None:
                call = describe(module, query, key, value, attention_mask, options, result[0], implementation)
            result = (_edited(call), *result[1:])
        if lazy is None or len(result) < 2 or result[1] is not None:
            return result
        # The model's kernel returns no weights: `outputs.attentions` holds the lazy matrix instead.
        return (result[0], lazy, *result[2:])

    return listened


def _edited(call: Call) -> Tensor:
    """Return the output of a call after all editors."""
    assert call.out is not None  # noqa: S101 (`describe` was given it)
    own = out = call.out
    for editor in _editors.get():
        edited = editor.edit(replace(call, out=out))
        out = out if edited is None else edited.reshape(out.shape)
    return out if out is own else note_edit(own, out)


@functools.lru_cache(maxsize=1024)
def uses_interface(kind: type[nn.Module]) -> bool:
    """Whether a module class itself uses the attention interface; its file may define others that do not."""
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
    """Return the Call for the interface's arguments, as each function of transformers 5.20 to 5.24 reads them."""
    causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    # Eager is causal only through its mask. The others are causal where there is no mask and more than one query.
    is_causal = implementation not in ("eager", None) and mask is None and query.shape[2] > 1 and bool(causal)
    if implementation == "sdpa":
        # Torch's function has neither; transformers 5.20 drops a soft cap here, 5.23 refuses it.
        options = {**options, "softcap": None, "s_aux": None}
    return Call(
        module=module,
        query=query,
        key=key,
        attention=_attention(query, is_causal, options),
        mask=mask,
        value=value,
        out=out,
        dropout=bool(options.get("dropout")),
    )


def relevant(options: dict[str, Any]) -> tuple[Any, ...]:
    """Return those options of a call that change its weights: scale, soft cap, bias, sinks and dropout."""
    get = options.get
    return get("scaling"), get("softcap"), get("position_bias"), get("s_aux"), get("dropout")


def _attention(query: Tensor, is_causal: bool, options: dict[str, Any]) -> Attention:
    """Return the attention that the options describe; the same object for all calls without tensors in them."""
    scale, softcap, bias, sinks, _ = relevant(options)
    if bias is None and sinks is None and type(scale) in _NUMBERS and type(softcap) in _NUMBERS:
        return _numbers_alone(query.shape[-1], scale, softcap, is_causal)
    return attention_of(query, scale, is_causal=is_causal, bias=bias, softcap=softcap, sinks=sinks)


@functools.lru_cache(maxsize=64)
def _numbers_alone(width: int, scale: float | None, softcap: float | None, is_causal: bool) -> Attention:
    return Attention.of(width**-0.5 if scale is None else scale, is_causal=is_causal, softcap=softcap)

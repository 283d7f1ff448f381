"""Clearhead: multi-head attention you can run, see and learn.

`import clearhead` costs milliseconds: a name that needs torch brings it in when it is first touched.
"""

from __future__ import annotations

from importlib import import_module

from clearhead import hooks as _hooks
from clearhead.registration import register as _register

__version__ = "0.2.0"

# What `typing` calls so: importing it takes three times as long as importing all of this.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from clearhead import capture as capture
    from clearhead import errors as errors
    from clearhead import kernels as kernels
    from clearhead import masks as masks
    from clearhead import matrix as matrix
    from clearhead import multihead as multihead
    from clearhead import sandbox as sandbox
    from clearhead import spec as spec
    from clearhead import views as views
    from clearhead.capture import Record as Record
    from clearhead.capture import ablate as ablate
    from clearhead.capture import intervene as intervene
    from clearhead.capture import observe as observe
    from clearhead.matrix import AttentionMatrix as AttentionMatrix
    from clearhead.matrix import rollout as rollout
    from clearhead.multihead import KVCache as KVCache
    from clearhead.multihead import MultiheadAttention as MultiheadAttention
    from clearhead.multihead import Rotary as Rotary
    from clearhead.multihead import accelerate as accelerate
    from clearhead.multihead import attention as attention
    from clearhead.multihead import attention_varlen as attention_varlen
    from clearhead.multihead import hard_attention as hard_attention
    from clearhead.multihead import register_with_transformers as register_with_transformers
    from clearhead.multihead import replace_attention as replace_attention

# Public name -> the room it lives in. A room's own name is never a public name (docs/decisions/0012).
_HOME = {
    "accelerate": "clearhead.multihead",
    "attention": "clearhead.multihead",
    "register_with_transformers": "clearhead.multihead",
    "hard_attention": "clearhead.multihead",
    "replace_attention": "clearhead.multihead",
    "attention_varlen": "clearhead.multihead",
    "Rotary": "clearhead.multihead",
    "KVCache": "clearhead.multihead",
    "MultiheadAttention": "clearhead.multihead",
    "AttentionMatrix": "clearhead.matrix",
    "rollout": "clearhead.matrix",
    "observe": "clearhead.capture",
    "intervene": "clearhead.capture",
    "ablate": "clearhead.capture",
    "Record": "clearhead.capture",
}
_MODULES = ("distributed", "errors", "kernels", "masks")
# Rooms that are attributes too, so that `clearhead.capture.read` needs no import of its own. They are not in `__all__`,
# for `from clearhead import *` must not need an extra.
_ROOMS = ("capture", "course", "local_models", "matrix", "multihead", "sandbox", "spec", "studio", "survey", "views")
_NEED_AN_EXTRA = ("course", "studio")  # left out of `dir`: what a tool lists, it also reads


def _save_record_page(*arguments: Any, **options: Any) -> Any:
    return import_module("clearhead.views.page.html").save(*arguments, **options)


def _sharded_attention(*arguments: Any, **options: Any) -> Any:
    return import_module("clearhead.distributed").attention(*arguments, **options)


def _check_positions(*arguments: Any) -> None:
    import_module("clearhead.distributed.sharding").check_positions(*arguments)


def _refuse_sharded(mesh: Any, query: Any, positions: bool) -> None:
    names = import_module("clearhead.distributed.comparing")
    call = names.MODEL if positions else names.ATTENTION
    import_module("clearhead.distributed.agreement").refuse(mesh, query, call)


_hooks.save_record_page = _save_record_page
_hooks.sharded_attention = _sharded_attention
_hooks.check_positions = _check_positions
_hooks.refuse_sharded = _refuse_sharded

__all__ = ["__version__", *_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    elif name in _MODULES or name in _ROOMS:
        value = import_module(f"clearhead.{name}")
    else:
        raise AttributeError(f"module 'clearhead' has no attribute {name!r}; it offers {', '.join(sorted(__all__))}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS} - {*_NEED_AN_EXTRA})


_register()

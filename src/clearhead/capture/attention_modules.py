"""Which modules of a model are attention, by the names of their classes."""

import re
from functools import lru_cache

from torch import nn

_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose class is named an attention, innermost only, by name, in the model's own order."""
    return innermost(dict(model.named_modules()))


def innermost(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Of modules by name, those named an attention that have no other such module inside."""
    attention = {name: module for name, module in modules.items() if is_named_attention(type(module).__name__)}
    outer = {parent for name in attention for parent in parent_names(name)}
    return {name: module for name, module in attention.items() if name not in outer}


@lru_cache(maxsize=1024)
def is_named_attention(class_name: str) -> bool:
    """Whether a class is named an attention.

    >>> is_named_attention("BertSelfAttention"), is_named_attention("GPT2Attn"), is_named_attention("Linear")
    (True, True, False)
    """
    return _ATTENTION.search(class_name) is not None


def parent_names(name: str) -> list[str]:
    """The names of the modules that contain a module, the model itself ("") first.

    >>> parent_names("a.b.c")
    ['', 'a', 'a.b']
    """
    parts = name.split(".")[:-1] if name else []
    return [".".join(parts[:count]) for count in range(len(parts) + 1)] if name else []

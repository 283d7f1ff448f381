"""Find the attention modules of a model by class name, and those that attend only to their own states.

A module compiled by TorchScript is left out, with all inside it: it takes no hooks, and runs without Python.
"""

import inspect
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import torch
from torch import nn

_ATTENTION = re.compile(r"attention|attn", re.IGNORECASE)
_COMPUTES = re.compile(r"aten::\w*(attention|softmax)")
# Names of arguments that hold other states than the module's own.
SOURCES = (
    "key_value_states",
    "encoder_hidden_states",
    "encoder_states",
    "cross_attention_states",
    "memory",
    "context",
)
_APART = frozenset(("query", "key", *SOURCES))


def attention_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return name -> module for the innermost modules with an attention's class name, in the model's order."""
    return innermost(modules_by_name(model))


def modules_by_name(model: nn.Module) -> dict[str, nn.Module]:
    """Return `dict(model.named_modules())` in a quarter of the time, without modules compiled by TorchScript."""
    named: dict[str, nn.Module] = {}
    seen = set[int]()

    def walk(module: nn.Module, name: str) -> None:
        seen.add(id(module))
        named[name] = module
        prefix = f"{name}." if name else ""
        for attribute, child in module._modules.items():
            if child is not None and id(child) not in seen and not is_scripted(child):
                walk(child, prefix + attribute)

    walk(model, "")
    return named


def is_scripted(module: nn.Module) -> bool:
    """Whether a module is compiled by `torch.jit.script`, `torch.jit.trace` or loaded by `torch.jit.load`."""
    return isinstance(module, torch.jit.ScriptModule)


def scripted_attention(parent: nn.Module) -> Iterator[tuple[str, str]]:
    """Return attribute and class name of each child that TorchScript compiled and that calls attention or softmax."""
    for attribute, child in parent._modules.items():
        if not isinstance(child, torch.jit.ScriptModule) or not hasattr(child, "forward"):
            continue
        if _COMPUTES.search(str(child.inlined_graph)):
            yield attribute, child.original_name


def innermost(modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Return those modules that have an attention's class name and no other such module inside."""
    attention = {name: module for name, module in modules.items() if is_named_attention(type(module).__name__)}
    outer = {parent for name in attention for parent in parent_names(name)}
    return {name: module for name, module in attention.items() if name not in outer}


@lru_cache(maxsize=1024)
def is_named_attention(class_name: str) -> bool:
    """Whether a class name is that of an attention.

    >>> is_named_attention("BertSelfAttention"), is_named_attention("GPT2Attn"), is_named_attention("Linear")
    (True, True, False)
    """
    return _ATTENTION.search(class_name) is not None


def parent_names(name: str) -> list[str]:
    """Return the names of the modules that contain a module, the model itself ("") first.

    >>> parent_names("a.b.c")
    ['', 'a', 'a.b']
    """
    parts = name.split(".")[:-1] if name else []
    return [".".join(parts[:count]) for count in range(len(parts) + 1)] if name else []


@lru_cache(maxsize=1024)
def attends_itself(kind: Any) -> bool:
    """Whether a module's forward takes no other states to attend to, neither by argument nor from its kwargs."""
    forward = inspect.unwrap(kind.forward)
    code = getattr(forward, "__code__", None)
    if code is None or code.co_flags & inspect.CO_VARARGS:
        return False
    return _APART.isdisjoint((*code.co_varnames, *code.co_names, *code.co_consts))

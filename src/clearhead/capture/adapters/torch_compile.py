"""Run compiled code eagerly while a model is observed.

A compiled model is one generated program without a visible call of attention, and flex attention compiles itself.
While a function mode observes calls, compiled functions run as written; their output is then the same to rounding.
torch's setting (`set_stance`) holds for all threads, so observers are counted.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_lock = threading.Lock()
_observers = 0
_stance: Any = None


def is_compiled(modules: Iterable[nn.Module]) -> bool:
    """Whether one of these modules is compiled by `torch.compile(module)` or `module.compile()`."""
    for module in modules:  # read their dictionaries: looking up a module's attribute takes a microsecond
        own = module.__dict__
        if own.get("_compiled_call_impl") is not None or "_orig_mod" in own["_modules"]:
            return True
    return False


@contextmanager
def eager_mode() -> Iterator[None]:
    """Run compiled functions eagerly inside the block."""
    global _observers, _stance
    if not {"torch._dynamo", "torch.nn.attention.flex_attention"} & set(sys.modules):
        yield  # nothing can have been compiled
        return
    from torch.compiler import set_stance

    with _lock:
        if _observers == 0:
            _stance = set_stance("force_eager")
        _observers += 1
    try:
        yield
    finally:
        with _lock:
            _observers -= 1
            if _observers == 0:
                _stance.__exit__(None, None, None)
                _stance = None

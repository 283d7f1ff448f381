"""torch.compile set aside while somebody observes.

A compiled model is one generated program in which no call of attention is to be seen, and flex attention compiles
itself. While an observer looks at direct calls, compiled functions run as they were written: their output is then the
same to rounding. The setting is torch's own and holds for all threads, so it is counted.
"""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

_lock = threading.Lock()
_looking = 0
_aside: Any = None


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is compiled by `torch.compile(model)` or `model.compile()`."""
    return any(module._compiled_call_impl is not None or "_orig_mod" in module._modules for module in model.modules())


@contextmanager
def set_aside() -> Iterator[None]:
    """While open, compiled functions run as they were written."""
    global _looking, _aside
    if not {"torch._dynamo", "torch.nn.attention.flex_attention"} & set(sys.modules):
        yield  # nothing can have been compiled
        return
    from torch.compiler import set_stance

    with _lock:
        if _looking == 0:
            _aside = set_stance("force_eager")
        _looking += 1
    try:
        yield
    finally:
        with _lock:
            _looking -= 1
            if _looking == 0:
                _aside.__exit__(None, None, None)
                _aside = None

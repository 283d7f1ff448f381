"""Run compiled code eagerly while a model is observed.

A compiled model is one generated program without a visible call of attention, and flex attention compiles itself.
While a function mode observes calls, compiled functions run as written; their output is then the same to rounding.
torch's setting (`set_stance`) holds for all threads, so observers are counted.
"""

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Self

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


class EagerMode:
    """Runs compiled functions eagerly while it is open: at once, or from when the model imports torch's compiler.

    Attributes:
        is_on: whether it has begun.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.is_on = False

    def __enter__(self) -> Self:
        if can_compile():
            self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Run compiled functions eagerly from here on."""
        self._stack.enter_context(_eager_stance())
        self.is_on = True


def can_compile() -> bool:
    """Whether torch's compiler was imported, so that something may be compiled; its import takes seconds."""
    return "torch._dynamo" in sys.modules or "torch.nn.attention.flex_attention" in sys.modules


@contextmanager
def _eager_stance() -> Iterator[None]:
    """Run compiled functions eagerly inside the block."""
    global _observers, _stance
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

"""What `import clearhead` registers with torch as soon as torch is imported, without importing it.

It registers `torch.ops.clearhead`, because torch looks up the operators of a program saved by `torch.export.save` by
that name. They are defined at the first look-up, so `import clearhead` stays cheap. If `CLEARHEAD_ACCELERATE` is set,
it also calls `clearhead.accelerate`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module

TYPE_CHECKING = False  # as in clearhead/__init__.py, which imports this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

OPERATORS = "clearhead.multihead"
ACCELERATION = "clearhead.multihead.acceleration"
VARIABLE = "CLEARHEAD_ACCELERATE"


def register() -> None:
    """Register now if torch is imported, else as soon as it is."""
    torch = sys.modules.get("torch")
    if torch is None:
        sys.meta_path.insert(0, _AfterTorch())
    else:
        _name_operators(torch)
        _accelerate()


def _accelerate() -> None:
    if os.environ.get(VARIABLE):
        import_module(ACCELERATION).accelerate_by_environment()


def _name_operators(torch: Any) -> None:
    class Operators(torch._ops._OpNamespace):
        __module__ = torch._ops._OpNamespace.__module__  # operators are saved under this name

        def __getattr__(self, name: str) -> Any:
            import_module(OPERATORS)
            return super().__getattr__(name)

    # torch may be half imported, if something it imports imports clearhead. If the namespace exists, operators may
    # already be registered in it, and a second namespace would hold different objects.
    if hasattr(torch, "ops") and "clearhead" not in vars(torch.ops):
        torch.ops.clearhead = Operators("clearhead")


class _AfterTorch:
    """A finder that names our operators once torch is imported, and then accelerates if the environment asks for it.

    A module of ours may be what imports torch. Acceleration imports that module too, so it waits until all modules of
    ours whose import has begun are complete; only for that does this finder look at their imports.

    It does not derive from `MetaPathFinder`, whose module takes as long to import as all of `clearhead`.
    """

    def __init__(self) -> None:
        self._accelerates = bool(os.environ.get(VARIABLE))
        self._incomplete: set[str] = set()
        self._has_torch = False

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch" and not (self._accelerates and fullname.startswith("clearhead.")):
            return None
        spec = _find_after(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module
            spec.loader.exec_module = lambda module: self._execute(fullname, execute, module)  # type: ignore[method-assign]
        return spec

    def _execute(self, name: str, execute: Any, module: ModuleType) -> None:
        self._incomplete.add(name)
        try:
            execute(module)
            if name == "torch":
                _name_operators(module)
                self._has_torch = True
        finally:
            self._incomplete.discard(name)
            if self._has_torch and not self._incomplete and self in sys.meta_path:
                sys.meta_path.remove(self)
                _accelerate()


def _find_after(finder: Any, fullname: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
    """Return the spec that the other finders give a module."""
    for other in sys.meta_path:
        find = None if other is finder else getattr(other, "find_spec", None)
        spec: ModuleSpec | None = find and find(fullname, path, target)
        if spec is not None:
            return spec
    return None

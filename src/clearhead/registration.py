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


def register() -> None:
    """Register now if torch is imported, else as soon as it is."""
    if "torch" in sys.modules:
        _after_torch(sys.modules["torch"])
    else:
        sys.meta_path.insert(0, _AfterTorch())


def _after_torch(torch: Any) -> None:
    _name_operators(torch)
    if os.environ.get("CLEARHEAD_ACCELERATE"):
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
    """A finder that finds torch through the other finders and runs `_after_torch` once it is imported.

    It does not derive from `MetaPathFinder`, whose module takes as long to import as all of `clearhead`.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        from importlib.util import find_spec  # only now, for it takes as long to import as all of `clearhead`

        spec = find_spec("torch")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _after_torch(module)

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec

"""Register `torch.ops.clearhead` when clearhead is imported, without importing torch for it.

A program saved by `torch.export.save` names our operators, and torch looks them up by that name. They are defined at
the first look-up, so that `import clearhead` stays cheap.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

OPERATORS = "clearhead.multihead"


def register() -> None:
    """Define `torch.ops.clearhead` now if torch is imported, else as soon as it is."""
    if "torch" in sys.modules:
        _name_operators(sys.modules["torch"])
    else:
        sys.meta_path.insert(0, _AfterTorch())


def _name_operators(torch: Any) -> None:
    class Operators(torch._ops._OpNamespace):
        __module__ = torch._ops._OpNamespace.__module__  # operators are saved under this name

        def __getattr__(self, name: str) -> Any:
            import_module(OPERATORS)
            return super().__getattr__(name)

    # torch may be half imported: clearhead is imported by something that it imports. Where the name is taken, operators
    # may be registered under it already, and a second namespace would be other objects than those.
    if hasattr(torch, "ops") and "clearhead" not in vars(torch.ops):
        torch.ops.clearhead = Operators("clearhead")


class _AfterTorch(MetaPathFinder):
    """Finds torch where the other finders do, and has `_name_operators` run once it is imported."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "torch":
            return None
        sys.meta_path.remove(self)
        spec = find_spec("torch")
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_name(module: ModuleType) -> None:
                execute(module)
                _name_operators(module)

            spec.loader.exec_module = execute_and_name  # type: ignore[method-assign]
        return spec

"""What is public: which names a page of the reference documents, from their docstrings.

A page is called after a name of `clearhead`: a function or a class, or a module, whose public names it documents all.
"""

import importlib
import inspect
import pkgutil
from types import FunctionType, ModuleType

import clearhead

HAND_WRITTEN = ("README", "command-line")


def pages() -> list[str]:
    """The names that need a page: the public ones, and the rooms that are attributes of the package."""
    return [
        *(name for name in clearhead.__all__ if not name.startswith("_")),
        *sorted(set(clearhead._ROOMS) - {"studio"}),
    ]


def names(page: str) -> list[str]:
    """The full names that a page documents.

    >>> names("attention"), names("rollout")
    (['clearhead.multihead.attention'], ['clearhead.matrix.rollout'])
    """
    thing = getattr(clearhead, page)
    if not isinstance(thing, ModuleType):
        return [f"{clearhead._HOME[page]}.{page}"]
    if not hasattr(thing, "__all__") and hasattr(
        thing, "__path__"
    ):  # a room that lists nothing: what its modules define
        parts = [
            importlib.import_module(f"{thing.__name__}.{part.name}") for part in pkgutil.iter_modules(thing.__path__)
        ]
        return [name for part in parts for name in _defined(part)]
    elsewhere = {f"{clearhead._HOME[name]}.{name}" for name in clearhead._HOME}  # pages of their own
    return [name for name in _of_module(thing) if name not in elsewhere]


def _of_module(module: ModuleType) -> list[str]:
    """Functions and classes that a module lists, or defines where it lists nothing; of modules in its list, theirs."""
    found = []
    for name in getattr(module, "__all__", ()):
        thing = getattr(module, name)
        if isinstance(thing, ModuleType):
            inside = pkgutil.iter_modules(getattr(thing, "__path__", []))
            parts = [importlib.import_module(f"{thing.__name__}.{part.name}") for part in inside]
            found += [name for part in (thing, *parts) for name in _defined(part)]
        elif not name.startswith("_") and _is_documented(thing):
            found.append(f"{module.__name__}.{name}")
    return found if hasattr(module, "__all__") else _defined(module)


def _defined(module: ModuleType) -> list[str]:
    """The public functions and classes that a module itself defines."""
    return [
        f"{module.__name__}.{name}" for name, thing in sorted(vars(module).items())
        if not name.startswith("_") and _is_documented(thing) and thing.__module__ == module.__name__
    ]  # fmt: skip


def _is_documented(thing: object) -> bool:
    return inspect.isfunction(thing) or inspect.isclass(thing)


def members(full_name: str) -> list[str]:
    """The public methods and properties of a class of ours, with those it inherits from ours; [] for a function."""
    thing = resolve(full_name)
    if not inspect.isclass(thing):
        return []
    ours = [base for base in thing.__mro__ if base.__module__.split(".")[0] == "clearhead"]
    kinds = (FunctionType, property, classmethod, staticmethod)
    listed = ((name, member) for base in ours for name, member in vars(base).items())
    return sorted({name for name, member in listed if not name.startswith("_") and isinstance(member, kinds)})


def resolve(full_name: str) -> object:
    """The object of a full name."""
    module, _, name = full_name.rpartition(".")
    return getattr(importlib.import_module(module), name)


def from_docstrings(page: str) -> str:
    """Directives for mkdocstrings, as the last section of a page."""
    if page in HAND_WRITTEN:
        return ""
    listed = names(page)
    heading = "From the docstring" if len(listed) == 1 else "From the docstrings"
    return f"\n\n## {heading}\n\n" + "\n\n".join(f"::: {name}" for name in listed) + "\n"

"""Pictures of attention: terminal, one HTML file, the studio, notebooks and papers. See README.md.

Each module is imported on first access, because each needs its own libraries.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearhead.views import comparison as comparison
    from clearhead.views import grouping as grouping
    from clearhead.views import listing as listing
    from clearhead.views import page as page
    from clearhead.views import plot as plot
    from clearhead.views import rollout as rollout
    from clearhead.views import terminal as terminal
    from clearhead.views import terminal_comparison as terminal_comparison
    from clearhead.views import widget as widget

__all__ = ["comparison", "grouping", "listing", "page", "plot", "rollout", "terminal", "terminal_comparison", "widget"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clearhead.views' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return import_module(f"clearhead.views.{name}")


def __dir__() -> list[str]:
    return __all__

"""The page of a reading: its data, answers to its questions, and the HTML file."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearhead.views.page import html as html

__all__ = ["html"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'clearhead.views.page' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return import_module(f"clearhead.views.page.{name}")

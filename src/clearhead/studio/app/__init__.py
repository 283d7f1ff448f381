"""The web application: its routes together, serving it, and its error pages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearhead.studio.app.application import create

__all__ = ["create"]


def __getattr__(name: str) -> Any:
    """`create`, imported when it is asked for: the web framework takes a second."""
    if name == "create":
        from clearhead.studio.app.application import create

        return create
    raise AttributeError(name)

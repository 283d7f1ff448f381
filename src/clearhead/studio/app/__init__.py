"""The web application: all routes together, serving, and error pages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearhead.studio.app.application import create

__all__ = ["create"]


def __getattr__(name: str) -> Any:
    """Import `create` on first access, because importing the web framework takes a second."""
    if name == "create":
        from clearhead.studio.app.application import create

        return create
    raise AttributeError(name)

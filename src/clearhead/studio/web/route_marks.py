"""Decorators that open routes further than the default: to everyone, or to links on other sites.

A route without a mark serves only people who may use the studio, and only requests from its own pages. The decision is
made from the matched route, never from a URL, which a Host header can shape.
"""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from fastapi import Request

P = ParamSpec("P")
R = TypeVar("R")
_open: set[Callable[..., Any]] = set()
_linkable: set[Callable[..., Any]] = set()


def open_to_all(route: Callable[P, R]) -> Callable[P, R]:
    """Mark a route that needs no log-in and no token: it shows nothing of a learner and changes nothing."""
    _open.add(route)
    return route


def is_open(request: Request) -> bool:
    """Return whether the route that serves this request is marked `@open_to_all`."""
    return request.scope.get("endpoint") in _open


def linkable(route: Callable[P, R]) -> Callable[P, R]:
    """Mark a page that a link on any site may open: without a query it only shows what is there."""
    _linkable.add(route)
    return route


def is_linkable(request: Request) -> bool:
    """Return whether the route that serves this request is marked `@linkable`."""
    return request.scope.get("endpoint") in _linkable

"""What another site may open: plain pages by a link, and nothing that runs a program, opens a model or begins a test.

A browser says where a request comes from in Sec-Fetch-Site, which no page can set. A GET needs no form token, so that
an image, a frame or a link of any site could otherwise make this machine work.
"""

from collections.abc import Callable
from typing import Any, Final, ParamSpec, TypeVar
from urllib.parse import quote

from fastapi import Request

P = ParamSpec("P")
R = TypeVar("R")
OURS: Final = ("same-origin", "none")  # a page of the studio; the address bar, a bookmark, or no browser at all
_plain: set[Callable[..., Any]] = set()


class FromElsewhere(Exception):
    """A page of another site asks for what only the studio's own pages may ask for."""


def plain_page(route: Callable[P, R]) -> Callable[P, R]:
    """Mark a page that a link of any site may open: without a query it only shows what is there."""
    _plain.add(route)
    return route


def check_origin(request: Request) -> None:
    """Dependency of every route: refuse a GET that another site makes, but for a link to a plain page.

    Raises:
        FromElsewhere: it is another site's, and more than a link to a plain page.
    """
    if request.headers.get("sec-fetch-site", "none") in OURS or request.method not in ("GET", "HEAD"):
        return
    opened = request.headers.get("sec-fetch-mode") == "navigate" and request.headers.get("sec-fetch-dest") == "document"
    if not opened or request.scope.get("endpoint") not in _plain or request.url.query:
        raise FromElsewhere


def address(request: Request) -> str:
    """The path and query that were asked for, to be opened by a link of our own page."""
    path = quote(request.scope["path"], safe="/~:@!$&'()*+,;=")
    query = request.scope.get("query_string", b"").decode("latin-1")
    return f"/{path.lstrip('/')}" + (f"?{query}" if query else "")

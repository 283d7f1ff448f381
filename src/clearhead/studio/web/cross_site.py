"""Refuses requests that another site makes: its links may open plain pages, and nothing else.

A browser says where a request comes from in Sec-Fetch-Site, which no page can set. A GET needs no form token, so an
image, a frame or a link on any site could otherwise make this machine run a program, open a model or begin a test.
"""

from typing import Final

from fastapi import Request

from clearhead.studio.web.route_marks import is_linkable

OURS: Final = ("same-origin", "none")  # a page of the studio; the address bar, a bookmark, or no browser at all


class CrossSite(Exception):
    """A page on another site requests what only the studio's own pages may request."""


def check_origin(request: Request) -> None:
    """Check of every route: refuse a GET that another site makes, except a link to a linkable page.

    Raises:
        CrossSite: another site made the request, and it is not a plain link to a page marked `@linkable`.
    """
    if request.headers.get("sec-fetch-site", "none") in OURS or request.method not in ("GET", "HEAD"):
        return
    opened = request.headers.get("sec-fetch-mode") == "navigate" and request.headers.get("sec-fetch-dest") == "document"
    if not opened or not is_linkable(request) or request.url.query:
        raise CrossSite

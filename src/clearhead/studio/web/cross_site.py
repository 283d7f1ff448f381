"""Refuse requests from other sites: their links may open plain pages, and nothing else.

Browsers report the origin of a request in Sec-Fetch-Site, which no page can set. A GET needs no form token, so an
image, a frame or a link on any site could otherwise make this machine run a program, open a model or begin a test.
"""

from typing import Final

from fastapi import HTTPException, Request

from clearhead.studio.text.translation import _
from clearhead.studio.web.route_marks import is_linkable

OURS: Final = ("same-origin", "none")  # a page of the studio; the address bar, a bookmark, or no browser


class CrossSite(Exception):
    """A page on another site made a request that only the studio's own pages may make."""


def check_origin(request: Request) -> None:
    """Refuse a request from another site, except a link to a linkable page. Checked on every route.

    A form of another origin is refused even with a form token: a server on another port of this host, or on a host of
    the same domain, may ask for a signed one and set it as a cookie.

    Raises:
        CrossSite: another site made the request, and it is not a plain link to a page marked `@linkable`.
        HTTPException: another origin sent a form.
    """
    ours = request.headers.get("sec-fetch-site", "none") in OURS
    if request.method not in ("GET", "HEAD"):
        if not (ours and _is_own_origin(request)):
            raise HTTPException(403, _("This form comes from another site. Open the page here and send it again."))
        return
    opened = request.headers.get("sec-fetch-mode") == "navigate" and request.headers.get("sec-fetch-dest") == "document"
    if not ours and (not opened or not is_linkable(request) or request.url.query):
        raise CrossSite


def _is_own_origin(request: Request) -> bool:
    """Return whether the request comes from a page of the studio: at the requested host, or at its --url.

    Browsers send Origin with every form, but Sec-Fetch-Site only over https and to this machine.
    """
    origin, url = request.headers.get("origin"), request.app.state.context.settings.url or ""
    known = {_host(url), request.headers.get("host", "").lower()} - {""}
    return origin is None or _host(origin) in known


def _host(url: str) -> str:
    """Return the host and port of an origin or of --url; undefined for any other text."""
    return url.partition("://")[2].rstrip("/").lower()

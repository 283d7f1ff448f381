"""Security headers, host names, form tokens and the limit on the size of requests.

The threat here is another page in the same browser: it must not be able to post an answer, read a page, or inject a
script. Who must log in is decided in `accounts/access.py`.
"""

import re
import secrets
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from fastapi import HTTPException, Request
from itsdangerous import BadSignature, URLSafeSerializer
from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clearhead.studio.text.translation import _

COOKIE: Final = "clearhead-csrf"
FIELD: Final = "csrf"
HEADER: Final = "x-csrf-token"
MAX_BODY: Final = 2**20  # bytes; the largest ordinary request is a page of code or notes

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        "connect-src 'self'; manifest-src 'self'; worker-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


# A name or an IPv4 address, or an IPv6 address in brackets, and a port: nothing that a URL parser could read as a path.
HOST: Final = re.compile(r"(?:(?P<name>[A-Za-z0-9_.-]{1,253})|\[(?P<six>[0-9A-Fa-f:.]{2,45})\])(?::\d{1,5})?")


class RequestTooLong(HTTPException):
    """A request is larger than MAX_BODY."""

    def __init__(self) -> None:
        super().__init__(413, _("That is more than %(size)s MiB. Send less at once.", size=MAX_BODY // 2**20))


class KnownHost:
    """ASGI middleware: refuses a request whose Host header does not name this studio.

    Another site can point its own name at this machine (DNS rebinding), so only known names pass. A literal address
    cannot be redirected, so a studio that listens on every address accepts any of them.

    Args:
        names: the host names of this studio, in lower case.
        addresses: whether any literal IP address passes too.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str], addresses: bool) -> None:
        self.app = app
        self._names, self._addresses = frozenset(names), addresses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(hosts) != 1 or not self._is_ours(hosts[0]):
                text = _("This address is not one of the studio’s own. Start it with --url to name another.")
                await PlainTextResponse(text, 400)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _is_ours(self, host: str) -> bool:
        parts = HOST.fullmatch(host)
        if parts is None:
            return False
        name = (parts["name"] or parts["six"]).lower().rstrip(".")
        return name in self._names or (self._addresses and _is_address(name))


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Guard:
    """ASGI middleware: sets security headers on every response, and limits the size of a request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > MAX_BODY:
                raise RequestTooLong
            return message

        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, limited, dressed)


class Csrf:
    """Double-submit token: the form and the cookie carry the same value, signed with this studio's secret."""

    def __init__(self, secret: str) -> None:
        self._signer = URLSafeSerializer(secret, salt="csrf")

    def issue(self, request: Request) -> tuple[str, bool]:
        """Return the token for this browser's forms, and whether its cookie must still be set."""
        token = request.cookies.get(COOKIE, "")
        if self._ours(token):
            return token, False
        return str(self._signer.dumps(secrets.token_urlsafe(16))), True

    async def check(self, request: Request) -> None:
        """Refuse a request that changes something and does not come from one of our own pages."""
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        token = request.cookies.get(COOKIE, "")
        given = request.headers.get(HEADER)
        if given is None:
            given = str((await request.form()).get(FIELD, ""))
        if not (self._ours(token) and secrets.compare_digest(token.encode(), given.encode())):
            raise HTTPException(
                403, _("This form is too old or comes from elsewhere. Reload the page and send it again.")
            )

    def _ours(self, token: str) -> bool:
        try:
            self._signer.loads(token)
        except BadSignature:
            return False
        return True

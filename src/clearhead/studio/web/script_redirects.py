"""Redirects for forms that a script sends: the address of the next page, which a script cannot see in a redirect.

`static/sending.js` sends forms by `fetch`, so that a form stays on its page when the studio cannot be reached. `fetch`
follows a redirect by itself or hides where it leads; the page would be computed twice, or what it shows once be lost.
"""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER: Final = (b"x-sent-by", b"script")


class ScriptRedirects:
    """ASGI middleware: answers a form that a script sent with 204 and Location, where a browser gets a 303."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or HEADER not in scope["headers"]:
            await self.app(scope, receive, send)
            return

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 303:
                message = {**message, "status": 204, "headers": _without_body(message["headers"])}
            await send(message)

        await self.app(scope, receive, sent)


def _without_body(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return the headers of a response without those that describe a body; a redirect's body is empty."""
    return [(name, value) for name, value in headers if name not in (b"content-length", b"content-type")]

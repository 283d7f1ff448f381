"""Access control: log-in for a shared studio, a token in the address for a studio of one person.

It applies to every route that is not marked `@open_to_all`.
"""

import secrets
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeTimedSerializer

from clearhead.studio.accounts.request_rate import RequestRate
from clearhead.studio.accounts.sessions import SECONDS, Sessions
from clearhead.studio.text.translation import _
from clearhead.studio.web import saved_forms
from clearhead.studio.web.addresses import address_of, referring_page, safe
from clearhead.studio.web.context import GUEST, Context, context_of
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import is_open, open_to_all

SESSION: Final = "clearhead-session"  # the cookie of a shared studio
OWNER: Final = "clearhead-owner"  # the cookie of a studio for one person
router = APIRouter()


class LogInFirst(Exception):
    """Nobody is logged in, but the page belongs to a learner."""


class TokenFirst(Exception):
    """This browser has not shown the token that the terminal printed."""


class TokenShown(Exception):
    """The address held the right token: store it as a cookie and open the same address without it."""


def logged_in(request: Request) -> None:
    """Give the request the context of the learner who is logged in. Dependency of every route of a shared studio."""
    root: Context = request.app.state.context
    sessions: Sessions = request.app.state.sessions
    session = sessions.find(request.cookies.get(SESSION, ""))
    if session is None:
        if not is_open(request):
            raise LogInFirst
        request.state.context = root.at(GUEST)
        return
    rate: RequestRate = request.app.state.request_rate
    rate.spend(session.account.id)
    request.state.context = root.at(session.account.id, session.account.name, session.settings, session.state)


def owner(request: Request) -> None:
    """Check the owner's cookie. Dependency of every route of a studio for one person."""
    if is_open(request) or _signer(request).is_signed(request.cookies.get(OWNER, "")):
        return
    given = request.query_params.get("token", "")
    if request.method == "GET" and _is_token(request, given):
        raise TokenShown
    raise TokenFirst


class _Signer:
    def __init__(self, secret: str) -> None:
        self._signer = URLSafeTimedSerializer(secret, salt="owner")

    def sign(self) -> str:
        return str(self._signer.dumps("owner"))

    def is_signed(self, cookie: str) -> bool:
        try:
            self._signer.loads(cookie, max_age=SECONDS)
        except BadSignature:
            return False
        return True


@router.post("/token")
@open_to_all
def show_token(request: Request, token: Annotated[str, Form(max_length=200)]) -> Response:
    """Take the token from a form instead of from the address."""
    if not _is_token(request, token.strip()):
        reason = _("That is not the token. The terminal prints it at each start.")
        return saved_forms.redirect_back(context_of(request), "/", lacking=reason)
    return _let_in(request, "/")


def to_log_in(request: Request, _problem: Exception) -> Response:
    """Redirect a browser to the log-in page, which leads back: after a form, to the page that had it."""
    if "text/html" in request.headers.get("accept", ""):
        where = address_of(request) if request.method == "GET" else referring_page(request)
        return RedirectResponse(f"/login?{urlencode({'next': where})}", 303)
    request.state.context = request.app.state.context.at(GUEST)
    heading, detail = _("Log in first"), _("This page needs an account.")
    return render(
        request, "web/error.html", status=401, number=401, heading=heading, detail=detail, again=False, kept=""
    )


def to_token(request: Request, _problem: Exception) -> Response:
    """Show the page that explains where the token is, with a field for it."""
    page = render(
        request,
        "accounts/token.html",
        status=401,
        lacking=saved_forms.refusal_of(context_of(request), request).get("lacking", ""),
    )
    page.delete_cookie(saved_forms.COOKIE)
    return page


def let_in(request: Request, _problem: Exception) -> Response:
    """Store the token as a cookie, and redirect to the address without it, which the browser's history keeps."""
    return _let_in(request, safe(address_of(request, without="token")))


def _let_in(request: Request, where: str) -> Response:
    response = RedirectResponse(where, 303)
    secure = request.scope.get("scheme") == "https"
    # lax: a link in a message or a notebook opens the studio; what changes something carries a form token besides
    response.set_cookie(OWNER, _signer(request).sign(), max_age=SECONDS, httponly=True, samesite="lax", secure=secure)
    return response


def _is_token(request: Request, given: str) -> bool:
    token: str = request.app.state.context.settings.token or ""
    return bool(token) and secrets.compare_digest(given.encode(), token.encode())


def _signer(request: Request) -> _Signer:
    return _Signer(request.app.state.context.secret)

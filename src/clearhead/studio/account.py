"""Log in, log out, take an invitation; and who is asked to. Only a shared studio has these pages."""

import re
from typing import Annotated
from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.studio import sent
from clearhead.studio.accounts import LOGGED_IN, LONGEST, SHORTEST, Account, Accounts, Patience
from clearhead.studio.desk import GUEST, AtDesk, Desk, desk_of
from clearhead.studio.language import _
from clearhead.studio.pages import render

router = APIRouter()
COOKIE = "clearhead-session"
OPEN = re.compile(r"/(login|offline|service-worker\.js|manifest\.webmanifest|join/.*|views/.*)")
SHIPPED_MODELS = ("", "induction")


class LogInFirst(Exception):
    """Nobody is logged in, and the page is somebody's."""


def known(request: Request) -> None:
    """Serve the request at the desk of whoever is logged in; ask to log in where that is nobody."""
    root: Desk = request.app.state.desk
    account = _accounts(request).who(request.cookies.get(COOKIE, ""))
    if account is None and not OPEN.fullmatch(request.url.path):
        raise LogInFirst
    request.state.desk = root.at(account.id if account else GUEST, account.name if account else "")


async def only_shipped_models(request: Request) -> None:
    """In a shared studio nobody opens a folder of the server by the Lens, nor lets a model's own code run on it."""
    given = request.query_params.get("model", "")
    if request.headers.get("content-type", "").startswith("application/json"):
        body = await request.json() if await request.body() else {}
        given = given or str(body.get("model") or "") if isinstance(body, dict) else given
    if given.strip() not in SHIPPED_MODELS or request.url.path == "/lens/trust":
        raise HTTPException(403, _("This studio is shared: the Lens opens its own models only."))


def to_log_in(request: Request, _problem: Exception) -> Response:
    """Send a browser to the log-in page, and back afterwards: after a form, to the page that had it."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"/login?{_next(request)}", 303)
    request.state.desk = request.app.state.desk.at(GUEST)
    return render(
        request,
        "error.html",
        status=401,
        number=401,
        heading=_("Log in first"),
        detail=_("This page is somebody’s."),
        again=False,
    )


@router.get("/login", response_class=HTMLResponse)
def login(request: Request, next: str = "/") -> HTMLResponse:
    why = sent.why_not(desk_of(request), request)
    wait, given = why.get("wait", 0), why.get("given", "")
    status = (429 if wait else 401) if why else 200
    page = render(request, "login.html", status=status, next=_safe(next), given=given, lacking=why.get("lacking", ""))
    page.delete_cookie(sent.COOKIE)
    if wait:
        page.headers["retry-after"] = str(wait)
    return page


@router.post("/login")
def log_in(
    request: Request,
    name: Annotated[str, Form(max_length=100)],
    password: Annotated[str, Form(max_length=LONGEST)],
    next: Annotated[str, Form()] = "/",
) -> Response:
    patience: Patience = request.app.state.patience
    keys = (f"name {name}", f"address {request.client.host if request.client else ''}")
    wait = patience.wait(*keys)
    account = None if wait else _accounts(request).check(name, password)
    if account is None:
        if not wait:
            patience.failed(*keys)
        lacking = (
            _("Too many tries. The next is possible in %(wait)s seconds.", wait=wait)
            if wait
            else _("That name and that password do not belong together.")
        )
        where = f"/login?{urlencode({'next': _safe(next)})}"
        return sent.back_to(desk_of(request), where, given=name, lacking=lacking, wait=wait)
    patience.passed(keys[0])
    return _enter(request, account, _safe(next))


@router.post("/logout")
def log_out(desk: AtDesk) -> Response:
    """Forget the session, what was sent and not answered, and what the browser holds: cards, and drafts of forms."""
    sent.forget(desk.store)
    response = RedirectResponse("/login", 303, headers={"clear-site-data": '"cache", "storage"'})
    response.delete_cookie(COOKIE)
    return response


@router.get("/join/{token}", response_class=HTMLResponse)
def invitation(request: Request, token: str) -> HTMLResponse:
    account, why = _invited(request, token), sent.why_not(desk_of(request), request)
    lacking, status = why.get("lacking", ""), 422 if why else 200
    page = render(request, "join.html", status=status, account=account, shortest=SHORTEST, lacking=lacking)
    page.delete_cookie(sent.COOKIE)
    return page


@router.post("/join/{token}")
def join(
    request: Request,
    token: str,
    password: Annotated[str, Form(max_length=LONGEST)],
    again: Annotated[str, Form(max_length=LONGEST)],
) -> Response:
    account = _invited(request, token)
    if len(password) < SHORTEST or password != again:
        lacking = (
            _("The two are not the same.")
            if password != again
            else _("That is too short: %(count)s characters at least.", count=SHORTEST)
        )
        return sent.back_to(desk_of(request), f"/join/{token}", lacking=lacking)
    return _enter(request, _accounts(request).join(account, password), "/")


def _invited(request: Request, token: str) -> Account:
    account = _accounts(request).invited(token)
    if account is None:
        raise HTTPException(404, _("This invitation was used or is too old. Ask for a new one."))
    return account


def _enter(request: Request, account: Account, where: str) -> Response:
    response = RedirectResponse(where, 303)
    response.set_cookie(
        COOKIE,
        _accounts(request).session(account),
        max_age=LOGGED_IN,
        httponly=True,
        samesite="lax",  # a link from a message leads in; what changes something carries a token besides
        secure=request.url.scheme == "https",
    )
    return response


def _accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


def _safe(address: str) -> str:
    """An address within this studio."""
    inside = address.startswith("/") and address[1:2] not in ("/", "\\") and address.isprintable()
    return address if inside else "/"


def _next(request: Request) -> str:
    if request.method != "GET":
        came = urlsplit(request.headers.get("referer", ""))
        here = came.netloc == request.url.netloc
        return urlencode({"next": _safe(came._replace(scheme="", netloc="").geturl() if here else "/")})
    query = f"?{request.url.query}" if request.url.query else ""
    return urlencode({"next": request.url.path + query})

"""Routes of a shared studio: log in, log out, accept an invitation, change the password."""

import asyncio
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Annotated, Final, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from itsdangerous import BadSignature, URLSafeSerializer
from starlette.concurrency import run_in_threadpool

from clearhead.studio.accounts import names
from clearhead.studio.accounts.access import SESSION
from clearhead.studio.accounts.accounts import LONGEST, SHORTEST, Account, Accounts
from clearhead.studio.accounts.sessions import SECONDS, Sessions
from clearhead.studio.accounts.throttle import Key, Throttle, address_key
from clearhead.studio.text.translation import _, mark
from clearhead.studio.web import saved_forms
from clearhead.studio.web.addresses import safe
from clearhead.studio.web.context import CurrentContext, context_of
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable, open_to_all

R = TypeVar("R")
router = APIRouter()
LEARNER: Final = "clearhead-learner"  # a cookie for drafts.js, which says who is logged in; it opens nothing
BROWSER: Final = "clearhead-browser"  # the cookie of a browser that logged in to an account before
USED: Final = mark(
    "This invitation was used or is too old. If you have chosen a password, log in with it; if not, ask for a new one."
)
YEAR: Final = 365 * 24 * 60 * 60


async def hashing(request: Request, work: Callable[[], R]) -> R:
    """Run work that hashes a password: one per core at a time; the others wait without occupying a page thread.

    Use it for hashing only. A statement would wait for the database and, in a busy worker, for the interpreter's lock,
    and the next password would wait for both.
    """
    queue: Executor = request.app.state.hashing
    return await asyncio.get_running_loop().run_in_executor(queue, copy_context().run, work)


Typed = Annotated[str, Form(max_length=LONGEST)]


@router.get("/login", response_class=HTMLResponse)
@linkable
@open_to_all
def login(request: Request, next: str = "/") -> Response:
    """Show the log-in; who is logged in goes on to `next`, unless another log-in was refused just now."""
    why = saved_forms.refusal_of(context_of(request), request)
    if context_of(request).who and not why:
        return RedirectResponse(safe(next), 303)
    wait, given = why.get("wait", 0), why.get("given", "")
    status = (429 if wait else 401) if why else 200
    page = render(
        request, "accounts/login.html", status=status, next=safe(next), given=given, lacking=why.get("lacking", "")
    )
    return _shown_once(page, wait)


@router.post("/login")
@open_to_all
async def log_in(
    request: Request,
    name: Annotated[str, Form(max_length=LONGEST)],
    password: Typed,
    next: Annotated[str, Form()] = "/",
) -> Response:
    account, lacking, wait = await _checked(request, name, password)
    if account is None:
        where = f"/login?{urlencode({'next': safe(next)})}"
        return saved_forms.redirect_back(context_of(request), where, given=name, lacking=lacking, wait=wait)
    return await run_in_threadpool(_enter, request, account, safe(next))


@router.post("/logout")
def log_out(request: Request, context: CurrentContext) -> Response:
    """End the session; drop unanswered forms, and the cards and drafts in the browser."""
    saved_forms.forget_all(context.store)
    _sessions(request).end(request.cookies.get(SESSION, ""))
    response = RedirectResponse("/login", 303, headers={"clear-site-data": '"cache", "storage"'})
    response.delete_cookie(SESSION)
    response.delete_cookie(LEARNER)
    return response


@router.get("/join/{token}", response_class=HTMLResponse)
@linkable
@open_to_all
def invitation(request: Request, token: str) -> HTMLResponse:
    account, why = _invited(request, token), saved_forms.refusal_of(context_of(request), request)
    lacking, status = why.get("lacking", ""), 422 if why else 200
    return _shown_once(
        render(request, "accounts/join.html", status=status, account=account, shortest=SHORTEST, lacking=lacking)
    )


@router.post("/join/{token}")
@open_to_all
async def join(request: Request, token: str, password: Typed, again: Typed) -> Response:
    account = await run_in_threadpool(_invited, request, token)
    if lacking := _unfit(password, again):
        return saved_forms.redirect_back(context_of(request), f"/join/{token}", lacking=lacking)
    return await _enter_with_new_password(request, account, password, "/")


@router.get("/settings/password", response_class=HTMLResponse)
@linkable
def password_page(request: Request) -> Response:
    why = saved_forms.refusal_of(context_of(request), request)
    wait, lacking = why.get("wait", 0), why.get("lacking", "")
    status = (429 if wait else 422) if why else 200
    return _shown_once(
        render(request, "accounts/password.html", status=status, shortest=SHORTEST, lacking=lacking), wait
    )


@router.post("/settings/password")
async def change_password(
    request: Request, context: CurrentContext, current: Typed, password: Typed, again: Typed
) -> Response:
    """Change the password, which ends every session of this learner; this browser gets a new one."""
    account, lacking, wait = await _checked(request, context.who, current)
    lacking = lacking or _unfit(password, again)
    if account is None or lacking:
        return saved_forms.redirect_back(context_of(request), "/settings/password", lacking=lacking, wait=wait)
    return await _enter_with_new_password(request, account, password, "/settings?saved=true")


async def _checked(request: Request, name: str, password: str) -> tuple[Account | None, str, int]:
    """Return the account if the password is right, else the reason and the seconds to wait. Counts before hashing."""
    throttle: Throttle = request.app.state.throttle
    keys = (_guesser(request, names.key(name)), address_key(request.client.host if request.client else ""))
    if wait := await run_in_threadpool(throttle.admit, *keys):
        return None, _("Too many attempts. Try again in %(wait)s seconds.", wait=wait), wait
    account = await hashing(request, partial(_accounts(request).check, name, password))
    if account is None:
        return None, _("The name or the password is wrong."), 0
    await run_in_threadpool(throttle.passed, *keys)
    return account, "", 0


def _guesser(request: Request, name: str) -> Key:
    """Return the key by which attempts on this name are counted: a browser that has logged in before, or the name."""
    try:
        known, browser = _browsers(request).loads(request.cookies.get(BROWSER, ""))
    except (BadSignature, ValueError, TypeError):
        return Key("name", name)
    return Key("browser", f"{browser} {name}") if known == name else Key("name", name)


def _shown_once(page: HTMLResponse, wait: int = 0) -> HTMLResponse:
    """Show why a form was refused, once: a reload no longer shows it."""
    page.delete_cookie(saved_forms.COOKIE)
    if wait:
        page.headers["retry-after"] = str(wait)
    return page


def _unfit(password: str, again: str) -> str:
    """Return what is wrong with a new password, or ""."""
    if password != again:
        return _("The two passwords are not the same.")
    if len(password) < SHORTEST:
        return _("That is too short: %(count)s characters at least.", count=SHORTEST)
    return ""


def _invited(request: Request, token: str) -> Account:
    account = _accounts(request).invited(token)
    if account is None:
        raise HTTPException(404, _(USED))
    return account


async def _enter_with_new_password(request: Request, account: Account, password: str, where: str) -> Response:
    """Set the password, which ends every session opened with the old one, and open one for this browser."""
    changed = await hashing(request, partial(_accounts(request).join, account, password))
    if changed is None:  # another request has set a password since
        raise HTTPException(404, _(USED))
    return await run_in_threadpool(_enter, request, changed, where)


def _enter(request: Request, account: Account, where: str) -> Response:
    session = _sessions(request).open(account, instead_of=request.cookies.get(SESSION, ""))
    if session is None:  # the password was changed while this one was checked
        return RedirectResponse("/login", 303)
    response = RedirectResponse(where, 303)
    secure = request.scope.get("scheme") == "https"
    # lax: a link from a message opens the studio; what changes something carries a form token besides
    response.set_cookie(SESSION, session, max_age=SECONDS, httponly=True, samesite="lax", secure=secure)
    response.set_cookie(LEARNER, str(account.id), max_age=SECONDS, samesite="lax", secure=secure)
    browser = str(_browsers(request).dumps([names.key(account.name), secrets.token_urlsafe(8)]))
    response.set_cookie(BROWSER, browser, max_age=YEAR, httponly=True, samesite="strict", secure=secure)
    return response


def _accounts(request: Request) -> Accounts:
    accounts: Accounts = request.app.state.accounts
    return accounts


def _sessions(request: Request) -> Sessions:
    sessions: Sessions = request.app.state.sessions
    return sessions


def _browsers(request: Request) -> URLSafeSerializer:
    return URLSafeSerializer(request.app.state.context.secret, salt="browser")

"""Pages for an unavailable database or too much waiting work. They hold the sent form, so that it can be sent again."""

from collections.abc import Sequence
from typing import Final

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from clearhead.errors import ClearheadError
from clearhead.studio.text.translation import _, explained
from clearhead.studio.web import saved_forms, work_queues
from clearhead.studio.web.addresses import address_of
from clearhead.studio.web.context import context_of
from clearhead.studio.web.rendering import render, render_without_database

WAIT: Final = 429
SECONDS: Final = 5  # after which a browser or a module should try again
SECRET: Final = ("password", "again", "current", "token")  # fields that no page repeats
OURS: Final = ("csrf",)  # fields that the page sets itself


async def to_try_again(request: Request, problem: Exception) -> Response:
    """Answer with status 503 and Retry-After while the database is unavailable, 500 if it is full or damaged.

    A form carries its draft, whose id becomes the attempt's, so sending it again counts once.
    """
    temporary = bool(getattr(problem, "temporary", False))
    status = 503 if temporary else 500
    headers = {"retry-after": str(SECONDS)} if temporary else {}
    detail = _detail(request, problem)
    if request.headers.get("accept", "").startswith("application/json"):
        return JSONResponse({"error": detail}, status, headers)
    fields = await _sent(request)
    page = render_without_database(
        request,
        "app/away.html",
        status=status,
        detail=detail,
        temporary=temporary,
        waiting=False,
        address=address_of(request),
        fields=[(name, value) for name, value in fields if name not in SECRET],
        lost=any(name in SECRET for name, _value in fields),
    )
    page.headers.update(headers)
    return page


async def to_wait(request: Request, problem: Exception) -> Response:
    """Answer with status 429 and Retry-After: too much work of this learner is waiting.

    After a form, the page has its own address, so that Back leads to the form.
    """
    if request.headers.get("accept", "").startswith("application/json"):
        return JSONResponse({"error": str(problem)}, WAIT, {"retry-after": str(work_queues.SECONDS)})
    address, fields = address_of(request), await _sent(request)
    if saved_forms.is_form_post(request):
        reason = {"status": WAIT, "detail": str(problem)}
        return saved_forms.to_refusal_page(context_of(request), reason, {"address": address, "fields": fields})
    return please_wait(request, str(problem), address, fields)


def please_wait(request: Request, detail: str, address: str, fields: Sequence[tuple[str, str]]) -> Response:
    """Return the page that holds the sent form, to send it to its address again."""
    page = render(
        request,
        "app/away.html",
        status=WAIT,
        detail=detail,
        temporary=True,
        waiting=True,
        address=address,
        fields=fields,
        lost=False,
    )
    page.headers["retry-after"] = str(work_queues.SECONDS)
    return page


def _detail(request: Request, problem: Exception) -> str:
    """Return the reason for the page; learners of a shared studio are not shown the database's address or error."""
    if request.app.state.context.settings.shared:
        return _("Your answers are safe, and the studio comes back by itself as soon as its database does.")
    return explained(problem) if isinstance(problem, ClearheadError) else str(problem)


async def _sent(request: Request) -> list[tuple[str, str]]:
    """Return the fields of the form, which was read before the database was used."""
    if request.method != "POST" or not request.headers.get("content-type", "").startswith(
        ("application/x-www-form-urlencoded", "multipart/form-data")
    ):
        return []
    form = await request.form()
    return [(name, value) for name, value in form.multi_items() if isinstance(value, str) and name not in OURS]

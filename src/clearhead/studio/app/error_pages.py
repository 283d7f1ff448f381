"""Error pages: what each error shows, and the address of a refused form.

A refused form redirects to `/refused`, so that Back leads to the form and a reload sends nothing again.
"""

from typing import Annotated

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from clearhead.errors import ClearheadError, StoreError
from clearhead.studio.app import database_away
from clearhead.studio.learn.topic import NotYet
from clearhead.studio.text.field_limits import TooLong
from clearhead.studio.text.translation import _, explained, mark
from clearhead.studio.web import saved_forms
from clearhead.studio.web.addresses import as_link
from clearhead.studio.web.context import context_of
from clearhead.studio.web.cross_site import CrossSite
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import open_to_all
from clearhead.studio.web.work_queues import Busy

router = APIRouter()
TITLES = {
    404: mark("Not here"),
    405: mark("Not here"),
    403: mark("Refused"),
    400: mark("That did not fit"),
    413: mark("Too long"),
    422: mark("That did not fit"),
}
FAULT = mark("That did not work")


def register(app: FastAPI) -> None:
    """Show a page for every error a route can raise."""
    app.include_router(router)
    app.add_exception_handler(StoreError, database_away.to_try_again)
    app.add_exception_handler(Busy, database_away.to_wait)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, problem: HTTPException) -> Response:
        detail = problem.detail
        if problem.status_code == 404 and detail == "Not Found":
            detail = _("There is no page at this address.")
        elif problem.status_code == 405:
            detail = _("Only a form leads to this address. Go back to the page that has it, or to the start.")
        if isinstance(problem, NotYet):
            return error_page(request, 404, mark("Not yet"), detail, again=True)
        return error_page(request, problem.status_code, TITLES.get(problem.status_code, FAULT), detail)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, problem: RequestValidationError) -> Response:
        names = ", ".join(sorted({str(error["loc"][-1]) for error in problem.errors()}))
        detail = _("The request could not be read: %(names)s is missing or malformed.", names=names)
        return error_page(request, 422, TITLES[422], detail)

    @app.exception_handler(TooLong)
    async def too_long(request: Request, problem: TooLong) -> Response:
        return error_page(request, 422, TITLES[413], explained(problem), typed=problem.text)

    @app.exception_handler(CrossSite)
    async def cross_site(request: Request, problem: CrossSite) -> Response:
        return render(
            request,
            "web/error.html",
            status=403,
            number=403,
            heading=_(TITLES[403]),
            detail=_("Another site asked for this page. Open it yourself if you meant to."),
            again=False,
            opens=as_link(request),
            kept="",
        )

    @app.exception_handler(ClearheadError)
    async def known_error(request: Request, problem: ClearheadError) -> Response:
        return error_page(request, 500, FAULT, explained(problem))

    @app.exception_handler(Exception)
    async def fault(request: Request, problem: Exception) -> Response:
        kind = type(problem).__name__
        detail = _("The studio has a fault: %(kind)s. Your work is saved. The terminal says more.", kind=kind)
        return error_page(request, 500, FAULT, detail)


@router.get("/refused")
@open_to_all
def refused(request: Request, signed: Annotated[str, Query(alias="said")] = "") -> Response:
    """Show why a form was refused, at an address that can be loaded again without sending the form again."""
    context = context_of(request)
    reason = saved_forms.read_signed(context, signed)
    if reason is None:
        raise HTTPException(404, _("There is no page at this address."))
    kept = saved_forms.get(context, "refused", reason.get("kept", "")) or {}
    if reason["status"] == database_away.WAIT:
        address, fields = kept.get("address", "/"), kept.get("fields", [])
        return database_away.please_wait(request, reason["detail"], address, fields)
    return error_page(request, reason["status"], reason["title"], reason["detail"], typed=kept.get("text", ""))


def error_page(
    request: Request, status: int, title: str, detail: str, *, again: bool = False, typed: str = ""
) -> Response:
    """Return the page that says what was wrong, with the text that was `typed` into a field that was too long."""
    if saved_forms.is_form_post(request):
        reason = {"status": status, "title": title, "detail": detail}
        return saved_forms.to_refusal_page(context_of(request), reason, {"text": typed} if typed else {})
    return render(
        request,
        "web/error.html",
        status=status,
        number=status,
        heading=_(title),
        detail=detail,
        again=again,
        kept=typed,
    )

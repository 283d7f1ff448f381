"""The studio as an ASGI application: `create(settings)`."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from clearhead import sandbox
from clearhead.errors import ClearheadError, StoreError
from clearhead.extras import STUDIO, needs

with needs(*STUDIO):
    import python_multipart as python_multipart  # FastAPI names it only when a form is declared
    from fastapi import Depends, FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import FileResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.exceptions import HTTPException

    from clearhead.studio.accounts import access
    from clearhead.studio.accounts import routes as account
    from clearhead.studio.accounts.accounts import Accounts
    from clearhead.studio.accounts.sessions import Sessions
    from clearhead.studio.accounts.throttle import Throttle
    from clearhead.studio.app import database_away as away
    from clearhead.studio.explore import experiments as experiment
    from clearhead.studio.explore import own_class as reveal
    from clearhead.studio.explore import playground as tryout
    from clearhead.studio.explore import walk
    from clearhead.studio.learn import home, preferences, progress, search, topic
    from clearhead.studio.learner.database import Database
    from clearhead.studio.learner.store import Store
    from clearhead.studio.lens import head_data
    from clearhead.studio.lens import routes as lens
    from clearhead.studio.lens.readings import READINGS, Readings
    from clearhead.studio.library.library import Shelf, fill
    from clearhead.studio.practice import assessments as exam
    from clearhead.studio.practice import feedback, mistakes, notes, practice
    from clearhead.studio.practice import offline_cards as offline
    from clearhead.studio.text.field_limits import TooLong
    from clearhead.studio.text.translation import _, explained, languages, mark, speak
    from clearhead.studio.web import cross_site as elsewhere
    from clearhead.studio.web import saved_forms as sent
    from clearhead.studio.web.addresses import as_link
    from clearhead.studio.web.context import Desk, desk_of, secret_in
    from clearhead.studio.web.rendering import render
    from clearhead.studio.web.route_marks import open_to_all
    from clearhead.studio.web.security import Guard, KnownHost
    from clearhead.studio.web.settings import CORES, EVERYWHERE, Settings
    from clearhead.studio.web.work_queues import Busy

PARTS = (
    *(home, topic, practice, mistakes, exam, feedback, reveal, walk, head_data, tryout, experiment),
    *(progress, search, notes, preferences, offline),
)
PACKAGE = Path(__file__).parents[1]
TITLES = {
    404: mark("Not here"),
    405: mark("Not here"),
    403: mark("Refused"),
    400: mark("That did not fit"),
    413: mark("Too long"),
    422: mark("That did not fit"),
}
FAULT = mark("That did not work")


def create(settings: Settings, shelf: Shelf | None = None) -> FastAPI:
    """Build the studio.

    Args:
        settings: where it keeps the learner's work and what it teaches.
        shelf: packs already proved; None proves them now, with a cache in the data folder.

    Raises:
        SandboxError: other people are to use it, and this machine cannot confine their programs.
        StoreError: the learner's database cannot be read; it is left as it was.
        PackError: a pack cannot be read.
    """
    if settings.shared:
        sandbox.must_confine()
    sandbox.hide(settings.data)
    store = Store(Database(settings.data, settings.database))
    shelf = shelf or fill(settings.packs, settings.data / "proofs")
    desk = Desk(settings, store, shelf, secret_in(settings.data))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(
        title="Clearhead studio",
        lifespan=lifespan,
        dependencies=[Depends(elsewhere.check_origin), *_doors(settings), Depends(_same_site)],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.desk = desk
    app.add_middleware(Guard)
    app.add_middleware(KnownHost, names=settings.hosts, addresses=settings.host in EVERYWHERE)
    for part in PARTS:
        app.include_router(part.router)
    app.include_router(lens.router)
    together = settings.data / "lens" if settings.processes > 1 else None
    app.state.readings = Readings(only=lens.MODELS, folder=together) if settings.shared else READINGS
    if settings.shared:
        _accounts(app, store.database, desk.secret, settings.processes)
    elif settings.token:
        app.include_router(access.router)
        app.add_exception_handler(access.TokenFirst, access.to_token)
        app.add_exception_handler(access.TokenShown, access.let_in)
    _refused(app)
    _views(app)
    app.mount("/static", StaticFiles(directory=PACKAGE / "static"))
    _errors(app)
    return app


def _doors(settings: Settings) -> list[Any]:
    """The dependency that asks who it is, on every route."""
    if settings.shared:
        return [Depends(access.logged_in)]
    return [Depends(access.owner)] if settings.token else []


def _accounts(app: FastAPI, database: Database, secret: str, processes: int) -> None:
    app.state.accounts = Accounts(database, secret)
    app.state.sessions = Sessions(database)
    app.state.throttle = Throttle(database, secret)
    app.state.hashing = ThreadPoolExecutor(max(1, CORES // processes), thread_name_prefix="passwords")
    app.include_router(account.router)
    app.add_exception_handler(access.LogInFirst, access.to_log_in)


def _refused(app: FastAPI) -> None:
    @app.get("/refused")
    @open_to_all
    def refused(request: Request, said: str = "") -> Response:
        """Why a form was refused, at an address that can be shown again without sending it again."""
        desk = desk_of(request)
        why = sent.read(desk, said)
        if why is None:
            raise HTTPException(404, _("There is no page at this address."))
        kept = sent.get(desk, "refused", why.get("kept", "")) or {}
        if why["status"] == away.WAIT:
            return away.please_wait(request, why["detail"], kept.get("address", "/"), kept.get("fields", []))
        return _error_page(request, why["status"], why["title"], why["detail"], kept=kept.get("text", ""))


def _views(app: FastAPI) -> None:
    @app.get("/views/{name}.js")
    @open_to_all
    def view(name: str) -> Response:
        file = PACKAGE.parent / "views" / "static" / f"{Path(name).name}.js"
        if not file.is_file():
            raise HTTPException(404, _("There is no such view."))
        return FileResponse(file, media_type="text/javascript")


async def _same_site(request: Request) -> None:
    if len(languages()) > 1:
        speak(desk_of(request).setting("language"))
    await desk_of(request).csrf.check(request)


def _errors(app: FastAPI) -> None:
    @app.exception_handler(HTTPException)
    async def refused(request: Request, problem: HTTPException) -> Response:
        detail = problem.detail
        if problem.status_code == 404 and detail == "Not Found":
            detail = _("There is no page at this address.")
        elif problem.status_code == 405:
            detail = _("Only a form leads to this address. Go back to the page that has it, or to the start.")
        if isinstance(problem, topic.NotYet):
            return _error_page(request, 404, mark("Not yet"), detail, again=True)
        return _error_page(request, problem.status_code, TITLES.get(problem.status_code, FAULT), detail)

    @app.exception_handler(RequestValidationError)
    async def misread(request: Request, problem: RequestValidationError) -> Response:
        names = ", ".join(sorted({str(error["loc"][-1]) for error in problem.errors()}))
        said = _("The request could not be read: %(names)s is missing or malformed.", names=names)
        return _error_page(request, 422, TITLES[422], said)

    app.add_exception_handler(StoreError, away.to_try_again)
    app.add_exception_handler(Busy, away.to_wait)

    @app.exception_handler(TooLong)
    async def too_long(request: Request, problem: TooLong) -> Response:
        return _error_page(request, 422, TITLES[413], explained(problem), kept=problem.text)

    @app.exception_handler(elsewhere.CrossSite)
    async def from_elsewhere(request: Request, problem: elsewhere.CrossSite) -> Response:
        detail = _("Another site asks for this. Open it yourself if you want what it does.")
        return render(
            request, "web/error.html", status=403, number=403, heading=_(TITLES[403]), detail=detail, again=False,
            opens=as_link(request), kept="",
        )  # fmt: skip

    @app.exception_handler(ClearheadError)
    async def told_why(request: Request, problem: ClearheadError) -> Response:
        return _error_page(request, 500, FAULT, explained(problem))

    @app.exception_handler(Exception)
    async def broken(request: Request, problem: Exception) -> Response:
        kind = type(problem).__name__
        said = _("The studio has a fault: %(kind)s. Your work is kept. The terminal says more.", kind=kind)
        return _error_page(request, 500, FAULT, said)


def _error_page(
    request: Request, status: int, title: str, detail: str, *, again: bool = False, kept: str = ""
) -> Response:
    """The page that says what was wrong and shows what was `kept` of a field that was too long.

    After a form it has an address of its own, so that Back leads to the form.
    """
    if sent.from_browser(request):
        said = {"status": status, "title": title, "detail": detail}
        return sent.refused(desk_of(request), said, {"text": kept} if kept else {})
    return render(
        request, "web/error.html", status=status, number=status, heading=_(title), detail=detail, again=again, kept=kept
    )

"""The studio as an ASGI application: `create(settings)`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from clearhead import sandbox
from clearhead.extras import STUDIO, needs

with needs(*STUDIO):
    import python_multipart as python_multipart  # FastAPI names it only when a form is declared
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import FileResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException

    from clearhead.studio.accounts import access, account_pages
    from clearhead.studio.accounts.accounts import Accounts
    from clearhead.studio.accounts.request_rate import BURST, RATE, RequestRate, TooManyRequests, to_slow_down
    from clearhead.studio.accounts.sessions import Sessions
    from clearhead.studio.accounts.throttle import Throttle
    from clearhead.studio.app import error_pages
    from clearhead.studio.explore import own_class, page_programs, playground, project, walk
    from clearhead.studio.explore.experiments import routes as experiments
    from clearhead.studio.learn import certificate, home, next_step, preferences, progress, search, topic, topic_map
    from clearhead.studio.learner.database import Database
    from clearhead.studio.learner.store import Store
    from clearhead.studio.lens import head_data, lens_pages, model_list, writing_pages
    from clearhead.studio.lens.readings import READINGS, Readings
    from clearhead.studio.library.library import Library, fill
    from clearhead.studio.practice import (
        assessments,
        feedback,
        mistakes,
        notes,
        offline_cards,
        placement,
        practice,
        short_sessions,
        unsent_programs,
    )
    from clearhead.studio.text.translation import _, languages, use_language
    from clearhead.studio.web.context import Context, context_of, secret_in
    from clearhead.studio.web.cross_site import check_origin
    from clearhead.studio.web.route_marks import open_to_all
    from clearhead.studio.web.script_redirects import ScriptRedirects
    from clearhead.studio.web.security import Guard, KnownHost
    from clearhead.studio.web.settings import CORES, EVERYWHERE, Settings

_MOST_ASKED = (home, practice, feedback)  # first, because requests are compared with routes in order
_LEARNING = (next_step, topic, topic_map, progress, certificate, search, preferences)
_PRACTICE = (unsent_programs, short_sessions, placement, mistakes, assessments, notes, offline_cards)
_FIGURES = (own_class, project, walk, head_data, playground, page_programs, experiments)
_LENS = (lens_pages, writing_pages)
PARTS = (*_MOST_ASKED, *_LEARNING, *_PRACTICE, *_FIGURES, *_LENS)
FOLDER = Path(__file__).parents[1]  # of the studio: its static files are there


def create(settings: Settings, library: Library | None = None) -> FastAPI:
    """Build the studio.

    Args:
        settings: where it keeps the learner's work and what it teaches.
        library: packs that are already proved; None proves them now, with a cache in the data folder.

    Raises:
        SandboxError: other people are to use it, and this machine cannot confine their programs.
        StoreError: the learner's database cannot be read; it is left as it was.
        PackError: a pack cannot be read.
    """
    if settings.shared:
        sandbox.must_confine()
    sandbox.hide(settings.data)
    store = Store(Database(settings.data, settings.database))
    library = library or fill(settings.packs, settings.data / "proofs")
    context = Context(settings, store, library, secret_in(settings.data))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        context.close()

    app = FastAPI(
        title="Clearhead studio",
        lifespan=lifespan,
        dependencies=[Depends(_admission(settings))],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.state.context = context
    app.add_middleware(ScriptRedirects)
    app.add_middleware(Guard)
    app.add_middleware(KnownHost, names=settings.hosts, addresses=settings.host in EVERYWHERE)
    for part in PARTS:
        app.include_router(part.router)
    # Several processes share what the Lens has read through files; one keeps it in memory.
    folder = settings.data / "lens" if settings.processes > 1 else None
    app.state.readings = Readings(only=model_list.OWN, folder=folder) if settings.shared else READINGS
    if settings.shared:
        _add_accounts(app, store.database, context.secret, settings.processes)
    elif settings.token:
        app.include_router(access.router)
        app.add_exception_handler(access.TokenFirst, access.to_token)
        app.add_exception_handler(access.TokenShown, access.let_in)
    _add_views(app)
    app.mount("/static", StaticFiles(directory=FOLDER / "static"))
    error_pages.register(app)
    return app


def _admission(settings: Settings) -> Callable[[Request], Awaitable[None]]:
    """Return the dependency of every route that decides whether to serve a request.

    It is one dependency instead of three, because FastAPI takes longer to resolve a dependency than these checks take.
    """

    async def admit(request: Request) -> None:
        check_origin(request)
        if settings.shared:
            await run_in_threadpool(access.logged_in, request)
        elif settings.token:
            access.owner(request)
        await _check_form_token(request)

    return admit


async def _check_form_token(request: Request) -> None:
    """Refuse a request that changes something without this browser's form token."""
    if len(languages()) > 1:
        use_language(context_of(request).setting("language"))
    await context_of(request).csrf.check(request)


def _add_accounts(app: FastAPI, database: Database, secret: str, processes: int) -> None:
    app.state.accounts = Accounts(database, secret)
    app.state.sessions = Sessions(database)
    app.state.throttle = Throttle(database, secret)
    app.state.hashing = ThreadPoolExecutor(max(1, CORES // processes), thread_name_prefix="passwords")
    app.state.request_rate = RequestRate(RATE / processes, BURST / processes)
    app.include_router(account_pages.router)
    app.add_exception_handler(TooManyRequests, to_slow_down)
    app.add_exception_handler(access.LogInFirst, access.to_log_in)


def _add_views(app: FastAPI) -> None:
    @app.get("/views/{name}.js")
    @open_to_all
    def view(name: str) -> Response:
        file = {path.stem: path for path in (FOLDER.parent / "views" / "static").glob("*.js")}.get(name)
        if file is None:
            raise HTTPException(404, _("There is no such view."))
        return FileResponse(file, media_type="text/javascript")

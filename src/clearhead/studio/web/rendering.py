"""Render templates: `render(request, "learn/topic.html", topic=…)` returns the response."""

from functools import lru_cache
from gettext import NullTranslations
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from clearhead import __version__
from clearhead.studio.text import formatting, markdown, translation
from clearhead.studio.text.field_limits import LONGEST
from clearhead.studio.text.svg import figure
from clearhead.studio.web.context import GUEST, Context, context_of
from clearhead.studio.web.security import COOKIE

_TEMPLATES = Environment(
    loader=PackageLoader("clearhead.studio"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=["jinja2.ext.i18n"],
    auto_reload=False,  # do not check at each request whether a file has changed
    undefined=StrictUndefined,  # a missing value is an error, never a silent gap
)
_TEMPLATES.policies["ext.i18n.trimmed"] = True
_TEMPLATES.install_gettext_callables(translation.lookup, translation.lookup_many, newstyle=True)  # type: ignore[attr-defined]


@lru_cache(maxsize=4096)
def _markup(text: str, words: NullTranslations, filled: bool) -> Markup:
    """Return the catalog's text, filled with no values, which turns %% into %."""
    markup = Markup(words.gettext(text))  # noqa: S704 — a text of ours
    return markup % {} if filled else markup


def _translated(text: str, /, **values: Any) -> Markup:
    """Return what jinja2.ext's own gettext returns, at a tenth of its cost: a page has some twenty texts."""
    markup = _markup(text, translation.current_catalog(), not values)
    return markup % values if values else markup


_TEMPLATES.globals.update(gettext=_translated, _=_translated)
_TEMPLATES.filters.update(
    html=markdown.html,
    inline=markdown.inline,
    code=markdown.code,
    translated=translation.translate,
    words=formatting.words,
    heading=formatting.heading,
    within=formatting.within,
    when=formatting.when,
    ago=formatting.ago,
    day=formatting.day,
    number=formatting.number,
    digest=formatting.digest,
)
_TEMPLATES.globals.update(longest=LONGEST, version=__version__, marked=formatting.marked, drawn=figure)

EDITOR = Path(__file__).parents[1] / "static" / "codemirror.js"  # built by set-up if Node is installed
# Theme setting -> the media query of the dark style sheet.
DARK = {"system": "(prefers-color-scheme: dark)", "dark": "all", "light": "not all"}


def render(request: Request, name: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return the template as a response, with the values that base.html needs: form token, theme and address.

    A template extends "web/base.html" and fills the blocks `title`, `head` and `main`.
    """
    context = context_of(request)
    spoken = context.setting("language")
    known: dict[str, Any] = {
        "theme": context.setting("theme"),
        "keys": context.setting("keys"),
        "who": context.who,
        "learner": context.store.learner,
    }
    return _page(request, name, status, spoken, **known, **values)


def render_without_database(request: Request, name: str, *, status: int, **values: Any) -> HTMLResponse:
    """Return the template as a response without using the database, for when it is unavailable."""
    return _page(request, name, status, "en", theme="system", keys="on", who="", learner=GUEST, **values)


def _page(
    request: Request, name: str, status: int, spoken: str, *, theme: str, keys: str, who: str, learner: int,
    **values: Any,
) -> HTMLResponse:  # fmt: skip
    root: Context = request.app.state.context
    token, fresh = root.csrf.issue(request)
    translation.use_language(spoken)
    text = _TEMPLATES.get_template(name).render(
        csrf=token,
        dark=DARK.get(theme, DARK["system"]),
        path=request.scope["path"],
        coming=root.library.coming,
        language=spoken,
        keys=keys,
        who=who,
        learner=learner,
        editor=EDITOR.is_file(),
        module_words=translation.for_modules(spoken),
        **values,
    )
    response = HTMLResponse(text, status)
    # never no-store: Back has to show what was typed and not sent (docs/decisions/0025)
    response.headers["cache-control"] = "private, no-cache"
    if fresh:
        response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
    return response


def fragment(name: str, **values: Any) -> Markup:
    """Return a rendered piece of a page."""
    return Markup(_TEMPLATES.get_template(name).render(**values))  # noqa: S704 — the template escapes

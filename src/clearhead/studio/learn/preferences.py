"""Settings of the learner: theme, clock, language; download of one's own data, and starting over."""

import json
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.studio.learn import path
from clearhead.studio.questions.assessment import CLOCKS
from clearhead.studio.text.translation import _, languages
from clearhead.studio.web.context import SETTING, CurrentContext
from clearhead.studio.web.rendering import DARK, render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()


def choices() -> dict[str, tuple[str, ...]]:
    """Return the possible values of each setting."""
    return {"theme": tuple(DARK), "clock": tuple(CLOCKS), "language": languages(), "keys": ("on", "off")}


@router.get("/settings", response_class=HTMLResponse)
@linkable
def page(request: Request, context: CurrentContext, saved: bool = False) -> HTMLResponse:
    return render(
        request,
        "learn/settings.html",
        chosen={name: context.setting(name) for name in choices()},
        saved=saved,
        languages=languages(),
        folder=None if context.settings.shared or context.settings.database else context.settings.data,
        answers=len(context.history.attempts),
        aside=context.learner.set_aside,
    )


@router.post("/settings")
def save(
    context: CurrentContext,
    theme: Annotated[str, Form()],
    clock: Annotated[str, Form()],
    language: Annotated[str, Form()] = "en",
    keys: Annotated[str, Form()] = "on",
) -> Response:
    may_be = choices()
    chosen = {"theme": theme, "clock": clock, "language": language, "keys": keys}
    for name, value in chosen.items():
        if value not in may_be[name]:
            raise HTTPException(
                422,
                _(
                    "%(name)s is one of %(choices)s, not %(value)s.",
                    name=name,
                    choices=", ".join(may_be[name]),
                    value=value,
                ),
            )
    for name, value in chosen.items():
        context.store.keep(f"{SETTING}{name}", value)
    return RedirectResponse("/settings?saved=true", 303)


@router.get("/settings/data.json")
def take_along(context: CurrentContext) -> Response:
    """Return the learner's own data as JSON: every attempt and note, including undone answers."""
    attempts = [{**asdict(attempt), "at": attempt.at.isoformat()} for _, attempt in context.store.attempts()]
    data = {"format": 1, "attempts": attempts, "notes": context.store.kept_under("note:")}
    name = f"clearhead-{context.now():%Y-%m-%d}.json"
    text = json.dumps(data, ensure_ascii=False, indent=1)
    return Response(
        text, media_type="application/json", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


@router.post("/settings/start-over")
def start_over(context: CurrentContext, back: Annotated[bool, Form()] = False) -> Response:
    """Stop counting every answer so far, or count them all again. Nothing is deleted either way."""
    context.learner.start_after(0 if back else None)
    context.store.keep(path.CONTINUE, "")
    return RedirectResponse("/settings", 303)

"""Settings: how it looks, the clock's pace, and one's own data: take it along, or start over without losing it."""

import json
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.studio.desk import AtDesk
from clearhead.studio.pages import DARK, render
from clearhead.studio.sitting import CLOCKS

router = APIRouter()
CHOICES = {"theme": tuple(DARK), "clock": tuple(CLOCKS)}


@router.get("/settings", response_class=HTMLResponse)
def page(request: Request, desk: AtDesk, saved: bool = False) -> HTMLResponse:
    return render(
        request,
        "settings.html",
        chosen={name: desk.setting(name) for name in CHOICES},
        saved=saved,
        folder=desk.settings.data,
        answers=len(desk.history.attempts),
        aside=desk.learner.set_aside,
    )


@router.post("/settings")
def save(desk: AtDesk, theme: Annotated[str, Form()], clock: Annotated[str, Form()]) -> Response:
    for name, value in {"theme": theme, "clock": clock}.items():
        if value not in CHOICES[name]:
            raise HTTPException(422, f"{name} is one of {', '.join(CHOICES[name])}, not {value!r}.")
        desk.store.keep(f"setting:{name}", value)
    return RedirectResponse("/settings?saved=true", 303)


@router.get("/settings/data.json")
def take_along(desk: AtDesk) -> Response:
    """Every attempt and note as JSON: the learner's own data, undone answers too."""
    attempts = [{**asdict(one), "at": one.at.isoformat()} for _, one in desk.store.attempts()]
    data = {"format": 1, "attempts": attempts, "notes": desk.store.kept_under("note:")}
    name = f"clearhead-{desk.now():%Y-%m-%d}.json"
    text = json.dumps(data, ensure_ascii=False, indent=1)
    return Response(
        text, media_type="application/json", headers={"content-disposition": f'attachment; filename="{name}"'}
    )


@router.post("/settings/start-over")
def start_over(desk: AtDesk, back: Annotated[bool, Form()] = False) -> Response:
    """Set every answer so far aside, or take them all back in. Nothing is deleted either way."""
    desk.learner.start_after(0 if back else None)
    desk.store.keep("continue", "")
    return RedirectResponse("/settings", 303)

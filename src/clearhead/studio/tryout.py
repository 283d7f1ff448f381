"""Try: say what a program will print, run it, then change it and run it again; confined, and nothing is graded."""

import threading
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse

from clearhead import sandbox
from clearhead.course import Item, Pack, Topic
from clearhead.errors import SandboxError
from clearhead.studio import home, topic
from clearhead.studio.desk import AtDesk, Desk
from clearhead.studio.pages import render

router = APIRouter()
LIMITS = sandbox.Limits(seconds=10)
LONGEST = 20_000  # characters of a program
_running = threading.Semaphore(2)  # more at once would only make each slower


@router.get("/topics/{pack_id}/{topic_id}/try", response_class=HTMLResponse)
def look(request: Request, desk: AtDesk, pack_id: str, topic_id: str, item: str = "") -> HTMLResponse:
    pack, this, items = _programs(desk, pack_id, topic_id)
    chosen = next((one for one in items if one.id == item), items[0])
    home.remember(desk, home.Place(request.url.path, this.title, "Try"))
    return _page(request, desk, pack, this, items, chosen, program=program_of(chosen, desk))


@router.post("/topics/{pack_id}/{topic_id}/try", response_class=HTMLResponse)
def run(
    request: Request,
    desk: AtDesk,
    pack_id: str,
    topic_id: str,
    item: Annotated[str, Form()],
    program: Annotated[str, Form(max_length=LONGEST)],
    prediction: Annotated[str, Form(max_length=LONGEST)] = "",
) -> HTMLResponse:
    pack, this, items = _programs(desk, pack_id, topic_id)
    chosen = next((one for one in items if one.id == item), items[0])
    source = program.replace("\r\n", "\n")
    outcome, problem = None, ""
    try:
        with _running:
            outcome = sandbox.run(source, limits=LIMITS, preload=pack.preload)
    except SandboxError as refused:
        problem = str(refused)
    return _page(
        request,
        desk,
        pack,
        this,
        items,
        chosen,
        program=source,
        prediction=prediction,
        outcome=outcome,
        problem=problem,
    )


def program_of(item: Item, desk: Desk) -> str:
    """The item's program, whole: what is set up before it, with the seed its proof used, and what the learner reads."""
    parts = [program.source for program in (*item.role("setup"), *item.role("given"))]
    if any("seed" in part for part in parts):
        parts.insert(0, f"seed = {desk.shelf.proved[item.id].receipt.seed}\n")
    return "\n".join(part.strip("\n") for part in parts) + "\n"


def _programs(desk: Desk, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    pack, this = topic.found(desk, pack_id, topic_id)
    items = topic.items_for("try", desk.shelf.items_of(pack, this))
    if not items:
        raise HTTPException(404, f"{this.title} has no program to try yet.")
    return pack, this, items


def _page(
    request: Request,
    desk: Desk,
    pack: Pack,
    this: Topic,
    items: list[Item],
    chosen: Item,
    *,
    program: str,
    prediction: str = "",
    outcome: sandbox.Outcome | None = None,
    problem: str = "",
) -> HTMLResponse:
    place = items.index(chosen)
    return render(
        request,
        "try.html",
        pack=pack,
        topic=this,
        tabs=topic.tabs(desk, pack, this),
        mode="try",
        item=chosen,
        place=place + 1,
        count=len(items),
        next=items[(place + 1) % len(items)],
        program=program,
        prediction=prediction,
        outcome=outcome,
        problem=problem,
        same=bool(outcome) and " ".join(prediction.split()) == " ".join((outcome.stdout if outcome else "").split()),
    )

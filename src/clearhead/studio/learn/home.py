"""Home: continue, today's helping, weak spots; and for somebody new, one sentence, one live picture, one button."""

import json
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Item, Mastery, Pack, Progress, Topic
from clearhead.course.progress.mastery import GOOD, WEIGHT
from clearhead.studio.learn import welcome_figure as compass
from clearhead.studio.learner import review_queue as queue
from clearhead.studio.learner.review_session import SITTING, Helping, helping
from clearhead.studio.questions.question import ASKED
from clearhead.studio.web.context import AtDesk, Desk
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
TOLD_FROM = 2  # answers from which a concept may be called weak


@dataclass(frozen=True)
class Place:
    """Somewhere to go on from."""

    address: str
    title: str
    what: str


@router.get("/", response_class=HTMLResponse)
@linkable
def home(request: Request, desk: AtDesk) -> HTMLResponse:
    progress, place = desk.progress, going_on(desk)
    topics = list(desk.shelf.topics())
    if not progress.history and place is None:
        return render(request, "learn/hello.html", figure=compass.start(), topics=topics)
    helping = today(desk)
    tried = [one for one in progress.concepts.values() if one.attempts >= TOLD_FROM]
    return render(
        request,
        "learn/home.html",
        place=place,
        helping=helping,
        many=helping.waiting > 2 * SITTING,  # a number that only weighs
        minutes=queue.minutes(helping.items, desk.history.seconds),
        new=bool(_unmet(desk)),
        next_due=queue.next_due(asked(desk), progress),
        weak=sorted((one for one in tried if _lately_right(one) < GOOD), key=lambda one: one.value)[:3],
        tried=bool(tried),
        topics=(known := [(pack, topic, *_known(desk, progress, pack, topic)) for pack, topic in topics]),
        following=next(((pack, topic) for pack, topic, right, all in known if right < all), None),
        now=desk.now(),
    )


def _lately_right(one: Mastery) -> float:
    """The share of right answers, the later ones counting more: the moving average without the 0 it began at."""
    return one.value / (1 - (1 - WEIGHT) ** one.attempts)


def asked(desk: Desk) -> list[Item]:
    """Every question the studio can put."""
    return [item for item in desk.shelf.items.values() if item.kind in ASKED]


def today(desk: Desk, room: int = SITTING) -> Helping:
    """What a sitting asks now, with room for so many questions."""
    return helping(asked(desk), _unmet(desk), desk.progress, desk.history.by_item, desk.now(), room)


def _unmet(desk: Desk) -> list[Item]:
    """New questions of the topic the learner is in; of the first that has some, where that one has none."""
    passed, place = desk.store.kept_under("passed:"), going_on(desk)
    here = place.address if place else ""
    found: list[Item] = []
    for pack, topic in desk.shelf.topics():
        items = [] if f"{pack.id}/{topic.id}" in passed else desk.shelf.items_of(pack, topic)
        new = [item for item in items if item.kind in ASKED and desk.progress.items[item.id].state == "new"]
        if new and f"{here}/".startswith(f"/topics/{pack.id}/{topic.id}/"):
            return new
        found = found or new
    return found


def remember(desk: Desk, place: Place) -> None:
    """Make this the place Home offers to go on from."""
    value = json.dumps([place.address, place.title, place.what])
    if desk.store.kept("continue") != value:
        desk.store.keep("continue", value)


def going_on(desk: Desk) -> Place | None:
    """Where the learner was last, if it is still there."""
    value = desk.store.kept("continue")
    return Place(*json.loads(value)) if value else None


def _known(desk: Desk, progress: Progress, pack: Pack, topic: Topic) -> tuple[int, int]:
    items = [item for item in desk.shelf.items_of(pack, topic) if item.kind in ASKED]
    return sum(queue.settled(progress.items[item.id]) for item in items), len(items)

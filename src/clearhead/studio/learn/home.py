"""Home: continue, today's review session, weak concepts. A new learner sees a sentence, a live picture and a button."""

import json
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Item, Mastery, Pack, Progress, Topic
from clearhead.course.progress.mastery import GOOD, WEIGHT
from clearhead.studio.learn import path, welcome_figure
from clearhead.studio.learner import review_queue
from clearhead.studio.learner.review_session import SESSION_LENGTH, ReviewSession, plan_session
from clearhead.studio.questions.question import ASKED
from clearhead.studio.text import guessed_head
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
WEAK_FROM = 2  # with fewer answers a concept is never called weak


@dataclass(frozen=True)
class Place:
    """A page to continue from."""

    address: str
    title: str
    mode: str


@router.get("/", response_class=HTMLResponse)
@linkable
def home(request: Request, context: CurrentContext) -> HTMLResponse:
    progress, been = context.progress, path.trail(context)
    place = _place(been)
    topics = list(context.library.topics())
    if not progress.history and place is None:
        return render(
            request,
            "learn/hello.html",
            guess=_guess(context),
            figure=welcome_figure.initial_figure() if _teaches_attention(context) else None,
            topics=topics,
            skip=_skip(context),
        )
    new = _unmet(context, been)
    session = _session(context, new)
    tried = [mastery for mastery in progress.concepts.values() if mastery.attempts >= WEAK_FROM]
    weak = [mastery for mastery in tried if _lately_right(mastery) < GOOD]
    return render(
        request,
        "learn/home.html",
        place=place,
        session=session,
        many=session.waiting > 2 * SESSION_LENGTH,  # a larger number would only discourage
        minutes=review_queue.minutes(session.items, context.history.seconds),
        new=bool(new),
        next_due=review_queue.next_due(asked(context), progress),
        weak=sorted(weak, key=lambda mastery: mastery.value)[:3],
        tried=bool(tried),
        packs=context.library.packs,
        topics=[(pack, topic, *_known(context, progress, pack, topic)) for pack, topic in topics],
        way=path.following(path.ways(context, been), place.address if place else ""),
        now=context.now(),
    )


def _guess(context: Context) -> str:
    """Return the first `guess` block of the course that is served first; "" if there is none."""
    blocks = (
        guessed_head.block_in(topic.pages["read"].text)
        for pack in context.library.packs[:1]  # the course that a first visit starts with
        for topic in pack.topics
        if "read" in topic.pages
    )
    return next((f"```guess\n{block}```" for block in blocks if block), "")


def _teaches_attention(context: Context) -> bool:
    """Return whether the course served first is the shipped one, to which the welcome figure belongs."""
    return bool(context.library.packs) and context.library.packs[0].id == "attention"


def _skip(context: Context) -> bool:
    """Return whether the first topic has a placement test by which the learner can skip it."""
    first = next(iter(context.library.topics()), None)
    return first is not None and path.can_be_skipped(context, *first)


def _lately_right(mastery: Mastery) -> float:
    """Return the share of right answers, weighted to recent ones: the moving average corrected for its start at 0."""
    return mastery.value / (1 - (1 - WEIGHT) ** mastery.attempts)


def asked(context: Context) -> list[Item]:
    """Return every question that the studio can ask."""
    return [item for item in context.library.items.values() if item.kind in ASKED]


def today(context: Context, room: int = SESSION_LENGTH) -> ReviewSession:
    """Return the current review session, with room for this many questions."""
    return _session(context, _unmet(context, path.trail(context)), room)


def _session(context: Context, new: list[Item], room: int = SESSION_LENGTH) -> ReviewSession:
    return plan_session(asked(context), new, context.progress, context.history.by_item, context.now(), room)


def _unmet(context: Context, been: path.Trail) -> list[Item]:
    """Return the new questions of the topic the learner is in, or of the first topic that has some."""
    place = _place(been)
    here = place.address if place else ""
    first: list[Item] = []
    for pack, topic in context.library.topics():
        items = [] if f"{pack.id}/{topic.id}" in been.passed else context.library.items_of(pack, topic)
        new = [item for item in items if item.kind in ASKED and context.progress.items[item.id].state == "new"]
        if new and f"{here}/".startswith(f"/topics/{pack.id}/{topic.id}/"):
            return new
        first = first or new
    return first


def remember(context: Context, place: Place) -> None:
    """Make this the page that Home offers to continue from."""
    value = json.dumps([place.address, place.title, place.mode])
    if context.store.kept(path.CONTINUE) != value:
        context.store.keep(path.CONTINUE, value)


def going_on(context: Context) -> Place | None:
    """Return the page where the learner was last, or None."""
    return _place(path.trail(context))


def _place(been: path.Trail) -> Place | None:
    return Place(*json.loads(been.last)) if been.last else None


def _known(context: Context, progress: Progress, pack: Pack, topic: Topic) -> tuple[int, int]:
    items = [item for item in context.library.items_of(pack, topic) if item.kind in ASKED]
    return sum(review_queue.last_was_right(progress.items[item.id]) for item in items), len(items)

"""The certificate: a page to print that lists what a learner has shown, all counted from the attempts."""

import json
from dataclasses import dataclass
from datetime import datetime

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item, Pack, Topic
from clearhead.studio.learn import path
from clearhead.studio.learner import review_queue
from clearhead.studio.questions.question import ASKED
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
IN_MODEL = "project:model"  # kept: the day on which the learner's class ran inside the model
STORY = "project:looks"  # kept: predictions about a head, newest first


@dataclass(frozen=True)
class Shown:
    """The results of one topic: questions whose last answer is right, and the day on which its test was passed."""

    topic: Topic
    right: int
    count: int
    passed: str


@dataclass(frozen=True)
class Program:
    """A program that passed its tests, and when it first did."""

    item: Item
    at: datetime


@router.get("/certificate", response_class=HTMLResponse)
@linkable
def certificate(request: Request, context: CurrentContext) -> HTMLResponse:
    progress = context.progress
    looks = [look for look in json.loads(context.store.kept(STORY, "[]")) if _came_true(look)]
    topics = [shown for pack, topic in context.library.topics() if (shown := _shown(context, pack, topic))]
    return render(
        request,
        "learn/certificate.html",
        topics=topics,
        right=sum(shown.right for shown in topics),
        strong=sorted(mastery.concept for mastery in progress.concepts.values() if mastery.level == "strong"),
        programs=_programs(context),
        ran=context.store.kept(IN_MODEL),
        looks=looks,
        answers=len(progress.history),
        since=progress.history[0].at if progress.history else None,
        now=context.now(),
        packs=context.library.packs,
    )


def _came_true(look: dict[str, object]) -> bool:
    then = look["then"]
    return isinstance(then, list) and str(look["predicted"]).lower() == str(then[0]).lower()


def _shown(context: Context, pack: Pack, topic: Topic) -> Shown | None:
    """Return the results of a topic, or None if there are none."""
    items = [item for item in context.library.items_of(pack, topic) if item.kind in ASKED]
    right = sum(review_queue.last_was_right(context.progress.items[item.id]) for item in items)
    passed = path.passed_on(context, pack, topic)
    return Shown(topic, right, len(items), passed) if right or passed else None


def _programs(context: Context) -> list[Program]:
    """Return the programs that passed their tests, in the order in which they first did."""
    first: dict[str, Attempt] = {}
    for attempt in context.progress.history:
        item = context.library.items.get(attempt.item_id)
        if item and item.kind == "code" and attempt.correct:
            first.setdefault(item.id, attempt)
    return [Program(context.library.items[id], attempt.at) for id, attempt in first.items()]

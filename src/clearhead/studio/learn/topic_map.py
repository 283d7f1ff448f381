"""The map of topics: what each one needs, how long it takes, and how far the learner has come."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Pack
from clearhead.studio.learn import path
from clearhead.studio.learn.path import Way
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()


@dataclass(frozen=True)
class Place:
    """A topic on the map. `state`: "done", "begun", "ready", or "waits" if topics it needs are not done."""

    way: Way
    state: str


@router.get("/map", response_class=HTMLResponse)
@linkable
def topic_map(request: Request, context: CurrentContext) -> HTMLResponse:
    ways = path.ways(context)
    return render(
        request,
        "learn/map.html",
        packs=[
            (pack, _floors(pack, [way for way in ways if way.pack is pack], ways)) for pack in context.library.packs
        ],
        minutes={pack.id: sum(topic.minutes for topic in pack.topics) for pack in context.library.packs},
    )


def depths(pack: Pack) -> Mapping[str, int]:
    """Return topic id -> how many topics lie below it, along the longest chain of needs."""
    depth: dict[str, int] = {}
    for topic in pack.topics:  # a topic comes after all that it needs
        depth[topic.id] = 1 + max((depth[need] for need in topic.needs), default=-1)
    return depth


def _floors(pack: Pack, own: list[Way], ways: list[Way]) -> list[list[Place]]:
    """Return the topics by depth: those that need nothing first."""
    depth = depths(pack)
    floors: list[list[Place]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for way in own:
        state = "done" if way.next is None else "begun" if way.begun else "ready" if path.ready(way, ways) else "waits"
        floors[depth[way.topic.id]].append(Place(way, state))
    return floors

"""Routes of Next, the button that leads to the next step, and the pages at the end of a part and of a topic."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.studio.learn import home, path, topic
from clearhead.studio.text.translation import mark
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render

router = APIRouter()


@router.get("/next")
def anywhere(context: CurrentContext) -> Response:
    """Redirect to the next step of the learner's topic, or of the first topic with steps left."""
    way = path.following(path.ways(context), _here(context))
    return RedirectResponse(f"{topic.address(way.pack, way.topic)}/next" if way else "/certificate", 303)


@router.get("/topics/{pack_id}/{topic_id}/next", response_class=HTMLResponse)
def in_topic(request: Request, context: CurrentContext, pack_id: str, topic_id: str, after: str = "") -> Response:
    """Redirect to the next step of this topic. If `after`, a step's key, ended a part, show that page first."""
    pack, this = topic.topic_at(context, pack_id, topic_id)
    way = path.way(context, pack, this)
    done = next((step for step in path.steps_of(pack, this) if step.key == after), None)
    if way.next and (done is None or done.part + 1 >= way.part):
        home.remember(context, home.Place(topic.address(pack, this, "next"), this.title, mark("Path")))
        return RedirectResponse(way.next.address, 303)
    following = None if way.next else path.following(path.ways(context))
    return render(
        request,
        "learn/part.html",
        pack=pack,
        topic=this,
        way=way,
        done=done.part + 1 if done else 0,
        following=following,
    )


def _here(context: Context) -> str:
    place = home.going_on(context)
    return place.address if place else ""

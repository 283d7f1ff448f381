"""Routes of the placement test: a few questions by which a learner can skip a topic that others build on."""

import uuid

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item, Pack, Topic
from clearhead.studio.learn import path, topic
from clearhead.studio.practice.asking import ask
from clearhead.studio.practice.assessments import answer_draft
from clearhead.studio.questions import assessment
from clearhead.studio.questions.assessment import PLACEMENT
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render

router = APIRouter()


@router.get("/topics/{pack_id}/{topic_id}/placement", response_class=HTMLResponse)
def placement(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(context, pack_id, topic_id)
    start = f"{request.scope['path']}/{assessment.new_id()}"
    return _page(request, pack, this, start=start, count=min(PLACEMENT, len(items)), answers=None, placed=False)


@router.get("/topics/{pack_id}/{topic_id}/placement/{id}", response_class=HTMLResponse)
def sit_placement(
    request: Request, context: CurrentContext, pack_id: str, topic_id: str, id: uuid.UUID
) -> HTMLResponse:
    """Ask the next question; at the end, say whether the topic is skipped."""
    pack, this, items = _bank(context, pack_id, topic_id)
    answers = assessment.answers_so_far(str(id), context.store.attempt)
    count = min(PLACEMENT, len(items))
    item = None if assessment.placement_over(answers, count) else assessment.next_item(items, answers, str(id))
    if item is not None:
        place = _("question %(place)s of at most %(all)s", place=len(answers) + 1, all=count)
        draft = answer_draft(context, item, "test", str(id), len(answers), request.scope["path"])
        return ask(request, context, item, draft.but(place=place))
    placed = assessment.placed(answers, count)
    if placed:
        path.keep_passed(context, pack, this, answers[-1].at)
    shown = [(answer, context.library.items.get(answer.item_id)) for answer in answers]
    return _page(request, pack, this, start="", count=count, answers=shown, placed=placed)


def _page(
    request: Request,
    pack: Pack,
    this: Topic,
    *,
    start: str,
    count: int,
    answers: list[tuple[Attempt, Item | None]] | None,
    placed: bool,
) -> HTMLResponse:
    return render(
        request,
        "practice/placement.html",
        here=request.scope["path"],
        pack=pack,
        topic=this,
        start=start,
        count=count,
        answers=answers,
        placed=placed,
    )


def _bank(context: Context, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    pack, this = topic.topic_at(context, pack_id, topic_id)
    if not path.can_be_skipped(context, pack, this):
        raise topic.nothing(context, _("%(topic)s has no placement test.", topic=this.title))
    return pack, this, topic.items_for("test", context.library.items_of(pack, this))

"""Common mistakes of a topic: those the learner has made, with the way back to each, and those that wait."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item, Option
from clearhead.studio import topic
from clearhead.studio.desk import AtDesk, Desk
from clearhead.studio.pages import render

router = APIRouter()


@dataclass
class Mistake:
    """A belief that wrong options act out.

    Attributes:
        belief: what its holder believes, in one sentence.
        made: the learner's answers that acted on it, newest first.
        since: whether a later answer to the same question was right.
    """

    belief: str
    made: list[Attempt] = field(default_factory=list)
    since: bool = False


@router.get("/topics/{pack_id}/{topic_id}/mistakes", response_class=HTMLResponse)
def page(request: Request, desk: AtDesk, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this = topic.found(desk, pack_id, topic_id)
    items = desk.shelf.items_of(pack, this)
    made = made_by(desk, items)
    named = {program.misconception for item in items for program in item.programs if program.misconception}
    others = [belief for id, belief in pack.misconceptions.items() if id in named and id not in made]
    return render(
        request,
        "mistakes.html",
        pack=pack,
        topic=this,
        tabs=topic.tabs(desk, pack, this),
        mode="practice",
        made=sorted(made.values(), key=lambda one: (one.since, -one.made[0].at.timestamp())),
        others=others,
        titles={item.id: item.title for item in items},
        now=desk.now(),
    )


def made_by(desk: Desk, items: Iterable[Item]) -> dict[str, Mistake]:
    """Misconception id -> the learner's answers that chose it, of the questions answered by choosing."""
    found: dict[str, Mistake] = {}
    for item in items:
        attempts = desk.history.by_item.get(item.id, [])
        for attempt in reversed(attempts):
            for option in _wrong(desk, item, attempt):
                mistake = found.setdefault(str(option.misconception), Mistake(option.belief))
                mistake.made.append(attempt)
                mistake.since |= attempts[-1].correct
    for mistake in found.values():
        mistake.made.sort(key=lambda one: one.at, reverse=True)
    return found


def _wrong(desk: Desk, item: Item, attempt: Attempt) -> Sequence[Option]:
    """The wrong options of this answer; none where its numbers are not at hand."""
    own = desk.shelf.proved[item.id]
    proved = own if attempt.seed == own.receipt.seed else desk.variants.ready(item, attempt.seed)
    if attempt.correct or proved is None:
        return ()
    keys = attempt.response if isinstance(attempt.response, list) else [attempt.response]
    options = [proved.option(key) for key in keys if isinstance(key, str)]
    return [option for option in options if option and option.misconception]

"""Try: say what a program will print, run it, then change it and run it again; confined, and nothing is graded.

The first time a program is only to be read. Once it has run, it can be edited. A prediction of the program as it
stood is answered like a question: with the belief behind it, and the rule; a wrong one is shown among the mistakes.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse

from clearhead import sandbox
from clearhead.course import Item, Pack, Topic, Verdict, grade
from clearhead.course.compare import same_output
from clearhead.errors import SandboxError
from clearhead.studio import home, mistakes, topic
from clearhead.studio.desk import AtDesk, Desk
from clearhead.studio.language import _, mark
from clearhead.studio.lengths import fitting
from clearhead.studio.pages import render
from clearhead.studio.settled import settled
from clearhead.studio.turns import needed, queued

router = APIRouter()
LIMITS = sandbox.Limits(seconds=10)


@router.get("/topics/{pack_id}/{topic_id}/try", response_class=HTMLResponse)
def look(request: Request, desk: AtDesk, pack_id: str, topic_id: str, item: str = "") -> HTMLResponse:
    pack, this, items = _programs(desk, pack_id, topic_id)
    chosen = next((one for one in items if one.id == item), items[0])
    home.remember(desk, home.Place(request.scope["path"], this.title, mark("Try")))
    return _page(request, desk, pack, this, items, chosen, program=program_of(chosen, desk))


@router.post("/topics/{pack_id}/{topic_id}/try", response_class=HTMLResponse)
@queued("programs")
def run(
    request: Request,
    desk: AtDesk,
    pack_id: str,
    topic_id: str,
    item: Annotated[str, Form()],
    program: Annotated[str, Form()] = "",
    prediction: Annotated[str, Form()] = "",
) -> HTMLResponse:
    pack, this, items = _programs(desk, pack_id, topic_id)
    chosen = next((one for one in items if one.id == item), items[0])
    own = program_of(chosen, desk)
    source = fitting("program", program) or own
    prediction = fitting("prediction", prediction).strip()
    outcome, problem, verdict = None, "", None
    needed()
    try:
        outcome = sandbox.run(source, limits=LIMITS, preload=pack.preload)
    except SandboxError as refused:
        problem = str(refused)
    if prediction and source.strip() == own.strip():
        verdict = _verdict(desk, chosen, prediction)
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
        verdict=verdict,
    )


def _verdict(desk: Desk, item: Item, prediction: str) -> Verdict:
    """What the course says of a prediction of the item's own program; a wrong one is kept among the mistakes."""
    proved = desk.shelf.proved[item.id]
    said = f"{prediction}\n" if proved.option(prediction) else prediction  # a typed letter is no option's key
    verdict = grade(item, proved, said, desk.shelf.pack_of(item.id))
    mistakes.remember_prediction(desk, item, said, verdict)
    return verdict


def printed(outcome: sandbox.Outcome) -> str:
    """What a run showed: its output, and the exception that ended it."""
    raised = f"{outcome.raised.type}: {outcome.raised.message}" if outcome.raised else ""
    return "\n".join(part for part in (outcome.stdout.rstrip(), raised) if part)


def program_of(item: Item, desk: Desk) -> str:
    """The item's program, whole: what is set up before it, as its proof drew it, and what the learner reads."""
    parts = [program.source for program in (*item.role("setup"), *item.role("given"))] or [
        desk.shelf.proved[item.id].given
    ]
    return settled("\n\n".join(part.strip("\n") for part in parts), desk.shelf.proved[item.id].receipt.seed) + "\n"


def _programs(desk: Desk, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    pack, this = topic.found(desk, pack_id, topic_id)
    items = topic.items_for("try", desk.shelf.items_of(pack, this))
    if not items:
        raise topic.nothing(desk, _("%(topic)s has no program to try yet.", topic=this.title))
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
    verdict: Verdict | None = None,
) -> HTMLResponse:
    place = items.index(chosen)
    ran_as_said = outcome is not None and same_output(prediction, printed(outcome))
    same = ran_as_said if verdict is None else verdict.correct
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
        same=same,
        verdict=verdict,
        rule=desk.shelf.proved[chosen.id].rule,
    )

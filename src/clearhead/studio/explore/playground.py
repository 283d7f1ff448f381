"""Routes of Try, the playground: predict what a program prints, run it, then edit it and run it again.

Programs run confined, and nothing is graded. At first a program can only be read; after a run it can be edited. A
prediction of the unchanged program gets feedback like a question, and a wrong one is listed among the mistakes.
"""

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead import sandbox
from clearhead.course import Item, Pack, Topic, Verdict, grade
from clearhead.course.grading.compare import same_output
from clearhead.errors import SandboxError
from clearhead.studio.explore.seed_substitution import with_seed_substituted
from clearhead.studio.learn import home, path, topic
from clearhead.studio.practice import mistakes
from clearhead.studio.text import formatting
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _, mark
from clearhead.studio.web import saved_forms
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.work_queues import needs_queue, queued

router = APIRouter()
LIMITS = sandbox.Limits(seconds=10)


@router.get("/topics/{pack_id}/{topic_id}/try", response_class=HTMLResponse)
def look(
    request: Request, context: CurrentContext, pack_id: str, topic_id: str, item: str = "", run: str = ""
) -> HTMLResponse:
    """Show a program to read; or, with the id of a run, its outcome and the program to change."""
    pack, this, items = _programs(context, pack_id, topic_id)
    chosen = next((program_item for program_item in items if program_item.id == item), items[0])
    home.remember(context, home.Place(request.scope["path"], this.title, mark("Try")))
    kept = saved_forms.get(context, "run", run) if run else None
    ran = Run.of(kept) if kept and kept["item"] == chosen.id else None
    own = program_of(chosen, context)
    verdict, same = None, False
    if ran:
        if ran.prediction and ran.program.strip() == own.strip():
            verdict = _verdict(context, chosen, ran.prediction)
        ran_as_said = ran.outcome is not None and same_output(ran.prediction, printed(ran.outcome))
        same = ran_as_said if verdict is None else verdict.correct
    place = items.index(chosen)
    return topic.mode_page(
        request,
        context,
        "explore/try.html",
        pack,
        this,
        "try",
        way=path.way(context, pack, this),
        item=chosen,
        place=place + 1,
        count=len(items),
        next=items[(place + 1) % len(items)],
        program=ran.program if ran else own,
        prediction=ran.prediction if ran else "",
        outcome=ran and ran.outcome,
        stopped=formatting.stopped(ran.outcome.stopped, LIMITS) if ran and ran.outcome and ran.outcome.stopped else "",
        problem=ran.problem if ran else "",
        gone=bool(run) and ran is None,
        same=same,
        verdict=verdict,
        rule=context.library.proved[chosen.id].rule,
    )


@router.post("/topics/{pack_id}/{topic_id}/try")
@queued("programs")
def run(
    context: CurrentContext,
    pack_id: str,
    topic_id: str,
    item: Annotated[str, Form()],
    program: Annotated[str, Form()] = "",
    prediction: Annotated[str, Form()] = "",
) -> Response:
    """Run a program and redirect to its outcome, which has its own address."""
    pack, this, items = _programs(context, pack_id, topic_id)
    chosen = next((program_item for program_item in items if program_item.id == item), items[0])
    own = program_of(chosen, context)
    source = fitting("program", program) or own
    prediction = fitting("prediction", prediction).strip()
    outcome, problem = None, ""
    needs_queue()
    try:
        outcome = sandbox.run(source, limits=LIMITS, preload=pack.preload, owner=context.owner)
    except SandboxError as refused:
        problem = str(refused)
    if prediction and source.strip() == own.strip():
        response = _as_response(context, chosen, prediction)
        mistakes.remember_prediction(context, chosen, response, _verdict(context, chosen, prediction))
    id = secrets.token_hex(6)
    saved_forms.keep(context, "run", id, {"item": chosen.id, **asdict(Run(source, prediction, outcome, problem))})
    return RedirectResponse(f"{topic.address(pack, this, 'try')}?item={chosen.id}&run={id}", 303)


@dataclass(frozen=True)
class Run:
    """A program that was run, the prediction, and the outcome; or why it could not be run."""

    program: str
    prediction: str
    outcome: sandbox.Outcome | None
    problem: str

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Run":
        """Return the run that was stored."""
        outcome = kept["outcome"]
        if outcome:
            raised = outcome["raised"] and sandbox.Raised(**outcome["raised"])
            outcome = sandbox.Outcome(**{**outcome, "raised": raised, "tests": ()})
        return cls(kept["program"], kept["prediction"], outcome, kept["problem"])


def _as_response(context: Context, item: Item, prediction: str) -> str:
    """Return a prediction as the course grades it: a typed letter is not an option's key."""
    return f"{prediction}\n" if context.library.proved[item.id].option(prediction) else prediction


def _verdict(context: Context, item: Item, prediction: str) -> Verdict:
    """Grade a prediction of the item's own program."""
    response = _as_response(context, item, prediction)
    return grade(item, context.library.proved[item.id], response, context.library.pack_of(item.id))


def printed(outcome: sandbox.Outcome) -> str:
    """Return the output of a run, and the exception that ended it."""
    raised = f"{outcome.raised.type}: {outcome.raised.message}" if outcome.raised else ""
    return "\n".join(part for part in (outcome.stdout.rstrip(), raised) if part)


def program_of(item: Item, context: Context) -> str:
    """Return the item's whole program: its setup with the numbers of its proof, and the part the learner reads."""
    parts = [program.source for program in (*item.role("setup"), *item.role("given"))] or [
        context.library.proved[item.id].given
    ]
    return (
        with_seed_substituted(
            "\n\n".join(part.strip("\n") for part in parts), context.library.proved[item.id].receipt.seed
        )
        + "\n"
    )


def _programs(context: Context, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    pack, this = topic.topic_at(context, pack_id, topic_id)
    items = topic.items_for("try", context.library.items_of(pack, this))
    if not items:
        raise topic.nothing(context, _("%(topic)s has no program to try yet.", topic=this.title))
    return pack, this, items

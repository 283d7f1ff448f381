"""Routes of the project: write the layer, run it inside a real model, defend one head's story with a counterfactual."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from clearhead.course import Item
from clearhead.errors import ClearheadError
from clearhead.studio.learn.certificate import IN_MODEL, STORY
from clearhead.studio.learner import review_queue
from clearhead.studio.lens import demo_model, model_list
from clearhead.studio.questions.question import ends_in_class
from clearhead.studio.text.field_limits import fitting, index_in
from clearhead.studio.text.translation import _, explained
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable
from clearhead.studio.web.work_queues import needs_queue, queued

router = APIRouter()
BEFORE = "The animal didn't cross the street because it was too tired"
AFTER = "The animal didn't cross the street because it was too wide"
LONGEST = 400  # characters of a text here: a sentence
FORM = "project:form"  # key of the last incomplete form and what it lacked
KEPT = 10  # predictions that are shown


class Unclear(ValueError):
    """A field of the form is missing or invalid; the message says which, and how to fix it."""


@dataclass(frozen=True)
class Look:
    """What a token attends to most in one head, before and after the text was changed.

    Attributes:
        predicted: what the learner said it would look at after the change.
        first, then: the token with the largest weight in each text, and the weight.
    """

    text: str
    changed: str
    token: str
    layer: int
    head: int
    predicted: str
    story: str
    first: tuple[str, float]
    then: tuple[str, float]
    day: str

    @property
    def right(self) -> bool:
        """Whether the prediction came true."""
        return self.predicted.strip().lower() == self.then[0].lower()


@router.get("/project", response_class=HTMLResponse)
@linkable
def project(request: Request, context: CurrentContext) -> HTMLResponse:
    item = next((item for item in context.library.items.values() if ends_in_class(item)), None)
    looks = [Look(**kept) for kept in _kept(context)]
    last = looks[0] if looks else None
    start = {"text": BEFORE, "changed": AFTER, "token": "it", "layer": "5", "head": "11", "predicted": "", "story": ""}
    if last:
        start |= {"text": last.text, "changed": last.changed, "token": last.token, "story": last.story}
        start |= {"layer": str(last.layer), "head": str(last.head)}
    sent = json.loads(context.store.kept(FORM, "{}"))
    return render(
        request,
        "explore/project.html",
        item=item,
        written=item is not None and review_queue.last_was_right(context.progress.items[item.id]),
        attempt=_right_attempt(context, item),
        ran=context.store.kept(IN_MODEL),
        has_chat=model_list.chat_state()["here"],
        looks=looks,
        fields=sent.get("fields") or start,
        problem=sent.get("problem", ""),
        longest_text=LONGEST,
    )


@router.post("/project")
@queued("lens")
def look(
    context: CurrentContext,
    text: Annotated[str, Form()],
    changed: Annotated[str, Form()],
    token: Annotated[str, Form()],
    predicted: Annotated[str, Form()],
    layer: Annotated[str, Form()] = "",
    head: Annotated[str, Form()] = "",
    story: Annotated[str, Form()] = "",
) -> Response:
    """Read both texts with the model and store the outcome of the prediction."""
    fields = {"text": text, "changed": changed, "token": token, "predicted": predicted, "layer": layer, "head": head}
    fields["story"] = story
    try:
        _complete(fields)
        needs_queue()
        first, then = (_strongest(words, token, layer, head) for words in (text, changed))
    except (Unclear, ClearheadError) as problem:
        reason = explained(problem) if isinstance(problem, ClearheadError) else str(problem)
        context.store.keep(FORM, json.dumps({"fields": fields, "problem": reason}))
        return RedirectResponse("/project#head", 303)
    context.store.drop(FORM)
    day = f"{context.now():%Y-%m-%d}"
    made = Look(text, changed, token, int(layer), int(head), predicted.strip(), story.strip(), first, then, day)
    context.store.keep(STORY, json.dumps([asdict(made), *_kept(context)][:KEPT]))
    return RedirectResponse("/project#head", 303)


def _kept(context: Context) -> list[dict[str, Any]]:
    return list(json.loads(context.store.kept(STORY, "[]")))


def _right_attempt(context: Context, item: Item | None) -> str:
    """Return the id of the newest right answer to this item, or ""."""
    answers = context.history.by_item.get(item.id, ()) if item else ()
    return next((attempt.id for attempt in reversed(answers) if attempt.correct), "")


def _complete(fields: dict[str, str]) -> None:
    """Raise Unclear if a field is empty or too long, or the text was not changed."""
    for name, label in (("text", _("the text")), ("changed", _("the changed text")), ("token", _("the word"))):
        if not fields[name].strip():
            raise Unclear(_("Fill in %(field)s.", field=label))
        if len(fields[name]) > LONGEST:
            raise Unclear(_("Shorten %(field)s: at most %(most)s characters.", field=label, most=LONGEST))
    if fields["text"].strip() == fields["changed"].strip():
        raise Unclear(_("The two texts are the same. Change a word, so that there is something to predict."))
    if not fields["predicted"].strip():
        raise Unclear(_("Say first what it will look at in the changed text. Then look."))
    fitting("note", fields["story"])
    fitting("typed", fields["predicted"])


def _strongest(text: str, token: str, layer: str, head: str) -> tuple[str, float]:
    """Return the token that `token` attends to most in this head, and the weight.

    Raises:
        Unclear: there is no such token, layer or head. ModelError: the model is not here.
    """
    reading = demo_model.reading(text.strip())
    tokens = [name.lower() for name in reading.tokens]
    if token.strip().lower() not in tokens:
        inside = ", ".join(reading.tokens)
        raise Unclear(_("“%(token)s” is not a token of this text. Its tokens are: %(all)s", token=token, all=inside))
    matrices = list(reading.record.values())
    number = _number(layer, len(matrices), _("the layer"))
    weights = matrices[number].to_dense()[0]
    row = weights[_number(head, len(weights), _("the head")), tokens.index(token.strip().lower())]
    place = int(row.argmax())
    return reading.tokens[place], float(row[place])


def _number(text: str, count: int, field: str) -> int:
    number = index_in(count, text.strip())
    if number is None:
        raise Unclear(_("Type %(what)s as a number from 0 to %(last)s.", what=field, last=count - 1))
    return number

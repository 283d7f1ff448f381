"""The page that asks a question, and the address of the next step in each mode."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import HTTPException, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item
from clearhead.studio.learn import topic
from clearhead.studio.learner import confidence, review_queue
from clearhead.studio.questions import worked_steps
from clearhead.studio.questions.draft import Draft
from clearhead.studio.questions.question import Question, can_type
from clearhead.studio.text.translation import _, mark
from clearhead.studio.web.context import Context
from clearhead.studio.web.rendering import render

# The short sessions that Home offers, which are modes of their own: kind -> name.
SHORT_SESSIONS = {"five": mark("Five minutes"), "interview": mark("Interview")}
MODES = {
    "recall": mark("Recall"),
    "practice": mark("Practice"),
    "review": mark("Review"),
    "path": mark("Path"),
    **SHORT_SESSIONS,
    "build": mark("Build"),
    "test": mark("Test"),
    "challenge": mark("Challenge"),
}


TABBED = ("recall", "practice", "build")  # modes whose questions stand under the topic's modes


def ask(
    request: Request,
    context: Context,
    item: Item,
    draft: Draft,
    *,
    lacking: str = "",
    filled: Mapping[str, Sequence[str]] | None = None,
    note: str = "",
    **more: Any,
) -> HTMLResponse:
    """Return the page that asks this question.

    Args:
        draft: the question's draft, new or from an earlier request.
        lacking: what the sent form lacked.
        filled: what the learner had filled in: field -> values.
        note: a sentence above the answer.
        more: further values for the template.
    """
    question = put(context, item, draft)
    return render(
        request,
        "practice/card.html" if item.kind == "card" else "practice/question.html",
        status=422 if lacking else 200,
        **page_of(context, question, graded=request.query_params.get("graded", "")),
        graded_before="before" in request.query_params,
        turned=False,
        lacking=lacking,
        filled=filled or {},
        note=note,
        gone=round(draft.seconds(context.now())),
        **{"levels": [], **more},
    )


def new_draft(context: Context, item: Item, mode: str) -> Draft:
    """Return a draft for asking this item now, adapted to the learner's history with it.

    A worked example asks for more steps after each success. A program's output is chosen from options the first time,
    and typed when the question comes again.
    """
    before = context.history.by_item.get(item.id, [])
    concepts = [context.progress.concepts[name] for name in item.concepts]
    seed = context.next_seed(item)
    known = any(attempt.correct for attempt in before)
    typed = mode in ("review", "practice") and known and item.kind == "predict" and can_type(context.proved(item, seed))
    steps = worked_steps.steps_to_ask(before, concepts)
    return Draft.new(item.id, seed=seed, mode=mode, now=context.now(), asked=steps, typed=typed)


def put(context: Context, item: Item, draft: Draft) -> Question:
    """Return the question of this draft."""
    return Question(draft, item, context.proved(item, draft.seed), context.library.pack_of(item.id))


def asked(context: Context, draft: Draft) -> Question:
    """Return the question of this draft; raise a 404 if its item is no longer in the course."""
    item = context.library.items.get(draft.item)
    if item is None:
        raise HTTPException(404, _("This question is no longer in the course."))
    return put(context, item, draft)


def answered(context: Context, attempt: Attempt) -> Question | None:
    """Return the question that an attempt answered, or None if its item is no longer in the course."""
    item = context.library.items.get(attempt.item_id)
    if item is None:
        return None
    response = attempt.response
    steps = len(response) if isinstance(response, dict) else 1
    at = attempt.at.timestamp()
    question = put(context, item, Draft(attempt.id, item.id, attempt.seed, at, attempt.mode, attempt.hints, steps))
    typed = isinstance(response, str) and question.form == "options" and question.proved.option(response) is None
    return put(context, item, question.draft.but(typed=True)) if typed else question


def page_of(context: Context, question: Question, *, graded: str = "") -> dict[str, Any]:
    """Return the template's values for every page about a question."""
    this = context.library.topic_of(question.item)
    mode = question.draft.mode
    return {
        "question": question,
        "item": question.item,
        "proved": question.proved,
        "ticket": context.drafts.sign(question.draft),
        "pack": question.pack,
        "topic": this,
        "tabs": topic.tabs(context, question.pack, this) if mode in TABBED else [],
        "steps": _steps(context, question) if mode == "build" else [],
        "mode": mode,
        "mode_name": _(MODES.get(mode, mode.capitalize())),
        "graded": graded,
        "confidence": confidence.LEVELS,
    }


def _steps(context: Context, question: Question) -> list[tuple[Item, bool]]:
    """Return the steps of Build in this question's topic, each with whether it is done."""
    items = topic.items_for("build", context.library.items_of(question.pack, context.library.topic_of(question.item)))
    return [(item, review_queue.last_was_right(context.progress.items[item.id])) for item in items]


def once_more(item: str, mode: str, *, focus: str = "", since: int = 0) -> str:
    """Return the address that asks this question again, with the same focus or in the same session."""
    return f"/items/{item}?" + urlencode({"mode": mode, **kept_to(focus, since)})


def kept_to(focus: str, since: int) -> dict[str, object]:
    """Return the parameters of an address for the learner's focus and for the review session."""
    return {name: value for name, value in (("focus", focus), ("since", since)) if value}


def onward(context: Context, item: Item, mode: str, *, graded: str = "", focus: str = "", since: int = 0) -> str:
    """Return the address that "Next" leads to from this item, with the same focus or in the same session."""
    if mode in ("test", "challenge"):  # the answer is shown after the end of the assessment
        mode = "practice"
    if mode in SHORT_SESSIONS:
        base = f"/sessions/{mode}?after={item.id}"
    elif mode == "review":
        base = f"/review?after={item.id}" + (f"&since={since}" if since else "")
    else:
        pack, this = context.library.pack_of(item.id), context.library.topic_of(item)
        step = "next" if mode == "path" else mode if mode in MODES else "practice"
        base = topic.address(pack, this, step) + f"?after={item.id}"
    base += f"&focus={quote(focus)}" if focus else ""
    return f"{base}&graded={graded}" if graded else base


def rest(
    context: Context, items: list[Item], here: str, place: object, *, done: int = 0, right: int = 0, waiting: int = 0
) -> dict[str, Any]:
    """Return the template's values when nothing is left to ask: what is next, and what was done in the session."""
    due = review_queue.next_due(items, context.progress)
    fields = {"next_due": due, "now": context.now(), "here": here, "place": place}
    return {**fields, "done": done, "right": right, "waiting": waiting}

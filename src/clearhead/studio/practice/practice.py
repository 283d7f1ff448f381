"""Routes that ask a question and take the answer: Recall, Practice, Build and the review of what is due."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from clearhead.course import Attempt, Item
from clearhead.studio.learn import home, path, topic
from clearhead.studio.learner import confidence, review_queue, review_session
from clearhead.studio.practice import mistakes
from clearhead.studio.practice.asking import MODES, ask, asked, kept_to, new_draft, onward, page_of, rest
from clearhead.studio.questions import levels, responses
from clearhead.studio.questions.draft import Draft
from clearhead.studio.text import formatting
from clearhead.studio.text.translation import _
from clearhead.studio.web import saved_forms
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.saved_forms import SavedForm
from clearhead.studio.web.work_queues import queued

router = APIRouter()
SPACED = timedelta(minutes=3)  # a missed card does not come again before this, so that Recall ends
RUN = ("code", "order")  # forms whose answers are graded by running them
Signed = Annotated[str, Query(alias="ticket")]  # the signed draft in the address or form of a question


async def form_of(request: Request) -> FormData:
    """Return the sent form, whose fields depend on the question."""
    return await request.form()


@router.get("/topics/{pack_id}/{topic_id}/recall", response_class=HTMLResponse)
def recall(
    request: Request,
    context: CurrentContext,
    pack_id: str,
    topic_id: str,
    after: str = "",
    more: bool = False,
    focus: str = "",
) -> HTMLResponse:
    return _in_topic(request, context, pack_id, topic_id, mode="recall", after=after, more=more, focus=focus)


@router.get("/topics/{pack_id}/{topic_id}/practice", response_class=HTMLResponse)
def practice(
    request: Request,
    context: CurrentContext,
    pack_id: str,
    topic_id: str,
    after: str = "",
    more: bool = False,
    focus: str = "",
) -> HTMLResponse:
    return _in_topic(request, context, pack_id, topic_id, mode="practice", after=after, more=more, focus=focus)


@router.get("/topics/{pack_id}/{topic_id}/build", response_class=HTMLResponse)
def build(
    request: Request, context: CurrentContext, pack_id: str, topic_id: str, after: str = "", more: bool = False
) -> HTMLResponse:
    return _in_topic(request, context, pack_id, topic_id, mode="build", after=after, more=more)


@router.get("/review", response_class=HTMLResponse)
def review(request: Request, context: CurrentContext, after: str = "", focus: str = "", since: int = 0) -> HTMLResponse:
    """Ask the next question of a review session over all topics, or, with a focus, of all questions on one concept.

    `since` is the start of the session, which decides its end; without it a new session begins.
    """
    everything = home.asked(context)
    items = levels.items_at(focus, everything)
    if focus and len(items) < len(everything):
        item = review_queue.next_item(items, context.progress, context.now(), after=after)
        if item is None:
            return _at_rest(request, context, items)
        return ask(
            request, context, item, new_draft(context, item, "review").but(focus=focus, place=formatting.words(focus))
        )
    since = review_session.start_of(since, context.now())
    done, left, place = _session(context, since)
    item = next((item for item in left.items if item.id != after), next(iter(left.items), None))
    if item is None:
        return _at_rest(request, context, items, done=done, waiting=len(home.today(context).items))
    return ask(request, context, item, new_draft(context, item, "review").but(since=since, place=place))


def _session(context: Context, since: int) -> tuple[list[Attempt], review_session.ReviewSession, str]:
    """Return a session's answers so far, newest first; the remaining questions; and its place in words."""
    done = review_session.answers_since(context.history.attempts, since)
    left = home.today(context, review_session.SESSION_LENGTH - len(done))
    return done, left, _("%(place)s of %(all)s", place=len(done) + 1, all=len(done) + len(left.items))


@router.get("/items/{item_id}", response_class=HTMLResponse)
def item_page(
    request: Request,
    context: CurrentContext,
    item_id: str,
    mode: str = "practice",
    edit: str = "",
    fresh: bool = False,
    focus: str = "",
    since: int = 0,
) -> HTMLResponse:
    """Ask one question, with its earlier focus or in its earlier session, if any."""
    item = context.library.items.get(item_id)
    if item is None:
        if context.library.coming and item_id in context.library.written:
            raise topic.NotYet
        raise HTTPException(404, _("There is no question %(item)s here.", item=item_id))
    before = context.store.attempt(edit) if edit else None
    program = before.response if before and before.item_id == item_id and isinstance(before.response, str) else ""
    if fresh:
        context.store.drop(unsent(item_id))
    if mode == "build" and not fresh:
        program = program or _last_program(context, item)
    draft = new_draft(context, item, mode if mode in MODES else "practice").but(focus=focus)
    if mode == "path":
        draft = draft.but(place=_on_path(context, item))
    if since and mode == "review":
        since = review_session.start_of(since, context.now())
        draft = draft.but(since=since, place=_session(context, since)[2])
    return ask(request, context, item, draft, filled={"program": [program]} if program else None)


def _on_path(context: Context, item: Item) -> str:
    """Return where on its topic's path this question is: the part, and the minutes to its end."""
    way = path.way(context, context.library.pack_of(item.id), context.library.topic_of(item))
    return _("part %(part)s of %(parts)s, %(minutes)s min to go", part=way.part, parts=way.parts, minutes=way.left)


def unsent(item_id: str) -> str:
    """Return the store key of this item's unsent program."""
    return f"program:{item_id}"


def _last_program(context: Context, item: Item) -> str:
    """Return the program to continue with: the unsent one, or else the last answer."""
    kept = context.store.kept(unsent(item.id))
    if kept:
        return kept
    before = context.history.by_item.get(item.id, ())
    return next((str(attempt.response) for attempt in reversed(before) if isinstance(attempt.response, str)), "")


@router.get("/reveal", response_class=HTMLResponse)
@queued("programs")
def reveal(request: Request, context: CurrentContext, draft: Signed) -> HTMLResponse:
    question = asked(context, context.drafts.read(draft))
    if question.item.kind != "card":
        raise HTTPException(400, _("Only a card can be turned over. Answer the question to see its answer."))
    return render(request, "practice/card.html", **page_of(context, question), turned=True, levels=[])


@router.post("/answer")
@queued("programs")
def take(request: Request, context: CurrentContext, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Grade a form and store the attempt. A form that is sent again shows the stored attempt."""
    draft = context.drafts.read(str(form.get("ticket", "")))
    question = asked(context, draft)
    if question.form in RUN and (again := _answered_before(context, draft)):
        return again
    try:
        response = responses.read(question, form)
    except responses.Incomplete as problem:
        again = _answered_before(context, draft)
        return again or put_form_again(context, draft, SavedForm(filled(form), lacking=str(problem)))
    verdict = context.verdict(question, response)
    if verdict.suggested and question.form == "explain":
        again = _answered_before(context, draft)
        return again or put_form_again(context, draft, SavedForm(filled(form), compare=True))
    attempt = question.attempt(response, verdict, context.now(), confidence=confidence.chance_of(form.get("sure")))
    if not context.store.record(attempt, drop=saved_forms.form_key(draft)):
        return _answered_before(context, draft) or _after(context, draft, attempt)
    if question.form == "code":
        context.store.drop(unsent(draft.item))
    mistakes.remember(context, attempt, verdict)
    context.prepare_next(question.item)
    return _after(context, draft, attempt)


def _answered_before(context: Context, draft: Draft) -> Response | None:
    """Return the redirect for a draft that was answered before; None if this is the first answer.

    Most forms are sent once, so only questions whose answers are run check this before grading. For the others the
    store reports it, because it records an attempt once.
    """
    before = context.store.attempt(draft.id)
    return None if before is None else _after(context, draft, before, before=True)


@router.get("/question")
@queued("programs")
def put_again(request: Request, context: CurrentContext, draft: Signed) -> Response:
    """Show this draft's question as it was last sent: filled in, with what was missing and the hints so far."""
    put = context.drafts.read(draft)
    question = asked(context, put)
    if again := _answered_before(context, put):
        return again
    form = saved_forms.saved_form(context, put)
    if form.compare:
        verdict = context.verdict(question, form.fields["text"][0].strip())
        return render(request, "practice/confirm.html", **page_of(context, question), verdict=verdict)
    return ask(request, context, question.item, put, lacking=form.lacking, filled=form.fields)


@router.post("/help")
@queued("programs")
def help_with(context: CurrentContext, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Ask the question again with one more hint, or with its options, and with the learner's input.

    The draft counts the hints, so a hint counts with and without JavaScript, and no hint is in the page before it is
    requested.
    """
    draft = context.drafts.read(str(form.get("ticket", "")))
    question = asked(context, draft)
    changed = {"typed": False} if "options" in form else {"hints": min(draft.hints + 1, len(question.hints))}
    draft = draft.but(**changed)
    return put_form_again(context, draft, SavedForm(filled(form)))


def put_form_again(context: Context, draft: Draft, form: SavedForm) -> Response:
    """Save the form, and redirect to its question, filled in."""
    saved_forms.save_form(context, draft, form)
    return RedirectResponse(f"/question?{urlencode({'ticket': context.drafts.sign(draft)})}", 303)


def _after(context: Context, draft: Draft, kept: Attempt, *, before: bool = False) -> Response:
    """Redirect to the page after an answer. `before`: the question was answered already, and that answer counts."""
    if draft.assessment:
        return RedirectResponse(draft.assessment, 303)
    item = context.library.items[draft.item]
    if item.kind == "card":
        on = onward(context, item, kept.mode, graded=kept.id, focus=draft.focus, since=draft.since)
        return RedirectResponse(on + ("&before=true" if before else ""), 303)
    keeps = {**kept_to(draft.focus, draft.since), **({"before": "true"} if before else {})}
    return RedirectResponse(f"/attempts/{kept.id}" + (f"?{urlencode(keeps)}" if keeps else ""), 303)


def filled(form: FormData) -> dict[str, list[str]]:
    """Return the fields of a form, for filling it in again."""
    return {
        name: [value for value in form.getlist(name) if isinstance(value, str)]
        for name in form
        if name not in ("csrf", "ticket")
    }


def _at_rest(
    request: Request, context: Context, items: list[Item], *, done: Sequence[Attempt] = (), waiting: int = 0
) -> HTMLResponse:
    """Return the page at the end of a review: what was done, and how many questions another session would ask."""
    right = sum(attempt.correct for attempt in done)
    fields = rest(context, items, "/review", None, done=len(done), right=right, waiting=waiting)
    return render(request, "practice/rest.html", **fields, tabs=[], mode="", levels=[], focus="")


def _in_topic(
    request: Request,
    context: Context,
    pack_id: str,
    topic_id: str,
    *,
    mode: str,
    after: str,
    more: bool,
    focus: str = "",
) -> HTMLResponse:
    pack, this = topic.topic_at(context, pack_id, topic_id)
    everything = topic.items_for(mode, context.library.items_of(pack, this))
    if not everything:
        text = _("%(topic)s has nothing for %(mode)s yet.", topic=this.title, mode=_(MODES[mode]))
        raise topic.nothing(context, text)
    items = levels.items_at(focus, everything)
    focus = focus if len(items) < len(everything) else ""
    here = request.scope["path"] + (f"?focus={focus}" if focus else "")
    home.remember(context, home.Place(here, this.title, MODES[mode]))
    progress = context.progress
    row = [] if mode == "build" else levels.level_row(everything, progress)
    if not more and mode != "build" and path.passed_on(context, pack, this):  # then no new questions are asked
        items = [item for item in items if progress.items[item.id].attempts]
    item = _next(items, context, mode, after, more)
    if item is None:
        return render(
            request,
            "practice/rest.html",
            **rest(context, items, request.scope["path"], (pack, this)),
            tabs=topic.tabs(context, pack, this),
            mode=mode,
            levels=row,
            focus=focus,
        )
    known = sum(review_queue.last_was_right(progress.items[item.id]) for item in items)
    text = _("%(known)s of %(all)s right so far", known=known, all=len(items))
    program = _last_program(context, item) if mode == "build" else ""
    fields = {"program": [program]} if program else None
    return ask(
        request, context, item, new_draft(context, item, mode).but(focus=focus, place=text), levels=row, filled=fields
    )


def _next(items: list[Item], context: Context, mode: str, after: str, more: bool) -> Item | None:
    progress = context.progress
    if mode == "build":  # steps build on each other, so ask the first that is not done
        return next(
            (item for item in items if not review_queue.last_was_right(progress.items[item.id])),
            items[-1] if more else None,
        )
    spaced = SPACED if mode == "recall" else timedelta()
    item = review_queue.next_item(items, progress, context.now(), after=after, spaced=spaced)
    return review_queue.least_recent(items, progress, after=after) if item is None and more else item

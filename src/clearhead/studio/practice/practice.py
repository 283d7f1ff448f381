"""Put a question, take the answer, say why. Recall, Practice and the review of what is due all go through here."""

from collections.abc import Sequence
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.datastructures import FormData

from clearhead.course import Attempt, Item
from clearhead.studio.learn import home, topic
from clearhead.studio.learner import confidence
from clearhead.studio.learner import review_queue as queue
from clearhead.studio.learner import review_session as helping
from clearhead.studio.practice import assessments as exam
from clearhead.studio.practice import mistakes
from clearhead.studio.practice.asking import MODES, ask, asked, kept_to, new_ticket, onward, page_of, rest
from clearhead.studio.questions import levels
from clearhead.studio.questions import responses as answer
from clearhead.studio.questions.draft import Ticket
from clearhead.studio.text import formatting as say
from clearhead.studio.text.translation import _
from clearhead.studio.web import saved_forms as sent
from clearhead.studio.web.context import AtDesk, Desk
from clearhead.studio.web.rendering import render
from clearhead.studio.web.saved_forms import Sent
from clearhead.studio.web.work_queues import queued

router = APIRouter()


async def form_of(request: Request) -> FormData:
    """The form as it was sent; its fields depend on the question."""
    return await request.form()


@router.get("/topics/{pack_id}/{topic_id}/recall", response_class=HTMLResponse)
def recall(
    request: Request,
    desk: AtDesk,
    pack_id: str,
    topic_id: str,
    after: str = "",
    more: bool = False,
    focus: str = "",
) -> HTMLResponse:
    return _in_topic(request, desk, pack_id, topic_id, mode="recall", after=after, more=more, focus=focus)


@router.get("/topics/{pack_id}/{topic_id}/practice", response_class=HTMLResponse)
def practice(
    request: Request,
    desk: AtDesk,
    pack_id: str,
    topic_id: str,
    after: str = "",
    more: bool = False,
    focus: str = "",
) -> HTMLResponse:
    return _in_topic(request, desk, pack_id, topic_id, mode="practice", after=after, more=more, focus=focus)


@router.get("/topics/{pack_id}/{topic_id}/build", response_class=HTMLResponse)
def build(
    request: Request, desk: AtDesk, pack_id: str, topic_id: str, after: str = "", more: bool = False
) -> HTMLResponse:
    return _in_topic(request, desk, pack_id, topic_id, mode="build", after=after, more=more)


@router.get("/review", response_class=HTMLResponse)
def review(request: Request, desk: AtDesk, after: str = "", focus: str = "", since: int = 0) -> HTMLResponse:
    """A sitting of what is due and what is new, of all topics; or, with a focus, every question on one concept.

    `since` is when the sitting began, so that it ends after so many answers; without it a new one begins.
    """
    everything = home.asked(desk)
    items = levels.at(focus, everything)
    if focus and len(items) < len(everything):
        item = queue.following(items, desk.progress, desk.now(), after=after)
        if item is None:
            return _at_rest(request, desk, items)
        return ask(request, desk, item, new_ticket(desk, item, "review").but(focus=focus, place=say.words(focus)))
    since = helping.begun(since, desk.now())
    done, left, place = _sitting(desk, since)
    item = next((item for item in left.items if item.id != after), next(iter(left.items), None))
    if item is None:
        return _at_rest(request, desk, items, done=done, waiting=len(home.today(desk).items))
    return ask(request, desk, item, new_ticket(desk, item, "review").but(since=since, place=place))


def _sitting(desk: Desk, since: int) -> tuple[list[Attempt], helping.Helping, str]:
    """What was answered in the sitting that began then, newest first; what it asks yet; and where it is, in words."""
    done = helping.answered(desk.history.attempts, since)
    left = home.today(desk, helping.SITTING - len(done))
    return done, left, _("%(place)s of %(all)s", place=len(done) + 1, all=len(done) + len(left.items))


@router.get("/items/{item_id}", response_class=HTMLResponse)
def one(
    request: Request,
    desk: AtDesk,
    item_id: str,
    mode: str = "practice",
    edit: str = "",
    fresh: bool = False,
    focus: str = "",
    since: int = 0,
) -> HTMLResponse:
    """One question, with the focus or in the sitting it was met in before, if any."""
    item = desk.shelf.items.get(item_id)
    if item is None:
        if desk.shelf.coming and item_id in desk.shelf.written:
            raise topic.NotYet
        raise HTTPException(404, _("There is no question %(item)s here.", item=item_id))
    before = desk.store.attempt(edit) if edit else None
    program = before.response if before and before.item_id == item_id and isinstance(before.response, str) else ""
    if mode == "build" and not fresh:
        program = program or _last_program(desk, item)
    ticket = new_ticket(desk, item, mode if mode in MODES else "practice").but(focus=focus)
    if since and mode == "review":
        since = helping.begun(since, desk.now())
        ticket = ticket.but(since=since, place=_sitting(desk, since)[2])
    return ask(request, desk, item, ticket, filled={"program": [program]} if program else None)


def _last_program(desk: Desk, item: Item) -> str:
    """The program this step of Build was last answered with: one goes on with one's own."""
    before = desk.history.by_item.get(item.id, ())
    return next((str(one.response) for one in reversed(before) if isinstance(one.response, str)), "")


@router.get("/reveal", response_class=HTMLResponse)
@queued("programs")
def reveal(request: Request, desk: AtDesk, ticket: str) -> HTMLResponse:
    question = asked(desk, desk.tickets.read(ticket))
    if question.item.kind != "card":
        raise HTTPException(400, _("Only a card can be turned over. Answer the question to see its answer."))
    return render(request, "practice/card.html", **page_of(desk, question), turned=True, levels=[])


@router.post("/answer")
@queued("programs")
def take(request: Request, desk: AtDesk, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Grade a form and keep the attempt; a form sent again shows what was kept the first time."""
    ticket = desk.tickets.read(str(form.get("ticket", "")))
    question = asked(desk, ticket)
    kept = desk.store.attempt(ticket.id)
    if kept is None:
        try:
            response = answer.read(question, form)
        except answer.Incomplete as problem:
            return _put_again(desk, ticket, Sent(filled(form), lacking=str(problem)))
        verdict = desk.verdict(question, response)
        if verdict.suggested and question.form == "explain":
            return _put_again(desk, ticket, Sent(filled(form), compare=True))
        kept = question.attempt(response, verdict, desk.now(), confidence=confidence.stated(form.get("sure")))
        desk.store.record(kept, drop=sent.form_key(ticket))
        mistakes.remember(desk, kept, verdict)
        desk.prepare_next(question.item)
        return _after(desk, ticket, kept)
    return _after(desk, ticket, kept, before=True)


@router.get("/question")
@queued("programs")
def put_again(request: Request, desk: AtDesk, ticket: str) -> Response:
    """The question of this ticket as it was last sent: what was filled in, what it lacked, the hints it asked for."""
    put = desk.tickets.read(ticket)
    question = asked(desk, put)
    kept = desk.store.attempt(put.id)
    if kept is not None:
        return _after(desk, put, kept, before=True)
    form = sent.form_of(desk, put)
    if form.compare:
        verdict = desk.verdict(question, form.fields["text"][0].strip())
        return render(request, "practice/confirm.html", **page_of(desk, question), verdict=verdict)
    return ask(request, desk, question.item, put, lacking=form.lacking, filled=form.fields)


@router.post("/help")
@queued("programs")
def help_with(desk: AtDesk, form: Annotated[FormData, Depends(form_of)]) -> Response:
    """Put the question again with one more hint, or with its options, and with what was filled in.

    The ticket counts the hints, so a hint is counted with and without JavaScript, and none is in the page before it
    is asked for.
    """
    ticket = desk.tickets.read(str(form.get("ticket", "")))
    question = asked(desk, ticket)
    if "options" in form:
        ticket = ticket.but(typed=False)
    else:
        ticket = ticket.but(hints=min(ticket.hints + 1, len(question.hints)))
    return _put_again(desk, ticket, Sent(filled(form)))


def _put_again(desk: Desk, ticket: Ticket, form: Sent) -> Response:
    sent.keep_form(desk, ticket, form)
    return RedirectResponse(f"/question?{urlencode({'ticket': desk.tickets.sign(ticket)})}", 303)


def _after(desk: Desk, ticket: Ticket, kept: Attempt, *, before: bool = False) -> Response:
    """Where an answer leads; `before`: this question had been answered, and that answer counts."""
    if ticket.sitting:
        return RedirectResponse(ticket.sitting, 303)
    item = desk.shelf.items[ticket.item]
    if item.kind == "card":
        on = onward(desk, item, kept.mode, graded=kept.id, focus=ticket.focus, since=ticket.since)
        return RedirectResponse(on + ("&before=true" if before else ""), 303)
    keeps = {**kept_to(ticket.focus, ticket.since), **({"before": "true"} if before else {})}
    return RedirectResponse(f"/attempts/{kept.id}" + (f"?{urlencode(keeps)}" if keeps else ""), 303)


def filled(form: FormData) -> dict[str, list[str]]:
    """What a form holds, to fill it in again."""
    return {
        name: [one for one in form.getlist(name) if isinstance(one, str)]
        for name in form
        if name not in ("csrf", "ticket")
    }


def _at_rest(
    request: Request, desk: Desk, items: list[Item], *, done: Sequence[Attempt] = (), waiting: int = 0
) -> HTMLResponse:
    """The end of a review: what was done in this sitting, and how many questions another would ask."""
    right = sum(one.correct for one in done)
    said = rest(desk, items, "/review", None, done=len(done), right=right, waiting=waiting)
    return render(request, "practice/rest.html", **said, tabs=[], mode="", levels=[], focus="")


def _in_topic(
    request: Request, desk: Desk, pack_id: str, topic_id: str, *, mode: str, after: str, more: bool, focus: str = ""
) -> HTMLResponse:
    pack, this = topic.found(desk, pack_id, topic_id)
    everything = topic.items_for(mode, desk.shelf.items_of(pack, this))
    if not everything:
        said = _("%(topic)s has nothing for %(mode)s yet.", topic=this.title, mode=_(MODES[mode]))
        raise topic.nothing(desk, said)
    items = levels.at(focus, everything)
    focus = focus if len(items) < len(everything) else ""
    here = request.scope["path"] + (f"?focus={focus}" if focus else "")
    home.remember(desk, home.Place(here, this.title, MODES[mode]))
    progress = desk.progress
    row = [] if mode == "build" else levels.row(everything, progress)
    if exam.passed(desk, pack, this) and not more and mode != "build":  # who passed the test is asked nothing new
        items = [one for one in items if progress.items[one.id].attempts]
    item = _next(items, desk, mode, after, more)
    if item is None:
        return render(
            request,
            "practice/rest.html",
            **rest(desk, items, request.scope["path"], (pack, this)),
            tabs=topic.tabs(desk, pack, this),
            mode=mode,
            levels=row,
            focus=focus,
        )
    known = sum(queue.settled(progress.items[one.id]) for one in items)
    said = _("%(known)s of %(all)s right so far", known=known, all=len(items))
    program = _last_program(desk, item) if mode == "build" else ""
    fields = {"program": [program]} if program else None
    return ask(
        request, desk, item, new_ticket(desk, item, mode).but(focus=focus, place=said), levels=row, filled=fields
    )


def _next(items: list[Item], desk: Desk, mode: str, after: str, more: bool) -> Item | None:
    progress = desk.progress
    if mode == "build":  # steps build on each other: the first that is not done
        return next((item for item in items if not queue.settled(progress.items[item.id])), items[-1] if more else None)
    item = queue.following(items, progress, desk.now(), after=after)
    return queue.anyway(items, progress, after=after) if item is None and more else item

"""Test and Challenge: questions in a row, what came of them at the end."""

import uuid
from collections import Counter
from dataclasses import dataclass

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item, Mastery, Pack, Topic
from clearhead.studio import home, sitting, topic
from clearhead.studio.asking import ask, new_ticket
from clearhead.studio.desk import AtDesk, Desk
from clearhead.studio.language import _, many
from clearhead.studio.pages import render
from clearhead.studio.ticket import Ticket

router = APIRouter()


@router.get("/topics/{pack_id}/{topic_id}/test", response_class=HTMLResponse)
def test(request: Request, desk: AtDesk, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(desk, pack_id, topic_id)
    count = min(sitting.LENGTH, sum(item.kind in sitting.TEST for item in items))
    return render(request, "test.html", pack=pack, topic=this, count=count, start=f"{request.url.path}/{sitting.new()}")


@router.get("/topics/{pack_id}/{topic_id}/test/{id}", response_class=HTMLResponse)
def sit_test(request: Request, desk: AtDesk, pack_id: str, topic_id: str, id: uuid.UUID) -> HTMLResponse:
    pack, this, items = _bank(desk, pack_id, topic_id)
    answers = sitting.given(str(id), desk.store.attempt)
    item = sitting.following(items, answers, str(id))
    if item is None:
        return render(
            request,
            "test_report.html",
            pack=pack,
            topic=this,
            answers=[(one, desk.shelf.items.get(one.item_id)) for one in answers],
            right=sum(one.correct for one in answers),
            concepts=_by_concept(desk, answers),
            here=request.url.path,
        )
    home.remember(desk, home.Place(request.url.path, this.title, "Test"))
    count = min(sitting.LENGTH, sum(item.kind in sitting.TEST for item in items))
    ticket = _ticket(desk, item, "test", sitting.answer_id(str(id), len(answers)), request.url.path)
    return ask(
        request,
        desk,
        item,
        "test",
        ticket=ticket,
        done=_("question %(place)s of %(all)s", place=len(answers) + 1, all=count),
        bare=True,
    )


@router.get("/topics/{pack_id}/{topic_id}/challenge", response_class=HTMLResponse)
def challenge(request: Request, desk: AtDesk, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(desk, pack_id, topic_id)
    new = sitting.new()
    return render(
        request,
        "challenge.html",
        pack=pack,
        topic=this,
        problems=sitting.problems(items, new, desk.store.attempt),
        start=f"{request.url.path}/{new}",
        clock=desk.setting("clock"),
        badge=desk.store.kept(f"badge:{pack.id}/{this.id}"),
    )


@router.get("/topics/{pack_id}/{topic_id}/challenge/{id}", response_class=HTMLResponse)
def sit_challenge(
    request: Request, desk: AtDesk, pack_id: str, topic_id: str, id: uuid.UUID, clock: str = "1"
) -> HTMLResponse:
    if clock not in sitting.CLOCKS:
        raise HTTPException(422, _("The clock is one of %(clocks)s.", clocks=", ".join(sitting.CLOCKS)))
    factor = sitting.CLOCKS[clock]
    pack, this, items = _bank(desk, pack_id, topic_id)
    five = sitting.problems(items, str(id), desk.store.attempt)
    now = next((one for one in five if not one.over), None)
    here = f"{request.url.path}?clock={clock}"
    if now is None:
        won = all(one.solved and one.in_time(factor) for one in five)
        if won:
            desk.store.keep(f"badge:{pack.id}/{this.id}", f"{desk.now():%Y-%m-%d}")
        return render(
            request, "challenge_report.html", pack=pack, topic=this, problems=five, factor=factor, won=won, here=here
        )
    home.remember(desk, home.Place(here, this.title, "Challenge"))
    id_now = sitting.answer_id(str(id), now.place, len(now.tries))
    first = sitting.answer_id(str(id), now.place)
    ticket = _ticket(desk, now.item, "challenge", id_now, here, began=first)
    left = many("%(count)s try left", "%(count)s tries left", now.left)
    return ask(
        request,
        desk,
        now.item,
        "challenge",
        ticket=ticket,
        done=_(
            "%(place)s of %(all)s: %(name)s · %(left)s",
            place=five.index(now) + 1,
            all=len(five),
            name=_(now.name).lower(),
            left=left,
        ),
        note=_("Not right. Look again; the options have moved.") if now.tries else "",
        seconds=round(now.seconds * factor),
    )


@dataclass(frozen=True)
class Told:
    """What a test says of one concept."""

    mastery: Mastery
    right: int
    asked: int


def _by_concept(desk: Desk, answers: list[Attempt]) -> list[Told]:
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for answer in answers:
        item = desk.shelf.items.get(answer.item_id)
        for concept in item.concepts if item else ():
            asked[concept] += 1
            right[concept] += answer.correct
    known = desk.progress.concepts
    told = [Told(known[concept], right[concept], count) for concept, count in asked.items() if concept in known]
    return sorted(told, key=lambda one: (one.right / one.asked, one.mastery.concept))


def _ticket(desk: Desk, item: Item, mode: str, id: str, back: str, *, began: str = "") -> Ticket:
    """The ticket of one place in a sitting; its clock runs from when the place was first shown."""
    ticket = new_ticket(desk, item, mode)
    at = desk.began.setdefault(began or id, ticket.at)
    return Ticket(id, item.id, ticket.seed, at, mode, asked=ticket.asked, sitting=back)


def _bank(desk: Desk, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    """The topic and the items a sitting draws from, or a 404 where there are too few."""
    pack, this = topic.found(desk, pack_id, topic_id)
    items = topic.items_for("test", desk.shelf.items_of(pack, this))
    if not items:
        raise HTTPException(404, _("%(topic)s has too few questions for this yet.", topic=this.title))
    return pack, this, items

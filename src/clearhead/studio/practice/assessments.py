"""Test and Challenge: questions in a row, what came of them at the end."""

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Challenge, Item, Mastery, Pack, Topic
from clearhead.studio.learn import home, topic
from clearhead.studio.practice.asking import ask, new_ticket
from clearhead.studio.questions import assessment as sitting
from clearhead.studio.questions.draft import Ticket
from clearhead.studio.text.translation import _, many, mark
from clearhead.studio.web.context import AtDesk, Desk
from clearhead.studio.web.rendering import render

router = APIRouter()


@router.get("/topics/{pack_id}/{topic_id}/test", response_class=HTMLResponse)
def test(request: Request, desk: AtDesk, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(desk, pack_id, topic_id)
    return render(
        request,
        "practice/test.html",
        pack=pack,
        topic=this,
        tabs=topic.tabs(desk, pack, this),
        mode="test",
        count=min(sitting.LENGTH, len(items)),
        bank=len(items),
        needed=round(sitting.PASS * sitting.LENGTH) if len(items) >= sitting.LENGTH else 0,
        passed=passed(desk, pack, this),
        start=f"{request.scope['path']}/{sitting.new()}",
    )


@router.get("/topics/{pack_id}/{topic_id}/test/{id}", response_class=HTMLResponse)
def sit_test(request: Request, desk: AtDesk, pack_id: str, topic_id: str, id: uuid.UUID) -> HTMLResponse:
    pack, this, items = _bank(desk, pack_id, topic_id)
    answers = sitting.given(str(id), desk.store.attempt)
    item = sitting.following(items, answers, str(id))
    if item is None:
        won = sitting.passed(answers)
        if won:
            desk.store.keep(f"passed:{pack.id}/{this.id}", f"{answers[-1].at:%Y-%m-%d}")
        return render(
            request,
            "practice/test_report.html",
            pack=pack,
            topic=this,
            tabs=topic.tabs(desk, pack, this),
            mode="test",
            answers=[(one, desk.shelf.items.get(one.item_id)) for one in answers],
            right=sum(one.correct for one in answers),
            concepts=_by_concept(desk, answers),
            won=won,
            needed=round(sitting.PASS * sitting.LENGTH) if len(items) >= sitting.LENGTH else 0,
            here=request.scope["path"],
        )
    home.remember(desk, home.Place(request.scope["path"], this.title, mark("Test")))
    count = min(sitting.LENGTH, len(items))
    place = _("question %(place)s of %(all)s", place=len(answers) + 1, all=count)
    ticket = _ticket(desk, item, "test", str(id), len(answers), request.scope["path"]).but(place=place)
    return ask(request, desk, item, ticket)


def passed(desk: Desk, pack: Pack, this: Topic) -> str:
    """The day on which the learner passed this topic's test, or ""."""
    return desk.store.kept(f"passed:{pack.id}/{this.id}")


@router.get("/topics/{pack_id}/{topic_id}/challenge", response_class=HTMLResponse)
def challenge(request: Request, desk: AtDesk, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(desk, pack_id, topic_id)
    written = sitting.offered(this.challenges, desk.shelf.items_of(pack, this))
    new = sitting.new()
    return render(
        request,
        "practice/challenge.html",
        pack=pack,
        topic=this,
        tabs=topic.tabs(desk, pack, this),
        mode="challenge",
        written=[(one, _badge(desk, pack, this, one)) for one in written],
        problems=sitting.problems(items, new, desk.store.attempt),
        start=f"{request.scope['path']}/{new}",
        clock=desk.setting("clock"),
        badge=_badge(desk, pack, this, None),
    )


@router.get("/topics/{pack_id}/{topic_id}/challenge/{id}", response_class=HTMLResponse)
def sit_challenge(
    request: Request,
    desk: AtDesk,
    pack_id: str,
    topic_id: str,
    id: uuid.UUID,
    clock: str = "1",
    of: Annotated[str, Query(pattern="^[a-z0-9-]{0,64}$")] = "",
) -> HTMLResponse:
    if clock not in sitting.CLOCKS:
        raise HTTPException(422, _("The clock is one of %(clocks)s.", clocks=", ".join(sitting.CLOCKS)))
    factor = sitting.CLOCKS[clock]
    pack, this, items = _bank(desk, pack_id, topic_id)
    chosen = _chosen(desk, pack, this, of)
    five = sitting.problems(desk.shelf.items_of(pack, this) if chosen else items, str(id), desk.store.attempt, chosen)
    now = next((one for one in five if not one.over), None)
    here = f"{request.scope['path']}?clock={clock}" + (f"&of={of}" if of else "")
    if now is None:
        won = all(one.solved and one.in_time(factor) for one in five)
        if won:
            desk.store.keep(_badge_key(pack, this, chosen), f"{five[-1].tries[-1].at:%Y-%m-%d}")
        return render(
            request,
            "practice/challenge_report.html",
            pack=pack,
            topic=this,
            tabs=topic.tabs(desk, pack, this),
            mode="challenge",
            chosen=chosen,
            problems=five,
            factor=factor,
            won=won,
            here=here,
        )
    home.remember(desk, home.Place(here, this.title, mark("Challenge")))
    place = _(
        "%(place)s of %(all)s: %(name)s · %(left)s",
        place=five.index(now) + 1,
        all=len(five),
        name=_(now.name).lower(),
        left=many("%(count)s try left", "%(count)s tries left", now.left),
    )
    ticket = _ticket(desk, now.item, "challenge", str(id), now.place, here, tries=len(now.tries))
    return ask(
        request,
        desk,
        now.item,
        ticket.but(place=place, clock=round(now.seconds * factor)),
        note=_note(five, now, factor),
    )


def _note(five: list[sitting.Problem], now: sitting.Problem, factor: float) -> str:
    """What came of the last try, above the problem that is put now."""
    if now.tries:
        return _("Not right. Look again; the options have moved.")
    if now is five[0]:
        return ""
    before = five[five.index(now) - 1]
    if not before.solved:
        return _("That was not right; the end of the challenge says why. On to the next.")
    return _("That was right.") if before.in_time(factor) else _("That was right, after the time.")


# What a test says of a concept, and what to do about it.
VERDICTS = {
    "strong": mark("Right here, and right after a gap before. Nothing to do."),
    "good": mark("Right here. One more right answer on another day makes it strong."),
    "shaky": mark("Partly right. Practise it until it is right twice."),
    "weak": mark("Not yet. Read about it again, then practise."),
}


@dataclass(frozen=True)
class Told:
    """What a test says of one concept."""

    mastery: Mastery
    right: int
    asked: int

    @property
    def verdict(self) -> str:
        """One of VERDICTS. "strong" needs a right answer after a day's gap: no single test can give it."""
        if self.right < self.asked:
            return "shaky" if self.right else "weak"
        return "strong" if self.mastery.level == "strong" else "good"

    @property
    def advice(self) -> str:
        """What the verdict means and asks for, in one line."""
        return _(VERDICTS[self.verdict])


def _by_concept(desk: Desk, answers: list[Attempt]) -> list[Told]:
    """The concepts that were asked, the weakest first."""
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


def _ticket(desk: Desk, item: Item, mode: str, id: str, place: int, back: str, *, tries: int = 0) -> Ticket:
    """The ticket of one place in a sitting; its clock runs from when the place was first shown."""
    ticket = new_ticket(desk, item, mode)
    at = _began(desk, id, place, ticket.at)
    return Ticket(sitting.answer_id(id, place, tries), item.id, ticket.seed, at, mode, asked=ticket.asked, sitting=back)


def _began(desk: Desk, id: str, place: int, now: float) -> float:
    """When this place of a sitting was first shown; kept, so that no restart sets a clock back."""
    kept = json.loads(desk.store.kept(f"began:{id}", "{}"))
    if str(place) not in kept:
        kept[str(place)] = now
        desk.store.keep(f"began:{id}", json.dumps(kept))
    return float(kept[str(place)])


def _chosen(desk: Desk, pack: Pack, this: Topic, id: str) -> Challenge | None:
    """The author's challenge of this id; None for "", which draws five."""
    if not id:
        return None
    for one in sitting.offered(this.challenges, desk.shelf.items_of(pack, this)):
        if one.id == id:
            return one
    raise HTTPException(404, _("There is no challenge %(id)s here.", id=id))


def _badge_key(pack: Pack, this: Topic, chosen: Challenge | None) -> str:
    return f"badge:{pack.id}/{this.id}" + (f"/{chosen.id}" if chosen else "")


def _badge(desk: Desk, pack: Pack, this: Topic, chosen: Challenge | None) -> str:
    """The day on which all five were right in time, or ""."""
    return desk.store.kept(_badge_key(pack, this, chosen))


def _bank(desk: Desk, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    """The topic and the items a sitting draws from, or a 404 where there are too few."""
    pack, this = topic.found(desk, pack_id, topic_id)
    items = topic.items_for("test", desk.shelf.items_of(pack, this))
    if not items:
        raise topic.nothing(desk, _("%(topic)s has too few questions for this yet.", topic=this.title))
    return pack, this, items

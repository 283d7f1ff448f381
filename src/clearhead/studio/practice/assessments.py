"""Routes of Test and Challenge: a series of questions, and the report at the end."""

import json
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Challenge, Item, Mastery, Pack, Topic
from clearhead.studio.learn import home, path, topic
from clearhead.studio.practice.asking import ask, new_draft
from clearhead.studio.questions import assessment
from clearhead.studio.questions.draft import Draft
from clearhead.studio.text.translation import _, many, mark
from clearhead.studio.web.context import Context, CurrentContext

router = APIRouter()


@router.get("/topics/{pack_id}/{topic_id}/test", response_class=HTMLResponse)
def test(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(context, pack_id, topic_id)
    return topic.mode_page(
        request,
        context,
        "practice/test.html",
        pack,
        this,
        "test",
        count=min(assessment.LENGTH, len(items)),
        bank=len(items),
        needed=assessment.needed(len(items)),
        passed=path.passed_on(context, pack, this),
        start=f"{request.scope['path']}/{assessment.new_id()}",
    )


@router.get("/topics/{pack_id}/{topic_id}/test/{id}", response_class=HTMLResponse)
def sit_test(request: Request, context: CurrentContext, pack_id: str, topic_id: str, id: uuid.UUID) -> HTMLResponse:
    pack, this, items = _bank(context, pack_id, topic_id)
    answers = assessment.answers_so_far(str(id), context.store.attempt)
    item = assessment.next_item(items, answers, str(id))
    if item is None:
        won = assessment.passed(answers)
        if won:
            path.keep_passed(context, pack, this, answers[-1].at)
        return topic.mode_page(
            request,
            context,
            "practice/test_report.html",
            pack,
            this,
            "test",
            answers=[(answer, context.library.items.get(answer.item_id)) for answer in answers],
            right=sum(answer.correct for answer in answers),
            concepts=_by_concept(context, answers),
            won=won,
            needed=assessment.needed(len(items)),
            here=request.scope["path"],
        )
    home.remember(context, home.Place(request.scope["path"], this.title, mark("Test")))
    count = min(assessment.LENGTH, len(items))
    place = _("question %(place)s of %(all)s", place=len(answers) + 1, all=count)
    draft = answer_draft(context, item, "test", str(id), len(answers), request.scope["path"]).but(place=place)
    return ask(request, context, item, draft)


@router.get("/topics/{pack_id}/{topic_id}/challenge", response_class=HTMLResponse)
def challenge(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this, items = _bank(context, pack_id, topic_id)
    authored = assessment.offered(this.challenges, context.library.items_of(pack, this))
    new = assessment.new_id()
    return topic.mode_page(
        request,
        context,
        "practice/challenge.html",
        pack,
        this,
        "challenge",
        written=[(chosen, _badge(context, pack, this, chosen)) for chosen in authored],
        problems=assessment.problems(items, new, context.store.attempt),
        start=f"{request.scope['path']}/{new}",
        clock=context.setting("clock"),
        badge=_badge(context, pack, this, None),
    )


@router.get("/topics/{pack_id}/{topic_id}/challenge/{id}", response_class=HTMLResponse)
def sit_challenge(
    request: Request,
    context: CurrentContext,
    pack_id: str,
    topic_id: str,
    id: uuid.UUID,
    clock: str = "1",
    of: Annotated[str, Query(pattern="^[a-z0-9-]{0,64}$")] = "",
) -> HTMLResponse:
    if clock not in assessment.CLOCKS:
        raise HTTPException(422, _("The clock is one of %(clocks)s.", clocks=", ".join(assessment.CLOCKS)))
    factor = assessment.CLOCKS[clock]
    pack, this, items = _bank(context, pack_id, topic_id)
    chosen = _chosen(context, pack, this, of)
    five = assessment.problems(
        context.library.items_of(pack, this) if chosen else items, str(id), context.store.attempt, chosen
    )
    now = next((problem for problem in five if not problem.over), None)
    here = f"{request.scope['path']}?clock={clock}" + (f"&of={of}" if of else "")
    if now is None:
        won = all(problem.solved and problem.in_time(factor) for problem in five)
        if won:
            context.store.keep(_badge_key(pack, this, chosen), f"{five[-1].tries[-1].at:%Y-%m-%d}")
        return topic.mode_page(
            request,
            context,
            "practice/challenge_report.html",
            pack,
            this,
            "challenge",
            chosen=chosen,
            problems=five,
            factor=factor,
            won=won,
            here=here,
        )
    home.remember(context, home.Place(here, this.title, mark("Challenge")))
    place = _(
        "%(place)s of %(all)s: %(name)s · %(left)s",
        place=five.index(now) + 1,
        all=len(five),
        name=_(now.name).lower(),
        left=many("%(count)s try left", "%(count)s tries left", now.left),
    )
    draft = answer_draft(context, now.item, "challenge", str(id), now.place, here, tries=len(now.tries))
    return ask(
        request,
        context,
        now.item,
        draft.but(place=place, clock=round(now.seconds * factor)),
        note=_note(five, now, factor),
    )


def _note(five: list[assessment.Problem], now: assessment.Problem, factor: float) -> str:
    """Return the sentence about the last try, which is shown above the next problem."""
    if now.tries:
        return _("Not right. Look again; the options have moved.")
    if now is five[0]:
        return ""
    before = five[five.index(now) - 1]
    if not before.solved:
        return _("That was not right; the end of the challenge says why. On to the next.")
    return _("That was right.") if before.in_time(factor) else _("That was right, but after the time.")


# Verdict of a test on a concept -> what it means and what to do.
VERDICTS = {
    "strong": mark("Right here, and right after a gap before. Nothing to do."),
    "good": mark("Right here. One more right answer on another day makes it strong."),
    "shaky": mark("Partly right. Practise it until it is right twice."),
    "weak": mark("Not yet. Read about it again, then practise."),
}


@dataclass(frozen=True)
class ConceptVerdict:
    """The verdict of a test on one concept."""

    mastery: Mastery
    right: int
    asked: int

    @property
    def verdict(self) -> str:
        """One of VERDICTS. "strong" needs a right answer after a day's gap, which no single test can give."""
        if self.right < self.asked:
            return "shaky" if self.right else "weak"
        return "strong" if self.mastery.level == "strong" else "good"

    @property
    def advice(self) -> str:
        """What the verdict means and what to do next, in one line."""
        return _(VERDICTS[self.verdict])


def _by_concept(context: Context, answers: list[Attempt]) -> list[ConceptVerdict]:
    """Return the concepts that were asked, the weakest first."""
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for answer in answers:
        item = context.library.items.get(answer.item_id)
        for concept in item.concepts if item else ():
            asked[concept] += 1
            right[concept] += answer.correct
    known = context.progress.concepts
    verdicts = [
        ConceptVerdict(known[concept], right[concept], count) for concept, count in asked.items() if concept in known
    ]
    return sorted(verdicts, key=lambda verdict: (verdict.right / verdict.asked, verdict.mastery.concept))


def answer_draft(context: Context, item: Item, mode: str, id: str, place: int, back: str, *, tries: int = 0) -> Draft:
    """Return the draft of one place in an assessment. Its clock starts when the place is first shown."""
    draft = new_draft(context, item, mode)
    at = _began(context, id, place, draft.at)
    return Draft(
        assessment.answer_id(id, place, tries), item.id, draft.seed, at, mode, asked=draft.asked, assessment=back
    )


def _began(context: Context, id: str, place: int, now: float) -> float:
    """Return when this place was first shown; it is stored, so that no restart resets a clock."""
    kept = json.loads(context.store.kept(f"began:{id}", "{}"))
    if str(place) not in kept:
        kept[str(place)] = now
        context.store.keep(f"began:{id}", json.dumps(kept))
    return float(kept[str(place)])


def _chosen(context: Context, pack: Pack, this: Topic, id: str) -> Challenge | None:
    """Return the author's challenge with this id; None for "", which draws five problems."""
    if not id:
        return None
    for challenge in assessment.offered(this.challenges, context.library.items_of(pack, this)):
        if challenge.id == id:
            return challenge
    raise HTTPException(404, _("There is no challenge %(id)s here.", id=id))


def _badge_key(pack: Pack, this: Topic, chosen: Challenge | None) -> str:
    return f"badge:{pack.id}/{this.id}" + (f"/{chosen.id}" if chosen else "")


def _badge(context: Context, pack: Pack, this: Topic, chosen: Challenge | None) -> str:
    """Return the day on which all five were right in time, or ""."""
    return context.store.kept(_badge_key(pack, this, chosen))


def _bank(context: Context, pack_id: str, topic_id: str) -> tuple[Pack, Topic, list[Item]]:
    """Return the topic and the items an assessment draws from; raise a 404 if there are too few."""
    pack, this = topic.topic_at(context, pack_id, topic_id)
    items = topic.items_for("test", context.library.items_of(pack, this))
    if not items:
        raise topic.nothing(context, _("%(topic)s has too few questions for this yet.", topic=this.title))
    return pack, this, items

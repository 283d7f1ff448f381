"""The page of a topic's common mistakes: the learner's own, each with its counterexample, and the others."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt, Item, Option, Proved, Verdict
from clearhead.errors import OptionError
from clearhead.messages import Message, message
from clearhead.studio.learn import topic
from clearhead.studio.practice.asking import answered
from clearhead.studio.questions.question import Question
from clearhead.studio.web.context import Context, CurrentContext
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
RUN = ("code", "order")  # kinds graded by a run; the verdict is stored with the answer instead of running it again
LATEST = 20  # wrong answers of each question that are considered
LINE = 160  # characters of an answer that are shown beside the right one
SHOWN = 30  # mistakes on the page: first those not put right, the newest first
MODE = {"code": "build", "explain": "recall"}  # kind -> the mode that asks its questions, if not Practice


@dataclass
class Mistake:
    """A misconception behind wrong answers; or, if none is known, what was wrong with one question.

    Attributes:
        item: the question of the newest answer.
        belief: the misconception; "" if none is known.
        why: what is wrong, in one sentence, if no belief is known.
        against: the counterexample that was run, Markdown.
        yours, right: the answer and the right answer, if each fits a line or two.
        made: the answers, newest first; those of Try have no id.
        since: whether a later answer to the same question was right.
    """

    item: Item
    belief: str = ""
    why: str = ""
    against: str = ""
    yours: str = ""
    right: str = ""
    made: list[Attempt] = field(default_factory=list)
    since: bool = False

    @property
    def again(self) -> str:
        """The address that asks the question again."""
        return f"/items/{self.item.id}?mode={MODE.get(self.item.kind, 'practice')}"


@router.get("/topics/{pack_id}/{topic_id}/mistakes", response_class=HTMLResponse)
@linkable
def page(request: Request, context: CurrentContext, pack_id: str, topic_id: str) -> HTMLResponse:
    pack, this = topic.topic_at(context, pack_id, topic_id)
    items = context.library.items_of(pack, this)
    made = made_by(context, items)
    named = {program.misconception for item in items for program in item.programs if program.misconception}
    ordered = sorted(made.values(), key=lambda mistake: (mistake.since, -mistake.made[0].at.timestamp()))
    others = [belief for id, belief in pack.misconceptions.items() if id in named and id not in made]
    return topic.mode_page(
        request,
        context,
        "practice/mistakes.html",
        pack,
        this,
        "practice",
        made=ordered[:SHOWN],
        older=len(ordered[SHOWN:]),
        others=others,
        titles={item.id: item.title for item in items},
        now=context.now(),
    )


def made_by(context: Context, items: Iterable[Item]) -> dict[str, Mistake]:
    """Return the learner's mistakes, by misconception if one explains the answer, else by question."""
    mistakes: dict[str, Mistake] = {}
    kept, tried, by_item = context.store.kept_under("told:"), _tried(context), context.history.by_item
    for item in items:
        if item.kind == "card":  # forgetting a card is not a mistake
            continue
        attempts = by_item.get(item.id, ())
        same: dict[tuple[int, str], dict[str, Mistake]] = {}  # (seed, response): a repeated answer is listed once
        for attempt in islice((attempt for attempt in reversed(attempts) if not attempt.correct), LATEST):
            key = (attempt.seed, str(attempt.response))
            if item.kind in RUN:
                reasons = _from_kept(item, kept.get(attempt.id))
            elif key in same:
                reasons = same[key]
            else:
                reasons = same[key] = _mistakes_in(context, item, attempt)
            for name, mistake in reasons.items():
                known = mistakes.setdefault(name, mistake)
                known.made.append(attempt)
                known.since |= attempts[-1].correct
        if last := tried.get(item.id):
            for name, mistake in _mistakes_in(context, item, last).items():
                known = mistakes.setdefault(name, mistake)
                known.made.append(last)
                known.since |= last.correct or any(
                    attempt.correct and attempt.at > last.at for attempt in attempts[-1:]
                )
    for mistake in mistakes.values():
        mistake.made.sort(key=lambda attempt: attempt.at, reverse=True)
    return mistakes


def _mistakes_in(context: Context, item: Item, attempt: Attempt) -> dict[str, Mistake]:
    """Return what was wrong with this answer: misconception or question -> the mistake."""
    own = context.library.proved[item.id]
    proved = own if attempt.seed == own.receipt.seed else context.variants.ready(item, attempt.seed)
    if not proved:  # no proof with its numbers is at hand, and proving takes too long
        return {item.id: Mistake(item)}
    beliefs = [option for option in _wrong(proved, attempt) if option.misconception]
    if beliefs:
        return {
            str(option.misconception): Mistake(item, option.belief, against=option.counterexample) for option in beliefs
        }
    question = answered(context, attempt)
    if question is None:
        return {}
    try:
        verdict = question.verdict(attempt.response)
    except OptionError:  # the question was of another kind when it was answered
        return {item.id: Mistake(item)}
    if verdict.chosen and verdict.chosen.misconception:  # typed as that belief would have it
        return {verdict.chosen.misconception: Mistake(item, verdict.why, against=verdict.counterexample)}
    yours, right = _pair(question, attempt, verdict)
    return {item.id: Mistake(item, why=verdict.why, against=verdict.counterexample, yours=yours, right=right)}


def _wrong(proved: Proved, attempt: Attempt) -> list[Option]:
    """Return the wrong options among those chosen."""
    keys = attempt.response if isinstance(attempt.response, list) else [attempt.response]
    options = [proved.option(key) for key in keys if isinstance(key, str)]
    return [option for option in options if option and not option.correct]


def _pair(question: Question, attempt: Attempt, verdict: Verdict) -> tuple[str, str]:
    """Return the answer and the right answer: the line typed, or the first wrong step."""
    if question.form == "typed" and len(verdict.yours) <= LINE:
        return verdict.yours.strip(), verdict.right.strip()
    if question.form == "worked" and isinstance(attempt.response, dict) and isinstance(verdict.why, Message):
        step = str(verdict.why.values.get("step"))
        return str(attempt.response.get(step, "")), verdict.details.get(step, "")
    return "", ""


def remember(context: Context, attempt: Attempt, verdict: Verdict) -> None:
    """Store the verdict of a run on a wrong program or order, for the page of mistakes."""
    if verdict.correct or context.library.items[attempt.item_id].kind not in RUN:
        return
    chosen = verdict.chosen.misconception if verdict.chosen else None
    reason = {"misconception": chosen, "why": _to_json(verdict.why), "against": _to_json(verdict.counterexample)}
    context.store.keep(f"told:{attempt.id}", json.dumps(reason))


def remember_prediction(context: Context, item: Item, response: str, verdict: Verdict) -> None:
    """Store the newest wrong prediction of a program in the playground, and whether it was corrected there."""
    before = json.loads(context.store.kept(f"tried:{item.id}", "{}"))
    if verdict.correct:
        kept = before and {**before, "right": True}
    else:
        kept = {"said": response, "at": context.now().isoformat(), "rev": item.rev, "after": context.learner.set_aside}
    if kept != before:
        context.store.keep(f"tried:{item.id}", json.dumps(kept))


def _tried(context: Context) -> dict[str, Attempt]:
    """Return the newest wrong prediction of each program: item -> an unscheduled attempt, right if corrected since."""
    predictions = {}
    for id, text in context.store.kept_under("tried:").items():
        kept = json.loads(text)
        item = context.library.items.get(id)
        if item and item.rev == kept["rev"] and kept["after"] >= context.learner.set_aside:  # the newest start's
            at, seed = datetime.fromisoformat(kept["at"]), context.library.proved[id].receipt.seed
            predictions[id] = Attempt("", id, item.rev, at, "try", kept.get("right", False), kept["said"], seed=seed)
    return predictions


def _from_kept(item: Item, kept: str | None) -> dict[str, Mistake]:
    reason = json.loads(kept or "{}")
    why, against = _from_json(reason.get("why", "")), _from_json(reason.get("against", ""))
    if reason.get("misconception"):
        return {reason["misconception"]: Mistake(item, why, against=against)}
    return {item.id: Mistake(item, why=why, against="" if against == why else against)}


def _to_json(text: str) -> Any:
    """Return a text for JSON, with its pattern if it has one, so that it can be translated later."""
    return [text.pattern, text.values] if isinstance(text, Message) else text


def _from_json(kept: Any) -> str:
    return message(kept[0], **kept[1]) if isinstance(kept, list) else str(kept)

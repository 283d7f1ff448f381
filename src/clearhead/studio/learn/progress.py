"""Progress: mastery by concept, calibration of confidence, days of practice, the latest answers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.studio.learner import confidence
from clearhead.studio.text import formatting
from clearhead.studio.text.translation import many
from clearhead.studio.web.context import CurrentContext
from clearhead.studio.web.rendering import render
from clearhead.studio.web.route_marks import linkable

router = APIRouter()
WEEKS = 26
LATEST = 15


@dataclass(frozen=True)
class Day:
    """One square of the calendar: its place, the number of answers, and its shade."""

    day: date
    week: int
    count: int

    @property
    def step(self) -> int:
        """0 to 8 on the weight scale; doubling the answers adds two steps."""
        return min(8, 2 * self.count.bit_length())

    @property
    def label(self) -> str:
        """The tooltip. It is made here because a template takes much longer for half a year of them."""
        return many("%(day)s: %(count)s answer", "%(day)s: %(count)s answers", self.count, day=formatting.day(self.day))


@router.get("/progress", response_class=HTMLResponse)
@linkable
def progress(request: Request, context: CurrentContext) -> HTMLResponse:
    now, known, items = context.now(), context.progress, context.library.items
    levels = Counter(mastery.level for mastery in known.concepts.values())
    return render(
        request,
        "learn/progress.html",
        concepts=sorted(
            known.concepts.values(), key=lambda mastery: (not mastery.attempts, -mastery.value, mastery.concept)
        ),
        levels=levels,
        calibration=known.calibration,
        held=confidence.level_outcomes(known.calibration),
        titles={id: item.title or id for id, item in items.items()},
        days=calendar(context.history.days, now),
        weeks=WEEKS,
        answers=len(known.history),
        latest=[
            (attempt, items[attempt.item_id])
            for attempt in known.history[: -LATEST - 1 : -1]
            if attempt.item_id in items
        ],
        now=now,
    )


def calendar(counts: Mapping[date, int], now: datetime) -> list[Day]:
    """Return every day of the last weeks, Monday first, with its answers, in this machine's time zone."""
    today = now.astimezone().date()
    first = today - timedelta(days=today.weekday(), weeks=WEEKS - 1)
    return [
        Day(day, place // 7, counts.get(day, 0))
        for place in range((today - first).days + 1)
        if (day := first + timedelta(days=place))
    ]

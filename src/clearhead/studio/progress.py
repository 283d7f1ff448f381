"""Progress: what is known by concept, how well confidence matches, which days had practice, the latest answers."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from clearhead.course import Attempt
from clearhead.studio.desk import AtDesk
from clearhead.studio.pages import render

router = APIRouter()
WEEKS = 26
LATEST = 15


@dataclass(frozen=True)
class Day:
    """One square of the calendar: where it is, how many answers, and how dark that makes it."""

    day: date
    week: int
    count: int

    @property
    def step(self) -> int:
        """0 to 8 on the weight scale; doubling the answers adds two steps."""
        return min(8, 2 * self.count.bit_length())


@router.get("/progress", response_class=HTMLResponse)
def progress(request: Request, desk: AtDesk) -> HTMLResponse:
    now, known = desk.now(), desk.progress
    levels = Counter(one.level for one in known.concepts.values())
    return render(
        request,
        "progress.html",
        concepts=sorted(known.concepts.values(), key=lambda one: (not one.attempts, -one.value, one.concept)),
        levels=levels,
        calibration=known.calibration,
        days=calendar(known.history, now),
        weeks=WEEKS,
        answers=len(known.history),
        latest=[
            (one, desk.shelf.items[one.item_id]) for one in reversed(known.history) if one.item_id in desk.shelf.items
        ][:LATEST],
        now=now,
    )


def calendar(history: Iterable[Attempt], now: datetime) -> list[Day]:
    """Every day of the last weeks, Monday first, with its answers, in this machine's time zone."""
    counts = Counter(attempt.at.astimezone().date() for attempt in history)
    today = now.astimezone().date()
    first = today - timedelta(days=today.weekday(), weeks=WEEKS - 1)
    return [
        Day(day, place // 7, counts[day])
        for place in range((today - first).days + 1)
        if (day := first + timedelta(days=place))
    ]

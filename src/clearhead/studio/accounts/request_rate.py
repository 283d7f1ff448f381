"""Rate limit of requests per account: a token bucket for each learner."""

import asyncio
import math
import time
from collections.abc import Callable
from threading import Lock
from typing import Final

from fastapi import Request
from fastapi.responses import JSONResponse, Response

from clearhead.studio.text.translation import _
from clearhead.studio.web.rendering import render_without_database

RATE: Final = 20.0  # sustained requests per second of one learner
BURST: Final = 600  # requests at once: a page of the Lens asks for some tens of tiles, and learners open many pages
MOST: Final = 10_000  # buckets kept
ROUNDING: Final = 1e-6  # rounding error of a bucket after many additions, in requests
LONGEST: Final = 1.0  # longest delay of a refusal, in seconds, so that a loop of requests costs little


class TooManyRequests(Exception):
    """This learner has sent more requests than one person would.

    Args:
        seconds: time until the next request is answered.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __str__(self) -> str:
        return _("The studio is busy. Wait a moment, then load the page or send the form again.")


class RequestRate:
    """Token buckets by account.

    Args:
        rate: requests a second that fill a bucket again.
        burst: requests that a full bucket holds.
        clock: seconds that never go back.
    """

    def __init__(self, rate: float = RATE, burst: float = BURST, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._buckets: dict[int, tuple[float, float]] = {}  # account -> requests left, and when that was
        self._lock = Lock()

    def spend(self, account: int) -> None:
        """Take one request out of the bucket of this account.

        Raises:
            TooManyRequests: the bucket is empty.
        """
        with self._lock:
            now = self._clock()
            # Taken out and put last, so that the account that was idle for longest is dropped first.
            left, at = self._buckets.pop(account, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._rate)
            enough = left >= 1 - ROUNDING
            self._buckets[account] = (left - 1 if enough else left, now)
            if len(self._buckets) > MOST:
                del self._buckets[next(iter(self._buckets))]
        if not enough:
            raise TooManyRequests((1 - left) / self._rate)


async def to_slow_down(request: Request, problem: Exception) -> Response:
    """Answer with status 429 and Retry-After, late and without the database; what was typed stays in the browser."""
    seconds: float = problem.seconds  # type: ignore[attr-defined]
    await asyncio.sleep(min(seconds, LONGEST))
    headers = {"retry-after": str(math.ceil(seconds))}
    if request.headers.get("accept", "").startswith("application/json"):
        return JSONResponse({"error": str(problem)}, 429, headers)
    page = render_without_database(
        request,
        "web/error.html",
        status=429,
        number=429,
        heading=_("Too many requests"),
        detail=str(problem),
        again=request.method == "GET",
        kept="",
    )
    page.headers.update(headers)
    return page

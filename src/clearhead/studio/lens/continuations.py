"""The KV caches of texts that were written lately, so that "Go on" and another token run the model on the rest alone.

After 2,150 tokens of SmolLM2 the first new token comes after 0.2 s, not 2.3 (two cores of a Xeon).

They belong to one browser each: how soon a first token comes would tell another whether somebody has written the same
text. Their number and memory are bounded, and they are dropped after some minutes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock, Timer
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clearhead.capture import Loaded
    from clearhead.capture.models.continuation import Continuation

OF_ONE: Final = 2  # texts of one browser: an answer, and beside it the one without some heads
OF_ALL: Final = 8
MOST_BYTES: Final = 1 << 30  # of all together: 2,000 tokens of SmolLM2 take 150 MB with their record
SECONDS: Final = 600  # that a text is kept after it was last written on

Head = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Kept:
    browser: str
    continuation: "Continuation"
    nbytes: int
    since: float


class Continuations:
    """What was written lately, the oldest first.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, Lock()
        self._kept: list[_Kept] = []
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._kept)

    def take(
        self, browser: str, loaded: "Loaded", ids: Sequence[int], without: tuple[Head, ...]
    ) -> "Continuation | None":
        """Return the text of this browser that has most tokens in common with `ids`, and keep it no more."""
        with self._lock:
            self._drop_old()
            mine = [
                kept
                for kept in self._kept
                if kept.browser == browser
                and kept.continuation.loaded is loaded
                and kept.continuation.without == without
                and kept.continuation.usable(ids)
            ]
            if not browser or not mine:
                return None
            best = max(mine, key=lambda kept: kept.continuation.usable(ids))
            self._kept.remove(best)
            return best.continuation

    def put(self, browser: str, continuation: "Continuation", is_loaded: Callable[["Loaded"], bool]) -> None:
        """Keep a text; drop the oldest of the browser and of all where there are too many, or too large.

        Args:
            browser: whose it is; "" keeps nothing.
            continuation: where the text stopped.
            is_loaded: whether a model is still in use; texts of others are dropped, for they hold its memory.
        """
        with self._lock:
            self._kept = [kept for kept in self._kept if is_loaded(kept.continuation.loaded)]
            self._drop_old()
            if not browser:
                return
            self._kept.append(_Kept(browser, continuation, continuation.nbytes, self._clock()))
            mine = [kept for kept in self._kept if kept.browser == browser]
            for kept in mine[:-OF_ONE]:
                self._kept.remove(kept)
            while len(self._kept) > OF_ALL or sum(kept.nbytes for kept in self._kept) > MOST_BYTES:
                self._kept.pop(0)
            self._wake()

    def drop_old(self) -> None:
        """Drop what was kept for its time."""
        with self._lock:
            self._timer = None
            self._drop_old()
            self._wake()

    def _drop_old(self) -> None:
        now = self._clock()
        self._kept = [kept for kept in self._kept if now - kept.since < SECONDS]

    def _wake(self) -> None:
        """Have the oldest dropped when its time comes, also where nobody asks for anything."""
        if self._kept and self._timer is None:
            self._timer = Timer(max(self._kept[0].since + SECONDS - self._clock(), 0) + 1, self.drop_old)
            self._timer.daemon = True
            self._timer.start()


CONTINUATIONS = Continuations()

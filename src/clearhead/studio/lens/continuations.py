"""KV caches of recently written texts, so that "Go on" and another token run the model only on the new tokens.

After 2,150 tokens of SmolLM2, the first new token comes after 0.2 s instead of 2.3 s (two cores of a Xeon).

A cache belongs to one browser. Otherwise the time of a first token would tell another browser whether somebody has
written the same text. The number and memory of caches are bounded, and they are dropped after some minutes.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock, Timer
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from clearhead.capture import Loaded
    from clearhead.capture.models.continuation import Continuation

OF_ONE: Final = 2  # texts of one browser: an answer, and the one without some heads beside it
OF_ALL: Final = 8
MOST_BYTES: Final = 1 << 30  # of all texts together: 2,000 tokens of SmolLM2 take 150 MB with their record
SECONDS: Final = 600  # how long a text is kept after its last token

Head = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Kept:
    browser: str
    continuation: "Continuation"
    nbytes: int
    since: float


class Continuations:
    """Recently written texts, the oldest first.

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
        """Return and remove the text of this browser that has most tokens in common with `ids`."""
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
        """Keep a text. Drop the oldest of this browser or of all if they are too many or too large.

        Args:
            browser: the browser it belongs to; "" keeps nothing.
            continuation: the state in which the text stopped.
            is_loaded: whether a model is still in use. Texts of other models are dropped, because they hold memory.
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
        """Drop texts whose time is over."""
        with self._lock:
            self._timer = None
            self._drop_old()
            self._wake()

    def _drop_old(self) -> None:
        now = self._clock()
        self._kept = [kept for kept in self._kept if now - kept.since < SECONDS]

    def _wake(self) -> None:
        """Start a timer that drops the oldest text when its time is over, even without further requests."""
        if self._kept and self._timer is None:
            self._timer = Timer(max(self._kept[0].since + SECONDS - self._clock(), 0) + 1, self.drop_old)
            self._timer.daemon = True
            self._timer.start()


CONTINUATIONS = Continuations()

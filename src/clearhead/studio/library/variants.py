"""Variants: other numbers for a question that is asked again, proved in the background.

They keep a learner from remembering "it was b" instead of the reason.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from clearhead.course import Item, Pack, Proved, prove
from clearhead.errors import ClearheadError

SEEDS = 6  # sets of numbers for one item; enough that the first is forgotten when it comes back


class Variants:
    """Proofs of items at other seeds than their own, computed in the background."""

    def __init__(self) -> None:
        self._proved: dict[tuple[str, int], Proved] = {}
        self._asked: dict[tuple[str, int], Future[None]] = {}
        self._lock = Lock()
        self._prover = ThreadPoolExecutor(max_workers=1, thread_name_prefix="variants")

    def seed(self, item: Item, answers: int) -> int:
        """Return the seed for the next time, after this many answers."""
        return item.seed + answers % SEEDS if item.variants else item.seed

    def ready(self, item: Item, seed: int) -> Proved | None:
        """Return the proof at this seed, or None if it is not finished."""
        return self._proved.get((item.id, seed))

    def prepare(self, item: Item, pack: Pack, seed: int) -> Future[None]:
        """Prove the item at this seed in the background. If the proof fails, the item's own numbers stay in use."""
        key = (item.id, seed)
        with self._lock:
            if key not in self._asked:
                self._asked[key] = self._prover.submit(self._prove, item, pack, seed)
            return self._asked[key]

    def wait(self, item: Item, pack: Pack, seed: int) -> Proved | None:
        """Wait for the proof at this seed, to show an old answer with the numbers of its question."""
        self.prepare(item, pack, seed).result()
        return self.ready(item, seed)

    def close(self) -> None:
        """Start no more proofs."""
        self._prover.shutdown(wait=False, cancel_futures=True)

    def _prove(self, item: Item, pack: Pack, seed: int) -> None:
        try:
            self._proved[item.id, seed] = prove(item, pack, seed=seed)
        except ClearheadError:
            # `clearhead check` proves items at their own seed only; a seed whose proof fails is not shown.
            return

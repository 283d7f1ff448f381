"""The request context of a route: the learner's store and history, the library, the queues, the clock."""

import os
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from clearhead.course import Attempt, Item, Progress, Proved, Verdict
from clearhead.course.grading.recorded import Recorded, recorded
from clearhead.errors import StoreError
from clearhead.files import discard
from clearhead.messages import message
from clearhead.studio.learner.history import History, Learner, State
from clearhead.studio.learner.store import Store
from clearhead.studio.library.library import Library
from clearhead.studio.library.variants import Variants
from clearhead.studio.questions.draft import Drafts
from clearhead.studio.questions.question import Question
from clearhead.studio.web.locks import Locks
from clearhead.studio.web.security import Csrf
from clearhead.studio.web.settings import Settings
from clearhead.studio.web.work_queues import WorkQueue, needs_queue

T = TypeVar("T")

REMEMBERED = 100  # cached verdicts on programs
LENSES = 4  # Lens requests that run at once
WRITERS = 2  # writing requests of the Lens that run at once
LEARNERS = 300  # learners whose progress is held in memory
GUEST = -1  # a visitor who has not logged in: nothing is stored under this number
SETTING = "setting:"  # prefix of settings in the store
SETTINGS = {"theme": "system", "clock": "1", "language": "en", "keys": "on"}


def now_utc() -> datetime:
    """Return the current time, timezone-aware. Tests replace the clock of the context."""
    return datetime.now(UTC)


async def _nobody_left() -> bool:
    return False


@dataclass
class Context:
    """The state that a route needs: of the studio and, after `at` or `for_request`, of a learner and a request."""

    settings: Settings
    store: Store
    library: Library
    secret: str
    now: Callable[[], datetime] = now_utc
    who: str = ""  # the learner's name in a shared studio
    csrf: Csrf = field(init=False)
    drafts: Drafts = field(init=False)
    learner: Learner = field(init=False)
    variants: Variants = field(default_factory=Variants, init=False)
    queues: Mapping[str, WorkQueue] = field(init=False)
    _others: OrderedDict[int, tuple[Store, Learner]] = field(default_factory=OrderedDict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)
    left: Callable[[], Awaitable[bool]] = field(default=_nobody_left, init=False)  # whether the browser has hung up
    _remembers: bool = field(default=False, init=False)
    _settings: dict[str, str] | None = field(default=None, init=False)
    _seen: tuple[int, tuple[Progress, History]] | None = field(default=None, init=False)
    _at_start: tuple[int, State] | None = field(default=None, init=False)  # writes through the store, and its state
    _verdicts: OrderedDict[str, Verdict] = field(default_factory=OrderedDict, init=False)
    _recorded: OrderedDict[str, Recorded] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        self.csrf = Csrf(self.secret)
        self.drafts = Drafts(self.secret)
        self.learner = Learner(self.store, self.library.written)
        programs = self.settings.programs
        locks = Locks(self.settings.data / "locks") if self.settings.processes > 1 else None
        # One experiment at a time: a measured time means nothing while another one runs.
        at_once = {"programs": programs, "experiments": 1, "lens": LENSES, "writing": WRITERS}
        self.queues = {name: WorkQueue(name, count, locks) for name, count in at_once.items()}

    def close(self) -> None:
        """Start no more work, and close the database."""
        for queue in self.queues.values():
            queue.close()
        self.variants.close()
        self.store.close()

    def set_library(self, library: Library) -> None:
        """Use this library from now on: the same packs with more items proved."""
        self.library = library

    def proved(self, item: Item, seed: int) -> Proved:
        """Return the item's proof at this seed, or else at its own seed."""
        own = self.library.proved[item.id]
        if seed == own.receipt.seed or not item.variants:
            return own
        if not self.variants.ready(item, seed):
            needs_queue()
        return self.variants.wait(item, self.library.pack_of(item.id), seed) or own

    def next_seed(self, item: Item) -> int:
        """Return the seed with which to put this item now: other numbers each time, once they are proved."""
        seed = self.variants.seed(item, len(self.history.by_item.get(item.id, ())))
        return seed if self.variants.ready(item, seed) else self.library.proved[item.id].receipt.seed

    def prepare_next(self, item: Item) -> None:
        """Start proving other numbers for the next time this item is put."""
        if item.variants:
            seed = self.variants.seed(item, len(self.history.by_item.get(item.id, ())))
            self.variants.prepare(item, self.library.pack_of(item.id), seed)

    @property
    def progress(self) -> Progress:
        """Schedule and mastery as of the newest attempt."""
        return self._known()[0]

    @property
    def history(self) -> History:
        """The learner's answers, as of the newest attempt."""
        return self._known()[1]

    def attempt_now(self, attempt_id: str) -> tuple[Attempt | None, bool]:
        """Return the attempt with this id, or None; and whether a later attempt takes it back."""
        newest = next((attempt for attempt in reversed(self.history.attempts) if attempt.id == attempt_id), None)
        return (newest, False) if newest else self.store.attempt_now(attempt_id)  # the history has only what counts

    def at(
        self, learner: int, name: str = "", chosen: dict[str, str] | None = None, state: State | None = None
    ) -> "Context":
        """Return the context of one learner of a shared studio, for one request.

        Args:
            chosen: the learner's settings; a guest has none.
            state: the state of the learner's attempts; None: read it when needed.
        """
        mine = self.for_request()
        mine.who, mine._settings = name, chosen if learner != GUEST else {}
        mine.store, mine.learner = self._kept_of(learner)
        mine._at_start = state and (mine.store.writes, state)
        return mine

    def _kept_of(self, learner: int) -> tuple[Store, Learner]:
        """Return the cached state of a learner. The least recently active learner is dropped and read again later."""
        with self._lock:
            held = self._others.get(learner)
        if held is None:
            store = Store(self.store.database, learner)
            held = store, Learner(store, self.library.written)
        with self._lock:
            held = self._others.setdefault(learner, held)  # another request of the same learner may have been first
            self._others.move_to_end(learner)
            while len(self._others) > LEARNERS:
                self._others.popitem(last=False)
        return held

    @property
    def owner(self) -> str:
        """The owner of this learner's programs in the sandbox, which alternates between owners."""
        return f"learner {self.store.learner}"

    def for_request(self) -> "Context":
        """Return the context of one request, which reads new attempts once, and again after each of its own writes."""
        mine = copy(self)
        mine._remembers, mine._seen, mine._settings = True, None, None
        return mine

    def _known(self) -> tuple[Progress, History]:
        if not self._remembers or self._seen is None or self._seen[0] != self.store.writes:
            writes = self.store.writes
            state = self._at_start[1] if self._at_start and self._at_start[0] == writes else None
            self._seen = (writes, self.learner.known(state))
        return self._seen[1]

    def verdict(self, question: Question, response: object) -> Verdict:
        """Grade a response. The verdict on a program is cached, so that it does not run again."""
        if question.form not in ("code", "order"):
            return question.verdict(response, self.owner)
        key = f"{question.draft.id} {response}"
        return _cached(self._verdicts, key, lambda: question.verdict(response, self.owner))

    def recorded(self, question: Question, program: str) -> Recorded:
        """Return what a program did in its tests; cached like a verdict."""
        item, proved, preload = question.item, question.proved, question.pack.preload
        key = f"{question.draft.id} {program}"
        return _cached(self._recorded, key, lambda: recorded(item, proved, program, preload, self.owner))

    def setting(self, name: str) -> str:
        """Return a setting of the learner, or its default."""
        if not self._remembers or self._settings is None:
            self._settings = self.store.kept_under(SETTING)
        return self._settings.get(name, SETTINGS[name])


def _cached(cache: OrderedDict[str, T], key: str, run: Callable[[], T]) -> T:
    """Return the value under this key; if there is none, run programs for it in a queue, and drop the oldest value."""
    if key not in cache:
        needs_queue()
        cache[key] = run()
        while len(cache) > REMEMBERED:
            cache.popitem(last=False)
    return cache[key]


def context_of(request: Request) -> Context:
    """Return the context of this request."""
    if not hasattr(request.state, "context"):
        root: Context = request.app.state.context
        request.state.context = root.at(GUEST) if root.settings.shared else root.for_request()
    context: Context = request.state.context
    return context


async def _current_context(request: Request) -> Context:
    """The context as a dependency. It is a coroutine, because FastAPI runs a plain function in another thread."""
    context = context_of(request)
    context.left = request.is_disconnected
    return context


CurrentContext = Annotated[Context, Depends(_current_context)]


def secret_in(folder: Path) -> str:
    """Return this studio's secret, created at the first start, so that open forms stay valid after a restart."""
    file = folder / "secret"
    if not file.exists():
        whole = folder / f"secret.{secrets.token_hex(4)}"
        try:
            whole.touch(mode=0o600)
            whole.write_text(secrets.token_urlsafe(32))
            with suppress(FileExistsError):  # another studio with the same folder was faster
                os.link(whole, file)
        finally:
            discard(whole)
    try:
        secret = file.read_text(encoding="ascii").strip()
    except ValueError:
        secret = ""
    if not secret:
        raise StoreError(
            message(
                "%(file)s is damaged. Remove it: the next start makes another, and everybody logs in again.", file=file
            )
        )
    return secret

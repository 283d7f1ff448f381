"""The library: the packs that a studio teaches, and the proof of each item."""

import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from clearhead.course import Item, Outcome, Pack, Proved, Topic, load, prove_pack, shipped
from clearhead.course.pack.page_programs import page_programs
from clearhead.errors import PackError
from clearhead.files import make_private
from clearhead.studio.library.page_outputs import with_outputs


@dataclass(frozen=True)
class Library:
    """Packs and proofs. An item whose proof failed appears on no page; `failed` says why.

    Attributes:
        coming: the number of items still to be proved.
    """

    packs: tuple[Pack, ...]
    proved: Mapping[str, Proved]
    failed: tuple[Outcome, ...] = ()
    pages: Mapping[tuple[str, str, str], str] = field(default_factory=dict)
    coming: int = 0

    def plus(self, outcome: Outcome) -> "Library":
        """Return the library with the outcome of one more proof, successful or not."""
        if outcome.proved is None:
            return replace(self, failed=(*self.failed, outcome), coming=self.coming - 1)
        return replace(self, proved={**self.proved, outcome.item_id: outcome.proved}, coming=self.coming - 1)

    def page(self, pack: Pack, topic: Topic, mode: str) -> str | None:
        """Return a mode's Markdown, with the outputs of its programs; None if the topic has no such page."""
        page = topic.pages.get(mode)
        return self.pages.get((pack.id, topic.id, mode), page.text) if page else None

    def awaits_outputs(self, pack: Pack, topic: Topic, mode: str) -> bool:
        """Return whether a mode's page has programs whose outputs are still being computed."""
        page = topic.pages.get(mode)
        return bool(self.coming and page and (pack.id, topic.id, mode) not in self.pages and page_programs(page))

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """Every proved item of every pack, in course order."""
        return {id: item for pack in self.packs for id, item in pack.items.items() if id in self.proved}

    @cached_property
    def written(self) -> Mapping[str, Item]:
        """Every item of every pack, proved or not; progress is kept for all of them."""
        return {id: item for pack in self.packs for id, item in pack.items.items()}

    @cached_property
    def _pack_of(self) -> Mapping[str, Pack]:
        return {id: pack for pack in self.packs for id in pack.items}

    def pack_of(self, item_id: str) -> Pack:
        """Return the pack of an item. Raises KeyError."""
        return self._pack_of[item_id]

    def topic_of(self, item: Item) -> Topic:
        """Return the topic of an item."""
        return self.pack_of(item.id).topic(item.topic)

    def find(self, pack_id: str, topic_id: str) -> tuple[Pack, Topic] | None:
        """Return the topic at this address, or None."""
        for pack in self.packs:
            for topic in pack.topics:
                if (pack.id, topic.id) == (pack_id, topic_id):
                    return pack, topic
        return None

    def topics(self) -> Iterable[tuple[Pack, Topic]]:
        """Every topic, in course order."""
        return ((pack, topic) for pack in self.packs for topic in pack.topics)

    def items_of(self, pack: Pack, topic: Topic) -> list[Item]:
        """Return the proved items of a topic, in order."""
        return [item for item in pack.items_of(topic.id) if item.id in self.proved]


def fill(paths: Iterable[Path] | None, cache: Path) -> Library:
    """Load the packs and prove all of them. Arguments and errors: see `unproved` and `prove`."""
    return prove(unproved(paths), cache)


def unproved(paths: Iterable[Path] | None) -> Library:
    """Load the packs (None: the shipped ones) without running any of their programs.

    Raises:
        PackError: a pack that cannot be read, or two packs with an item of the same id.
    """
    packs = tuple(load(path) for path in (shipped() if paths is None else paths))
    return Library(packs, {}, coming=_count(packs))


def prove(library: Library, cache: Path, publish: Callable[[Library], None] | None = None, jobs: int = 2) -> Library:
    """Run the pages' programs and prove the items, topic by topic.

    Args:
        cache: a folder with the proofs of earlier starts, which are not run again.
        publish: called with the library after each proof, so that learners can begin while the rest is proved. An
            exception that it raises ends the proving.

    Raises:
        SandboxError: this machine cannot confine programs.
    """

    def grow(fuller: Library) -> None:
        nonlocal library
        library = fuller
        if publish:
            publish(library)

    for pack, topic in library.topics():
        with _alone(cache):
            pages = {(pack.id, topic.id, mode): with_outputs(page, pack, cache) for mode, page in topic.pages.items()}
            grow(replace(library, pages={**library.pages, **pages}))
            prove_pack(
                pack, cache=cache, jobs=jobs, topic=topic.id, progress=lambda outcome, *_: grow(library.plus(outcome))
            )
    return library


@contextmanager
def _alone(cache: Path) -> Iterator[None]:
    """Lock this cache for one process at a time; the others then read its proofs instead of running them again."""
    make_private(cache)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _count(packs: Iterable[Pack]) -> int:
    """Return how many items there are. Raises PackError if two packs use the same id."""
    seen: dict[str, str] = {}
    for pack in packs:
        for id in pack.items:
            if id in seen:
                raise PackError(f"item {id!r} is in pack {seen[id]!r} too; an id is used once, so rename one of them")
            seen[id] = pack.id
    return len(seen)

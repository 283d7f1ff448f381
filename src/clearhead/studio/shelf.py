"""The packs this studio teaches, each item with what its proof computed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from clearhead.course import Item, Outcome, Pack, Proved, Topic, load, prove_pack, shipped
from clearhead.errors import PackError
from clearhead.studio.manuscript import with_outputs


@dataclass(frozen=True)
class Shelf:
    """Packs and proofs. An item whose proof failed is on no page; `failed` says why."""

    packs: tuple[Pack, ...]
    proved: Mapping[str, Proved]
    failed: tuple[Outcome, ...] = ()
    pages: Mapping[tuple[str, str, str], str] = field(default_factory=dict)

    def page(self, pack: Pack, topic: Topic, mode: str) -> str | None:
        """A mode's Markdown, with the outputs of its programs; None where the topic has no such page."""
        page = topic.pages.get(mode)
        return self.pages.get((pack.id, topic.id, mode), page.text) if page else None

    @cached_property
    def items(self) -> Mapping[str, Item]:
        """Every proved item of every pack, in course order."""
        return {id: item for pack in self.packs for id, item in pack.items.items() if id in self.proved}

    @cached_property
    def _pack_of(self) -> Mapping[str, Pack]:
        return {id: pack for pack in self.packs for id in pack.items}

    def pack_of(self, item_id: str) -> Pack:
        """The pack an item is in. Raises KeyError."""
        return self._pack_of[item_id]

    def topic_of(self, item: Item) -> Topic:
        """The topic an item is in."""
        return self.pack_of(item.id).topic(item.topic)

    def find(self, pack_id: str, topic_id: str) -> tuple[Pack, Topic] | None:
        """The topic at this address, or None."""
        for pack in self.packs:
            for topic in pack.topics:
                if (pack.id, topic.id) == (pack_id, topic_id):
                    return pack, topic
        return None

    def topics(self) -> Iterable[tuple[Pack, Topic]]:
        """Every topic, in course order."""
        return ((pack, topic) for pack in self.packs for topic in pack.topics)

    def items_of(self, pack: Pack, topic: Topic) -> list[Item]:
        """The proved items of a topic, in order."""
        return [item for item in pack.items_of(topic.id) if item.id in self.proved]


def fill(
    paths: Iterable[Path] | None, cache: Path, progress: Callable[[int, int], None] | None = None, jobs: int = 2
) -> Shelf:
    """Load and prove the packs; what `cache` holds from an earlier start is not proved again.

    Args:
        paths: pack folders; None is the shipped ones.
        progress: called with (items done, items in all).

    Raises:
        PackError: a pack that cannot be read, or two packs with an item of the same id.
    """
    packs = tuple(load(path) for path in (shipped() if paths is None else paths))
    seen: dict[str, str] = {}
    for pack in packs:
        for id in pack.items:
            if id in seen:
                raise PackError(f"item {id!r} is in pack {seen[id]!r} too; an id is used once, so rename one of them")
            seen[id] = pack.id
    shelf: dict[str, Proved] = {}
    failed: list[Outcome] = []
    for pack in packs:
        before = len(shelf) + len(failed)

        def tell(outcome: Outcome, done: int, of: int, before: int = before) -> None:
            if progress:
                progress(before + done, len(seen))

        for outcome in prove_pack(pack, cache=cache, jobs=jobs, progress=tell):
            if outcome.proved is None:
                failed.append(outcome)
            else:
                shelf[outcome.item_id] = outcome.proved
    pages = {
        (pack.id, topic.id, mode): with_outputs(page, pack, cache)
        for pack in packs
        for topic in pack.topics
        for mode, page in topic.pages.items()
    }
    return Shelf(packs, shelf, tuple(failed), pages)

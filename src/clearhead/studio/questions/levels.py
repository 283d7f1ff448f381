"""Levels: the learner may practise only easy, medium or hard questions, or one concept."""

from collections.abc import Iterable
from dataclasses import dataclass

from clearhead.course import Item, Progress
from clearhead.studio.learner import review_queue
from clearhead.studio.text.translation import mark

LEVELS = {"easy": mark("Easy"), "medium": mark("Medium"), "hard": mark("Hard")}
ALL = mark("All")


@dataclass(frozen=True)
class Level:
    """One level of a topic's questions, and how far the learner is with it. `id` is "" for all levels."""

    id: str
    name: str
    known: int
    count: int


def level_of(item: Item) -> str:
    """Return the level of an item, from the author's difficulty 1 to 5."""
    return "easy" if item.difficulty <= 1 else "medium" if item.difficulty == 2 else "hard"


def items_at(focus: str, items: Iterable[Item]) -> list[Item]:
    """Return the items of this level or on this concept; all of them for "" and for an unknown name."""
    items = list(items)
    if focus in LEVELS:
        return [item for item in items if level_of(item) == focus] or items
    return [item for item in items if focus in item.concepts] or items


def level_row(items: list[Item], progress: Progress) -> list[Level]:
    """Return "all", then each level that has items; nothing if only one level has."""
    levels = []
    for id, name in {"": ALL, **LEVELS}.items():
        at_level = [item for item in items if not id or level_of(item) == id]
        if at_level:
            known = sum(review_queue.last_was_right(progress.items[item.id]) for item in at_level)
            levels.append(Level(id, name, known, len(at_level)))
    return levels if len(levels) > 2 else []

"""Estimate how long a topic takes: its pages at reading speed, plus the time for each kind of item."""

from collections.abc import Iterable

from clearhead.course.pack.blocks import fences
from clearhead.course.pack.item import Item, Page, Topic

WORDS_A_MINUTE = 200
FIGURE_MINUTES = 0.4  # to look at a figure, and to move its slider or point at its words
WALK_MINUTES = 2.0  # for Walk's built-in figure, where the topic has no page walk.md
CARD_MINUTES = 0.5  # to recall a card and turn it over
_READ = ("read", "walk", "why")


def item_minutes(item: Item) -> float:
    """Return the minutes for a first try, feedback included: half of the item's clock if easy, nine tenths if hard.

    Reading takes half a minute (choice, predict) to one minute (code) of that.
    """
    return CARD_MINUTES if item.kind == "card" else item.time_limit / 60 * (0.4 + 0.1 * item.difficulty)


def page_minutes(page: Page) -> float:
    """Return the minutes to read a page and try its figures. A program counts as its words."""
    figures = sum(
        info == "lens" or info.split()[:2] == ["python", "figure"] for info, _, _ in fences(page.text, page.file)
    )
    return len(page.text.split()) / WORDS_A_MINUTE + FIGURE_MINUTES * figures


def topic_minutes(topic: Topic, items: Iterable[Item]) -> int:
    """Return the whole minutes to read a topic's pages and do each of its items once."""
    reading = sum(page_minutes(page) for mode, page in topic.pages.items() if mode in _READ)
    walk = WALK_MINUTES if topic.walk and "walk" not in topic.pages else 0.0
    return max(1, round(reading + walk + sum(map(item_minutes, items))))

"""How long a topic takes: its pages at a reader's pace, and its items at what each kind takes."""

from collections.abc import Iterable

from clearhead.course.pack.blocks import fences
from clearhead.course.pack.item import Item, Page, Topic

WORDS_A_MINUTE = 200
FIGURE_MINUTES = 0.4  # to look at a figure, and to move its slider or point at its words
WALK_MINUTES = 2.0  # at a figure of Walk that is not an author's page
CARD_MINUTES = 0.5  # to recall one and turn it
_READ = ("read", "walk", "why")


def item_minutes(item: Item) -> float:
    """Minutes for a first try at an item, its feedback read: half of its clock if it is easy, nine tenths if hard.

    Of that, reading takes from half a minute (choice, predict) to one (code).
    """
    return CARD_MINUTES if item.kind == "card" else item.time_limit / 60 * (0.4 + 0.1 * item.difficulty)


def page_minutes(page: Page) -> float:
    """Minutes to read a page and try its figures; a program counts as the words it has."""
    figures = sum(
        info == "lens" or info.split()[:2] == ["python", "figure"] for info, _, _ in fences(page.text, page.file)
    )
    return len(page.text.split()) / WORDS_A_MINUTE + FIGURE_MINUTES * figures


def topic_minutes(topic: Topic, items: Iterable[Item]) -> int:
    """Whole minutes to read a topic's pages and do each of its items once."""
    reading = sum(page_minutes(page) for mode, page in topic.pages.items() if mode in _READ)
    walk = WALK_MINUTES if topic.walk and "walk" not in topic.pages else 0.0
    return max(1, round(reading + walk + sum(map(item_minutes, items))))

"""How long a topic takes: its pages at a reader's pace, and its items at what each kind takes."""

from collections.abc import Iterable, Mapping

from clearhead.course.pack.blocks import fences
from clearhead.course.pack.item import Item, Page, Topic

WORDS_A_MINUTE = 200
FIGURE_MINUTES = 0.4  # to look at a figure, and to move its slider or point at its words
# Minutes for a first try at an item, its feedback read.
ITEM_MINUTES: Mapping[str, float] = {
    "card": 0.5, "choice": 0.75, "predict": 1, "debug": 1.5, "tune": 1, "worked": 2, "explain": 3, "code": 6,
    "order": 1, "match": 1,
}  # fmt: skip
_READ = ("read", "walk", "why")


def page_minutes(page: Page) -> float:
    """Minutes to read a page and try its figures; a program counts as the words it has."""
    figures = sum(
        info == "lens" or info.split()[:2] == ["python", "figure"] for info, _, _ in fences(page.text, page.file)
    )
    return len(page.text.split()) / WORDS_A_MINUTE + FIGURE_MINUTES * figures


def topic_minutes(topic: Topic, items: Iterable[Item]) -> int:
    """Whole minutes to read a topic's pages and do each of its items once."""
    reading = sum(page_minutes(page) for mode, page in topic.pages.items() if mode in _READ)
    return max(1, round(reading + sum(ITEM_MINUTES[item.kind] for item in items)))

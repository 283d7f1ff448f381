"""Choose the questions that tell most about what a learner knows. Pure functions without storage."""

from collections import Counter
from collections.abc import Iterable, Mapping

from clearhead.course import Item, Pack, Progress, Proved
from clearhead.course.progress.elo import expected
from clearhead.studio.questions.assessment import TEST


def discrimination(item: Item, proved: Proved, progress: Progress) -> float:
    """Return how well an answer distinguishes learners who know from those who do not.

    An uncertain outcome tells more than a sure one (Fisher information p(1 - p), with p from the Elo ratings). An item
    whose wrong answers each reveal a different misconception tells more than one whose answer is only right or wrong.
    """
    p = expected(progress.ability, progress.items[item.id].elo)
    named = {option.misconception for option in proved.options if option.misconception}
    return 4 * p * (1 - p) * (1 + len(named) / 4)


def of_an_interview(
    packs: Iterable[Pack], proved: Mapping[str, Proved], progress: Progress, count: int = 12
) -> list[Item]:
    """Return the most telling question of each subject that a pack's `interview` names, in its order.

    If no pack names subjects, return the most telling questions of all.
    """
    packs = list(packs)
    subjects = [[pack.items[name] for name in names if name in proved] for pack in packs for names in pack.interview]
    if not any(subjects):
        items = [item for pack in packs for item in pack.items.values() if item.id in proved]
        return most_telling(items, proved, progress, count)
    best = [
        max(subject, key=lambda item: discrimination(item, proved[item.id], progress))
        for subject in subjects
        if subject
    ]
    return best[:count]


def most_telling(
    items: Iterable[Item], proved: Mapping[str, Proved], progress: Progress, count: int = 12
) -> list[Item]:
    """Return the questions that together cover most of the course, the easy ones first.

    They are chosen greedily. A concept's weight is the number of its items in the course, divided by 2, 3 … once it was
    asked. The gain of an item is the weight of its concepts times its discrimination.
    """
    left = [item for item in items if item.kind in TEST]
    weight = Counter(concept for item in left for concept in item.concepts)
    tells = {item.id: discrimination(item, proved[item.id], progress) for item in left}
    asked: Counter[str] = Counter()
    chosen: list[Item] = []

    def gain(item: Item) -> float:
        return tells[item.id] * sum(weight[concept] / (1 + asked[concept]) for concept in item.concepts)

    while left and len(chosen) < count:
        best = max(left, key=gain)  # the first of equals, in course order
        chosen.append(best)
        left.remove(best)
        asked.update(best.concepts)
    return sorted(chosen, key=lambda item: item.difficulty)

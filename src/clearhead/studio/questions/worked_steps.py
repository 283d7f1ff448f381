"""How much of a worked example is left to the learner: a step more with each success, a step back after a slip."""

from collections.abc import Iterable, Sequence

from clearhead.course import Attempt, Mastery


def steps_to_ask(attempts: Sequence[Attempt], concepts: Iterable[Mastery] = ()) -> int:
    """How many of the last steps to ask for now; the first ones are shown with their results.

    Args:
        attempts: at this example, oldest first. A success with hints adds no step.
        concepts: what the example exercises. Who knows them all begins further on: a shown step would only bore.
    """
    levels = [mastery.level for mastery in concepts]
    known = bool(levels) and all(level in ("good", "strong") for level in levels)
    steps = first = 2 if known else 1
    for attempt in attempts:
        if not attempt.correct:
            steps = max(1, steps - 1)
        elif not attempt.hints:
            steps = max(first, steps + 1)
    return steps

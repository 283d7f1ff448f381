"""Decide how many steps of a worked example a learner works out: one more after a success, one fewer after an error."""

from collections.abc import Iterable, Sequence

from clearhead.course import Attempt, Mastery


def steps_to_ask(attempts: Sequence[Attempt], concepts: Iterable[Mastery] = ()) -> int:
    """Return how many of the last steps to ask for; the first ones are shown with their results.

    Args:
        attempts: the attempts at this example, oldest first. A success with hints adds no step.
        concepts: the example's concepts. A learner who knows them all starts with more steps.
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

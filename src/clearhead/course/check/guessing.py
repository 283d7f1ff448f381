"""Find cues that give the right option away: length, place, absolute words, terms that it alone has or lacks.

Each cue is measured over a whole pack and gives a warning if it works more often than chance. None makes an item wrong.
"""

import re
from collections.abc import Sequence

from clearhead.course.proofs.proved import Option, Outcome, Proved

FEWEST = 8  # with fewer questions, a habit cannot be told from chance
ABSOLUTE = frozenset({"always", "never", "all", "every", "only", "none", "nothing", "no", "any", "exactly"})
_WORD = re.compile(r"[a-z]{2,}")


def guessable(outcomes: Sequence[Outcome]) -> list[str]:
    """Return a sentence for each cue that gives the right option away too often."""
    asked = [
        outcome.proved
        for outcome in outcomes
        if outcome.proved and sum(option.correct for option in outcome.proved.options) == 1
    ]
    asked = [item for item in asked if len(item.options) >= 3]
    if len(asked) < FEWEST:
        return []
    fair = sum(1 / len(item.options) for item in asked)
    warnings = []
    for name, extreme in (("longest", max), ("shortest", min)):
        count = sum(extreme(item.options, key=_length).correct for item in asked)
        if count > 2 * fair:
            warnings.append(
                f"the right option is the {name} in {count} of {len(asked)} items; make them alike in length"
            )
    places = [next(option.key for option in item.options if option.correct) for item in asked]
    most = max(sorted(set(places)), key=places.count)
    if places.count(most) > 2 * fair:
        warnings.append(f"the right option is ({most}) in {places.count(most)} of {len(asked)} items")
    return warnings + _absolute(asked) + _alone(asked)


def _length(option: Option) -> int:
    return len(option.text)


def _absolute(asked: Sequence[Proved]) -> list[str]:
    """Absolute words ("always", "only") that stand mostly in wrong options."""
    right = [bool(ABSOLUTE & _words(o)) for item in asked for o in item.options if o.correct]
    wrong = [bool(ABSOLUTE & _words(o)) for item in asked for o in item.options if not o.correct]
    shares = [sum(group) / len(group) for group in (right, wrong)]
    if sum(wrong) < FEWEST or shares[1] <= 2 * shares[0]:
        return []
    return [
        f"absolute words (always, only, all …) are in {shares[1]:.0%} of the wrong options and in {shares[0]:.0%} of "
        "the right ones; word the wrong ones less absolutely"
    ]


def _alone(asked: Sequence[Proved]) -> list[str]:
    """Terms that one option alone has, or alone lacks, where that option is the right one too often."""
    warnings = []
    for name, odd in (("alone has", _alone_has), ("alone lacks", _alone_lacks)):
        exceptions = [(item, place) for item in asked if (place := odd(item)) is not None]
        if len(exceptions) < FEWEST:
            continue
        count = sum(item.options[place].correct for item, place in exceptions)
        if count > 2 * sum(1 / len(item.options) for item, _ in exceptions):
            warnings.append(
                f"the option that {name} a term of the question is right in {count} of {len(exceptions)} items"
            )
    return warnings


def _alone_has(item: Proved) -> int | None:
    """The option that is the only one to take up words of the stem."""
    stem = set(_WORD.findall(item.stem.lower())) - _SMALL
    having = [place for place, option in enumerate(item.options) if stem & _words(option)]
    return having[0] if len(having) == 1 else None


def _alone_lacks(item: Proved) -> int | None:
    """The option that lacks a word which all the others have."""
    words = [_words(option) - _SMALL for option in item.options]
    for place in range(len(words)):
        others = [group for at, group in enumerate(words) if at != place]
        if set.intersection(*others) - words[place]:
            return place
    return None


def _words(option: Option) -> set[str]:
    return set(_WORD.findall(option.text.lower()))


_SMALL = frozenset(
    {"the", "an", "of", "in", "on", "to", "is", "it", "its", "and", "or", "for", "with", "from", "by", "as", "at", "be",
     "are", "that", "this", "each", "which", "what", "text", "one", "two"}
)  # fmt: skip

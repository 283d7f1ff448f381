"""Ways to find the right option without knowing: length, place, absolute words, terms it alone has or lacks.

Each is measured over a whole pack and said where it is more than chance; none makes an item wrong.
"""

import re
from collections.abc import Sequence

from clearhead.course.proofs.proved import Option, Outcome, Proved

FEWEST = 8  # questions from which habit can be told from chance
ABSOLUTE = frozenset({"always", "never", "all", "every", "only", "none", "nothing", "no", "any", "exactly"})
_WORD = re.compile(r"[a-z]{2,}")


def guessable(outcomes: Sequence[Outcome]) -> list[str]:
    """Return what gives the right option away too often, one sentence each."""
    asked = [one.proved for one in outcomes if one.proved and sum(option.correct for option in one.proved.options) == 1]
    asked = [one for one in asked if len(one.options) >= 3]
    if len(asked) < FEWEST:
        return []
    fair = sum(1 / len(one.options) for one in asked)
    said = []
    for name, pick in (("longest", max), ("shortest", min)):
        count = sum(pick(one.options, key=_length).correct for one in asked)
        if count > 2 * fair:
            said.append(f"the right option is the {name} in {count} of {len(asked)} items; make them alike in length")
    places = [next(option.key for option in one.options if option.correct) for one in asked]
    most = max(sorted(set(places)), key=places.count)
    if places.count(most) > 2 * fair:
        said.append(f"the right option is ({most}) in {places.count(most)} of {len(asked)} items")
    return said + _absolute(asked) + _alone(asked)


def _length(option: Option) -> int:
    return len(option.text)


def _absolute(asked: Sequence[Proved]) -> list[str]:
    """Absolute words ("always", "only") that stand mostly in wrong options."""
    right = [bool(ABSOLUTE & _words(o)) for one in asked for o in one.options if o.correct]
    wrong = [bool(ABSOLUTE & _words(o)) for one in asked for o in one.options if not o.correct]
    shares = [sum(some) / len(some) for some in (right, wrong)]
    if sum(wrong) < FEWEST or shares[1] <= 2 * shares[0]:
        return []
    return [
        f"absolute words (always, only, all …) stand in {shares[1]:.0%} of the wrong options and in {shares[0]:.0%} of "
        "the right ones; say the wrong ones less flatly"
    ]


def _alone(asked: Sequence[Proved]) -> list[str]:
    """Terms that one option alone has, or alone lacks, where that option is the right one too often."""
    said = []
    for name, odd in (("alone has", _alone_has), ("alone lacks", _alone_lacks)):
        found = [(one, place) for one in asked if (place := odd(one)) is not None]
        if len(found) < FEWEST:
            continue
        count = sum(one.options[place].correct for one, place in found)
        if count > 2 * sum(1 / len(one.options) for one, _ in found):
            said.append(f"the option that {name} a term of the question is right in {count} of {len(found)} items")
    return said


def _alone_has(one: Proved) -> int | None:
    """The option that is the only one to take up words of the stem."""
    stem = set(_WORD.findall(one.stem.lower())) - _SMALL
    having = [place for place, option in enumerate(one.options) if stem & _words(option)]
    return having[0] if len(having) == 1 else None


def _alone_lacks(one: Proved) -> int | None:
    """The option that lacks a word which all the others have."""
    words = [_words(option) - _SMALL for option in one.options]
    for place in range(len(words)):
        others = [some for at, some in enumerate(words) if at != place]
        if set.intersection(*others) - words[place]:
            return place
    return None


def _words(option: Option) -> set[str]:
    return set(_WORD.findall(option.text.lower()))


_SMALL = frozenset(
    {"the", "an", "of", "in", "on", "to", "is", "it", "its", "and", "or", "for", "with", "from", "by", "as", "at", "be",
     "are", "that", "this", "each", "which", "what", "text", "one", "two"}
)  # fmt: skip

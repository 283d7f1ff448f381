"""A question as the learner sees it, and the attempt that results from an answer.

Options, steps and pairs are shown with letters, in the order of the draft; the course uses fixed keys. Only this file
and `responses.py` convert between the two, so that no letter or place gives the answer away.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import ascii_lowercase

from clearhead.course import Attempt, Item, Option, Pack, Proved, Step, Verdict, grade
from clearhead.studio.questions.draft import Draft, shuffled

# Kind -> the form of its answer, which names its templates in practice/answer/ and practice/feedback/.
FORMS: Mapping[str, str] = {
    "card": "card",
    "choice": "options",
    "predict": "options",
    "debug": "options",
    "tune": "options",
    "worked": "worked",
    "explain": "explain",
    "code": "code",
    "order": "order",
    "match": "match",
}
ASKED = tuple(FORMS)  # the kinds the studio can put to a learner
LONGEST_TYPED = 48  # characters of the longest output that a learner is asked to type
CLASS = "class MultiHeadAttention("  # what a program must define to be run in a real model
HINTS = {"test": 0, "challenge": 1}  # mode -> number of hints; other modes give all
CHANCE = 3  # two steps may share a result of up to this many characters by chance


def can_type(proved: Proved) -> bool:
    """Return whether the answer is short enough to be typed without options: one line of output."""
    return (
        proved.kind == "predict"
        and 0 < len(proved.answer.strip()) <= LONGEST_TYPED
        and "\n" not in proved.answer.strip()
    )


def ends_in_class(item: Item) -> bool:
    """Whether this item ends in a class that can be run in a layer of a real model."""
    solution = item.first("solution")
    return item.kind == "code" and solution is not None and CLASS in solution.source


@dataclass(frozen=True)
class Lettered:
    """An option and the letter it is shown under."""

    letter: str
    option: Option


@dataclass(frozen=True)
class LetteredStep:
    """A step to put in order and the letter it is shown under."""

    letter: str
    step: Step


def answers(shown: str, asked: str) -> bool:
    """Return whether a shown result equals the requested one; for a short one that may be chance.

    >>> answers("[0.2, 0.8]", "[0.2, 0.8]"), answers("4", "4")
    (True, False)
    """
    return shown.strip() == asked.strip() and len(asked.strip()) > CHANCE


@dataclass(frozen=True)
class Question:
    """An item as it is put to the learner."""

    draft: Draft
    item: Item
    proved: Proved
    pack: Pack

    @property
    def form(self) -> str:
        """How it is answered: one of FORMS' values, or "typed"."""
        return "typed" if self.draft.typed and can_type(self.proved) else FORMS[self.item.kind]

    @property
    def hints(self) -> Sequence[str]:
        """The hints this mode gives, in order."""
        return self.proved.hints[: HINTS.get(self.draft.mode)]

    @property
    def seen_hints(self) -> Sequence[str]:
        """The hints that have been shown."""
        return self.hints[: self.draft.hints]

    @property
    def options(self) -> list[Lettered]:
        """The options, in the order of this draft."""
        order = shuffled(self.proved.options, self.draft.id)
        return [Lettered(letter, option) for letter, option in zip(ascii_lowercase, order, strict=False)]

    @property
    def several(self) -> bool:
        """Whether more than one option is right."""
        return self.item.right > 1

    @property
    def loose_steps(self) -> list[LetteredStep]:
        """The steps to put in order, in the order of this draft."""
        order = shuffled(self.proved.steps, self.draft.id)
        return [LetteredStep(letter, step) for letter, step in zip(ascii_lowercase, order, strict=False)]

    @property
    def working_order(self) -> str:
        """The program of the steps in an order that passes."""
        codes = {step.key: step.code for step in self.proved.steps}
        return "\n".join(codes[key].rstrip() for key in self.proved.orders[0])

    @property
    def shown_steps(self) -> Sequence[Step]:
        """The steps of a worked example that are shown with results, none of which answers a requested step."""
        steps = self.proved.steps
        first = max(0, len(steps) - self.draft.asked)
        for place in range(first - 1, -1, -1):
            if any(answers(steps[place].result, step.result) for step in steps[first:]):
                first = place
        return steps[:first]

    @property
    def asked_steps(self) -> Sequence[Step]:
        """The steps of a worked example whose results the learner works out."""
        return self.proved.steps[len(self.shown_steps) :]

    @property
    def right(self) -> list[Lettered]:
        """The options that are right."""
        return [lettered for lettered in self.options if lettered.option.correct]

    def chosen(self, response: object) -> list[Lettered]:
        """Return the options that a response names."""
        keys = response if isinstance(response, list) else [response]
        return [lettered for lettered in self.options if lettered.option.key in keys]

    def verdict(self, response: object, owner: str = "") -> Verdict:
        """Grade this response. Code is run for it, confined, which takes about a second."""
        return grade(self.item, self.proved, response, self.pack, owner=owner)

    def attempt(self, response: object, verdict: Verdict, now: datetime, *, confidence: float | None) -> Attempt:
        """Return the attempt for this response."""
        return Attempt(
            id=self.draft.id,
            item_id=self.item.id,
            item_rev=self.item.rev,
            at=now,
            mode=self.draft.mode,
            correct=verdict.correct,
            response=response,
            seconds=round(self.draft.seconds(now), 1),
            seed=self.draft.seed,
            confidence=confidence,
            hints=self.draft.hints,
        )

"""A question as the learner sees it, and the answer as the course grades it.

Options are shown under letters in an order of the ticket's own; the course knows them by keys that never move. Only
this file turns one into the other, so that neither a letter nor its place says anything about the answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from string import ascii_lowercase

from clearhead.course import Attempt, Item, Option, Proved, Verdict, grade
from clearhead.studio.ticket import Ticket, shuffled

ASKED = ("card", "choice", "predict", "debug", "tune")  # the kinds the studio can put to a learner
GRADES = ("again", "good")


@dataclass(frozen=True)
class Lettered:
    """An option and the letter it is shown under."""

    letter: str
    option: Option


@dataclass(frozen=True)
class Question:
    """An item put to the learner under a ticket."""

    ticket: Ticket
    item: Item
    proved: Proved

    @property
    def options(self) -> list[Lettered]:
        """The options, in the order of this ticket."""
        order = shuffled(self.proved.options, self.ticket.id)
        return [Lettered(letter, option) for letter, option in zip(ascii_lowercase, order, strict=False)]

    @property
    def several(self) -> bool:
        """Whether more than one option is right."""
        return self.item.right > 1

    def lettered(self, key: str) -> Lettered | None:
        """The option with this key, under its letter."""
        return next((one for one in self.options if one.option.key == key), None)

    def response(self, letters: Sequence[str]) -> object | None:
        """What was ticked, as the course takes it; None where nothing that was offered was ticked."""
        if self.item.kind == "card":
            return next((letter for letter in letters if letter in GRADES), None)
        keys = sorted({one.option.key for one in self.options if one.letter in letters})
        if not keys or (len(keys) > 1 and not self.several):
            return None
        return keys if self.several else keys[0]

    def graded(self, response: object, now: datetime, *, confidence: float | None) -> Attempt:
        """The attempt this response makes."""
        return Attempt(
            id=self.ticket.id,
            item_id=self.item.id,
            item_rev=self.item.rev,
            at=now,
            mode=self.ticket.mode,
            correct=self.verdict(response).correct,
            response=response,
            seconds=round(self.ticket.seconds(now), 1),
            seed=self.ticket.seed,
            confidence=confidence,
            hints=self.ticket.hints,
        )

    def verdict(self, response: object) -> Verdict:
        """What the course says of this response."""
        return grade(self.item, self.proved, response)

    @property
    def right(self) -> list[Lettered]:
        """The options that are right."""
        return [one for one in self.options if one.option.correct]

    def chosen(self, response: object) -> list[Lettered]:
        """The options a response names."""
        keys = response if isinstance(response, list) else [response]
        return [one for one in self.options if one.option.key in keys]


def of_attempt(attempt: Attempt, items: Mapping[str, Item], proved: Mapping[str, Proved]) -> Question | None:
    """The question an attempt answered; None where its item is gone."""
    item = items.get(attempt.item_id)
    if item is None:
        return None
    ticket = Ticket(attempt.id, item.id, attempt.seed, attempt.at.timestamp(), attempt.mode, attempt.hints)
    return Question(ticket, item, proved[item.id])

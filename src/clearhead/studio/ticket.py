"""A ticket says which question was put: signed, so that a form can carry it, and with nothing of the answer in it."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import HTTPException
from itsdangerous import BadSignature, URLSafeSerializer

from clearhead.studio.language import _

T = TypeVar("T")


@dataclass(frozen=True)
class Ticket:
    """One question as it was put to the learner.

    Attributes:
        id: becomes the attempt's id, so that a form sent twice counts once.
        at: when it was put, seconds since 1970, UTC.
        mode: where: "practice", "recall", "review" …
        hints: seen so far.
        asked: steps of a worked example that are left to the learner.
        sitting: the test or challenge it is part of, if any.
    """

    id: str
    item: str
    seed: int
    at: float
    mode: str
    hints: int = 0
    asked: int = 1
    sitting: str = ""

    @classmethod
    def new(cls, item: str, *, seed: int, mode: str, now: datetime, asked: int = 1) -> "Ticket":
        """A ticket for a question put now."""
        return cls(str(uuid.uuid4()), item, seed, now.astimezone(UTC).timestamp(), mode, asked=asked)

    def seconds(self, now: datetime) -> float:
        """How long the learner took."""
        return max(0.0, now.timestamp() - self.at)

    def with_hints(self, hints: int) -> "Ticket":
        """The same question, with more hints seen."""
        return replace(self, hints=hints)


class Tickets:
    """Sign tickets and read them back."""

    def __init__(self, secret: str) -> None:
        self._signer = URLSafeSerializer(secret, salt="ticket")

    def sign(self, ticket: Ticket) -> str:
        """The ticket as text for a form or an address."""
        return str(self._signer.dumps(asdict(ticket)))

    def read(self, text: str) -> Ticket:
        """The ticket, or a refusal a browser can show."""
        try:
            return Ticket(**self._signer.loads(text))
        except (BadSignature, TypeError) as problem:
            raise HTTPException(
                400, _("This question was not put by this studio. Go back and open it again.")
            ) from problem


def shuffled(things: Sequence[T], ticket_id: str) -> list[T]:
    """The things in the order this ticket shows them: the same at every look, another for another ticket."""
    order = list(things)
    random.Random(ticket_id).shuffle(order)  # noqa: S311 — an order to show, not a secret
    return order

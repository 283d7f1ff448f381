"""A ticket says which question was put: signed, so that a form can carry it, and with nothing of the answer in it."""

import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from fastapi import HTTPException
from itsdangerous import BadSignature, URLSafeSerializer

from clearhead.studio.text.translation import _

T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """One question as it was put to the learner.

    Attributes:
        id: becomes the attempt's id, so that a form sent twice counts once.
        at: when it was put, seconds since 1970, UTC.
        mode: where: "practice", "recall", "review" …
        hints: seen so far.
        asked: steps of a worked example that are left to the learner.
        sitting: the address of the test or challenge it is part of, if any.
        typed: the answer is typed, without options to choose from.
        focus: the level or the concept the learner keeps to, if any.
        clock: seconds it should take; 0 is no clock.
        place: where in the row it stands, in words.
        since: when the sitting of a review began, seconds since 1970; 0 outside one.
    """

    id: str
    item: str
    seed: int
    at: float
    mode: str
    hints: int = 0
    asked: int = 1
    sitting: str = ""
    typed: bool = False
    focus: str = ""
    clock: int = 0
    place: str = ""
    since: int = 0

    @classmethod
    def new(cls, item: str, *, seed: int, mode: str, now: datetime, asked: int = 1, typed: bool = False) -> "Draft":
        """A ticket for a question put now."""
        return cls(str(uuid.uuid4()), item, seed, now.astimezone(UTC).timestamp(), mode, asked=asked, typed=typed)

    def seconds(self, now: datetime) -> float:
        """How long the learner took."""
        return max(0.0, now.timestamp() - self.at)

    def but(self, **changes: object) -> "Draft":
        """The same question, put a little differently: with one more hint, with its options shown."""
        return replace(self, **changes)  # type: ignore[arg-type]


class Drafts:
    """Sign tickets and read them back."""

    def __init__(self, secret: str) -> None:
        self._signer = URLSafeSerializer(secret, salt="ticket")

    def sign(self, draft: Draft) -> str:
        """The ticket as text for a form or an address."""
        return str(self._signer.dumps(asdict(draft)))

    def read(self, text: str) -> Draft:
        """The ticket, or a refusal a browser can show."""
        try:
            return Draft(**self._signer.loads(text))
        except (BadSignature, TypeError) as problem:
            raise HTTPException(
                400, _("This question was not put by this studio. Go back and open it again.")
            ) from problem


def shuffled(things: Sequence[T], draft_id: str) -> list[T]:
    """The things in the order this ticket shows them: the same at every look, another for another ticket."""
    order = list(things)
    random.Random(draft_id).shuffle(order)  # noqa: S311 — an order to show, not a secret
    return order

"""A draft: a question that was put to the learner and is not answered yet.

A draft is signed, so that a form can carry it, and contains nothing of the answer. Its id becomes the attempt's id, so
a form sent twice counts once.
"""

import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
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
        id: becomes the attempt's id.
        at: when it was put, seconds since 1970, UTC.
        mode: the mode that put it: "practice", "recall", "review" …
        hints: the number of hints shown so far.
        asked: number of steps of a worked example that the learner works out.
        assessment: the address of the test or challenge it is part of, if any.
        typed: whether the answer is typed instead of chosen from options.
        focus: the level or the concept that the learner practises, if any.
        clock: seconds it should take; 0 for no clock.
        place: its place among the questions, as shown: "3 of 10".
        since: when the review session began, seconds since 1970; 0 outside one.
    """

    id: str
    item: str
    seed: int
    at: float
    mode: str
    hints: int = 0
    asked: int = 1
    assessment: str = ""
    typed: bool = False
    focus: str = ""
    clock: int = 0
    place: str = ""
    since: int = 0

    @classmethod
    def new(cls, item: str, *, seed: int, mode: str, now: datetime, asked: int = 1, typed: bool = False) -> "Draft":
        """Return a draft for a question that is put now."""
        return cls(str(uuid.uuid4()), item, seed, now.astimezone(UTC).timestamp(), mode, asked=asked, typed=typed)

    def seconds(self, now: datetime) -> float:
        """Return how long the learner took."""
        return max(0.0, now.timestamp() - self.at)

    def but(self, **changes: object) -> "Draft":
        """Return the draft with some fields changed, such as one more hint, or its options shown."""
        return replace(self, **changes)  # type: ignore[arg-type]


class Drafts:
    """Signs drafts and reads them back."""

    def __init__(self, secret: str) -> None:
        self._signer = URLSafeSerializer(secret, salt="ticket")

    def sign(self, draft: Draft) -> str:
        """Return the draft as text for a form or an address."""
        fields = dict(vars(draft))
        # Downloaded cards carry drafts that earlier versions signed with this key.
        fields["sitting"] = fields.pop("assessment")
        return str(self._signer.dumps(fields))

    def read(self, text: str) -> Draft:
        """Return the draft from a signed text.

        Raises:
            HTTPException: this studio did not sign the text.
        """
        try:
            fields = self._signer.loads(text)
            return Draft(assessment=fields.pop("sitting", ""), **fields)
        except (BadSignature, TypeError, AttributeError) as problem:
            raise HTTPException(
                400, _("This question does not come from this studio. Go back and open it again.")
            ) from problem


def shuffled(items: Sequence[T], draft_id: str) -> list[T]:
    """Return the items in the order in which this draft shows them, which depends only on the draft."""
    order = list(items)
    random.Random(draft_id).shuffle(order)  # noqa: S311 — an order to show, not a secret
    return order

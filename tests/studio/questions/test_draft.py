"""Drafts: signed and read back whole, also those that earlier versions signed."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fastapi import HTTPException
from itsdangerous import URLSafeSerializer

from clearhead.studio.questions.draft import Draft, Drafts

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
DRAFT = replace(
    Draft.new("scale-of-logits", seed=3, mode="test", now=NOW, asked=2, typed=True),
    hints=1, assessment="/topics/attention/one-head/test/1", focus="easy", clock=60, place="3 of 10", since=7,
)  # fmt: skip
# What version 0.1 signs: it is in the forms of open tabs, and in the cards that a device took offline.
EARLIER = {
    "id": DRAFT.id, "item": "scale-of-logits", "seed": 3, "at": NOW.timestamp(), "mode": "test", "hints": 1, "asked": 2,
    "sitting": "/topics/attention/one-head/test/1", "typed": True, "focus": "easy", "clock": 60, "place": "3 of 10",
    "since": 7,
}  # fmt: skip


def test_a_draft_is_read_back_whole() -> None:
    drafts = Drafts("secret")
    assert drafts.read(drafts.sign(DRAFT)) == DRAFT


def test_earlier_versions_and_this_one_read_each_other() -> None:
    signer = URLSafeSerializer("secret", salt="ticket")
    assert Drafts("secret").read(str(signer.dumps(EARLIER))) == DRAFT
    assert signer.loads(Drafts("secret").sign(DRAFT)) == EARLIER


@pytest.mark.parametrize("content", [{"id": "x"}, {**EARLIER, "more": 1}, ["id"], "id", None, 3])
def test_what_is_no_draft_is_refused(content: object) -> None:
    with pytest.raises(HTTPException) as refused:
        Drafts("secret").read(str(URLSafeSerializer("secret", salt="ticket").dumps(content)))
    assert refused.value.status_code == 400
    with pytest.raises(HTTPException):
        Drafts("another secret").read(Drafts("secret").sign(DRAFT))

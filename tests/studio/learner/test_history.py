"""Adding answers one by one gives the same history as computing it from all of them."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearhead.course import Attempt
from clearhead.studio.learner.history import History
from studio.conftest import START, Visitor
from studio.learn.test_pages import answer

ATTEMPTS = st.lists(
    st.builds(
        lambda item, minutes, seconds, id: Attempt(
            id=str(id), item_id=item, item_rev=1, at=START + timedelta(minutes=minutes), mode="practice", correct=True,
            seconds=seconds,
        ),
        st.sampled_from("abc"), st.integers(0, 10_000), st.none() | st.floats(0, 100), st.uuids(),
    ),
    max_size=12,
)  # fmt: skip


@pytest.mark.slow
@given(first=ATTEMPTS, more=ATTEMPTS, gone=st.integers(0, 20))
def test_a_history_that_grew_is_the_history_worked_out_anew(
    first: Sequence[Attempt], more: Sequence[Attempt], gone: int
) -> None:
    after = [*first[:gone], *first[gone + 1 :], *more]  # an answer may be taken back as well
    assert History().followed_by(first).followed_by(after) == History().followed_by(after)


def test_what_a_request_remembers_is_news_after_its_own_write(visitor: Visitor) -> None:
    context = visitor.context.for_request()
    assert not context.progress.history
    assert not context.progress.history
    answer(visitor, visitor.get("/items/scale-of-logits"), "4.0")
    assert len(context.progress.history) == 1

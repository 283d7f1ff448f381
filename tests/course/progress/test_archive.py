"""A learner's data goes out and comes back whole, and a damaged line is named."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clearhead.course import Attempt, archive
from clearhead.errors import OptionError

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
responses = st.one_of(st.text(max_size=9), st.lists(st.text(max_size=3), max_size=3), st.none())


@pytest.mark.slow
@settings(max_examples=60)
@example([(UUID(int=1), 0, False, "a\x85b\u2028c", None)])  # line ends to str.splitlines(), not to JSON lines
@given(
    st.lists(
        st.tuples(st.uuids(), st.integers(0, 10**6), st.booleans(), responses, st.none() | st.floats(0, 1)), max_size=6
    )
)
def test_round_trip(rows: list[tuple[object, int, bool, object, float | None]]) -> None:
    attempts = [
        Attempt(str(key), "i", 2, START + timedelta(seconds=seconds), "recall", ok, response, 1.5, 3, sure, 1, None)
        for key, seconds, ok, response, sure in rows
    ]
    back = archive.read(archive.dump(attempts))
    assert back == sorted(attempts, key=lambda one: (one.at, one.id))


def test_any_time_zone_becomes_utc() -> None:
    local = START.astimezone(timezone(timedelta(hours=13)))
    (one,) = archive.read(archive.dump([Attempt("1", "i", 1, local, "recall", True)]))
    assert (one.at, one.at.utcoffset()) == (START, timedelta(0))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("{}\n", "line 1"),
        ('{"clearhead": "attempts", "version": 2}\n', "line 1"),
        ('{"clearhead": "attempts", "version": 1}\nnonsense\n', "line 2"),
        ('{"clearhead": "attempts", "version": 1}\n{"id": "1"}\n', "line 2"),
        ('{"clearhead": "attempts", "version": 1}\n{"id": "1", "at": "2026-01-01", "evil": 1}\n', "line 2"),
        ('{"clearhead": "attempts", "version": 1}\n[1]\n', "line 2"),
    ],
)
def test_what_is_damaged_is_named(text: str, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        archive.read(text)

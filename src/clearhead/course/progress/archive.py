"""Export and import a learner's attempts as JSON lines, one attempt per line."""

import json
from collections.abc import Iterable
from dataclasses import asdict, fields
from datetime import UTC, datetime

from clearhead.course.progress.attempt import Attempt
from clearhead.errors import OptionError

FORMAT = {"clearhead": "attempts", "version": 1}


def dump(attempts: Iterable[Attempt]) -> str:
    """Return all attempts as text, oldest first, after a line that names the format.

    >>> attempt = Attempt("1", "softmax", 1, datetime(2026, 3, 1, 9, tzinfo=UTC), "practice", True, "a")
    >>> read(dump([attempt])) == [attempt]
    True
    """
    rows = [json.dumps(FORMAT)]
    for attempt in sorted(attempts, key=lambda attempt: (attempt.at, attempt.id)):
        rows.append(json.dumps({**asdict(attempt), "at": attempt.at.astimezone(UTC).isoformat()}, ensure_ascii=False))
    return "\n".join(rows) + "\n"


def read(text: str) -> list[Attempt]:
    """Return the attempts of a text that `dump` wrote.

    Raises:
        OptionError: the text has another format, or a line is damaged; the message names the line.
    """
    rows = text.removesuffix("\n").split("\n") if text else []  # splitlines() would cut at U+0085 inside a response
    names = {field.name for field in fields(Attempt)}
    attempts = []
    for number, row in enumerate(rows, 1):
        try:
            data = json.loads(row)
            if number == 1:
                if data != FORMAT:
                    raise ValueError(f"the first line must be {json.dumps(FORMAT)}")
                continue
            if not isinstance(data, dict) or not set(data) <= names:
                raise ValueError(f"an attempt has the keys {', '.join(sorted(names))}")
            at = datetime.fromisoformat(data["at"])
            if at.tzinfo is None:
                raise ValueError("`at` has no time zone")
            attempts.append(Attempt(**{**data, "at": at}))
        except (ValueError, TypeError, KeyError) as error:
            raise OptionError(f"line {number} is not an attempt: {error}") from None
    if not rows:
        raise OptionError(f"the text is empty; the first line must be {json.dumps(FORMAT)}")
    return attempts

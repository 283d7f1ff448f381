"""Times and names as people say them."""

from collections.abc import Iterable
from datetime import datetime

from markupsafe import Markup, escape

from clearhead.course import Tick


def words(identifier: str) -> str:
    """An id as words.

    >>> words("softmax-over-queries")
    'Softmax over queries'
    """
    text = identifier.replace("-", " ").replace("_", " ")
    return text[:1].upper() + text[1:]


def when(moment: datetime, now: datetime) -> str:
    """When a coming moment is, seen from now, in the time zone of this machine.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
    >>> when(noon + timedelta(minutes=9), noon), when(noon + timedelta(days=40), noon)
    ('in 9 minutes', 'on 13 April')
    """
    minutes = round((moment - now).total_seconds() / 60)
    if minutes < 1:
        return "now"
    if minutes < 90:
        return f"in {minutes} minute{'s' if minutes > 1 else ''}"
    there, here = moment.astimezone(), now.astimezone()
    days = (there.date() - here.date()).days
    if days == 0:
        return f"today at {there:%H:%M}"
    if days == 1:
        return "tomorrow"
    if days < 14:
        return f"in {days} days"
    return f"on {there.day} {there:%B}"


def ago(moment: datetime, now: datetime) -> str:
    """When a past moment was, seen from now.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
    >>> ago(noon - timedelta(minutes=9), noon), ago(noon - timedelta(days=40), noon)
    ('9 minutes ago', 'on 23 January')
    """
    minutes = round((now - moment).total_seconds() / 60)
    if minutes < 1:
        return "just now"
    if minutes < 90:
        return f"{minutes} minute{'s' if minutes > 1 else ''} ago"
    there, here = moment.astimezone(), now.astimezone()
    days = (here.date() - there.date()).days
    if days == 0:
        return f"today at {there:%H:%M}"
    if days == 1:
        return "yesterday"
    if days < 14:
        return f"{days} days ago"
    return f"on {there.day} {there:%B}"


def marked(text: str, ticks: Iterable[Tick]) -> Markup:
    """A free text with the evidence for each met criterion marked."""
    inside = {place for tick in ticks if tick.met for start, end in tick.evidence for place in range(start, end)}
    parts, open_ = [], False
    for place, char in enumerate(text):
        if (place in inside) != open_:
            open_ = not open_
            parts.append(Markup("<mark>" if open_ else "</mark>"))  # noqa: S704 — one of two constants
        parts.append(escape(char))
    return Markup("").join([*parts, Markup("</mark>" if open_ else "")])  # noqa: S704 — as above


def plain(number: float) -> str:
    """A number as somebody would type it.

    >>> plain(2.0), plain(0.25)
    ('2', '0.25')
    """
    return f"{number:.6g}"

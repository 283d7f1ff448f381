"""Format times, numbers, names of concepts and reasons as text for people."""

import hashlib
import re
from collections.abc import Iterable
from datetime import date, datetime

from markupsafe import Markup, escape

from clearhead.course import Tick
from clearhead.sandbox import Limits, Outcome
from clearhead.studio.text.translation import _, many, mark

MONTHS = (
    mark("January"), mark("February"), mark("March"), mark("April"), mark("May"), mark("June"),
    mark("July"), mark("August"), mark("September"), mark("October"), mark("November"), mark("December"),
)  # fmt: skip
# Texts that templates translate: levels of a concept, modes, kinds of search results, roles of programs, problems.
NAMES = (
    mark("new"), mark("learning"), mark("good"), mark("strong"),
    mark("Read"), mark("Why"), mark("Walk"), mark("Try"), mark("Sheet"), mark("Recall"), mark("Practice"),
    mark("Challenge"), mark("Experiment"), mark("Build"), mark("Test"), mark("Review"), mark("Lens"),
    mark("topic"), mark("page"), mark("card"), mark("choice"), mark("predict"), mark("debug"), mark("tune"),
    mark("worked"), mark("explain"), mark("code"), mark("order"), mark("match"),
    mark("setup"), mark("given"), mark("answer"), mark("proof"), mark("check"), mark("tests"), mark("sweep"),
    mark("Predict the output"), mark("Choose"), mark("Tune"), mark("Debug"), mark("Concept"),
)  # fmt: skip


_HYPHENATED = re.compile(r"((?<!\w)\w+(?:-\w+)+)")

# `Outcome.stopped` -> what the program did.
STOPPED = {
    "time": mark("it took more than %(seconds)s seconds"),
    "memory": mark("it asked for too much memory"),
    "output": mark("it printed too much"),
    "disk": mark("it wrote too much"),
    "start": mark("it ended before its first line ran"),
    "report": mark("it damaged its own report; it may have written to a file descriptor that it did not open"),
}

# Ids of concepts -> their words, where these are not the id with spaces.
NAMED = {
    "gqa": "GQA",
    "kdim": "kdim",
    "kv-cache": "KV cache",
    "mlp": "MLP",
    "need-weights": "need_weights",
    "pytorch": "PyTorch",
    "qkv": "Q, K and V",
    "self-attention": "Self-attention",
    "cross-attention": "Cross-attention",
    "multi-head": "Multi-head",
    "long-range": "Long range",
}


def heading(text: str) -> Markup:
    """Return a title as HTML in which no word breaks at its hyphen.

    >>> heading("Self-attention & more")
    Markup('<span class="whole">Self-attention</span> &amp; more')
    """
    whole = Markup('<span class="whole">{}</span>')
    return Markup("").join(whole.format(part) if at % 2 else part for at, part in enumerate(_HYPHENATED.split(text)))


def day(moment: date) -> str:
    """Return a day of the year as text.

    >>> day(date(2026, 4, 13))
    '13 April'
    """
    return _("%(day)s %(month)s", day=moment.day, month=_(MONTHS[moment.month - 1]))


def words(identifier: str) -> str:
    """Return an id as words.

    >>> words("softmax-over-queries")
    'Softmax over queries'
    >>> words("kv-cache"), words("mlp")
    ('KV cache', 'MLP')
    """
    if identifier in NAMED:
        return NAMED[identifier]
    text = identifier.replace("-", " ").replace("_", " ")
    return text[:1].upper() + text[1:]


def within(identifier: str) -> str:
    """Return an id as words inside a sentence: names keep their capitals.

    >>> within("softmax-over-queries"), within("kv-cache"), within("pytorch"), within("self-attention")
    ('softmax over queries', 'KV cache', 'PyTorch', 'self-attention')
    """
    text = words(identifier)
    name = any(letter.isupper() or letter in ",_" for letter in text[1:])
    return text if name else text[:1].lower() + text[1:]


def stopped(why: str, limits: Limits) -> str:
    """Return why a program was stopped, in words.

    >>> stopped("time", Limits(seconds=10))
    'it took more than 10 seconds'
    """
    return _(STOPPED[why], seconds=f"{limits.seconds:g}")


def why_ended(outcome: Outcome, limits: Limits) -> str:
    """Return why a program ended early: the limit that stopped it or the exception it raised; "" for neither."""
    if outcome.stopped:
        return stopped(outcome.stopped, limits)
    return f"{outcome.raised.type}: {outcome.raised.message}" if outcome.raised else ""


def when(moment: datetime, now: datetime) -> str:
    """Return when a future moment is, seen from now, in the time zone of this machine.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
    >>> when(noon + timedelta(minutes=9), noon), when(noon + timedelta(days=40), noon)
    ('in 9 minutes', 'on 13 April')
    """
    minutes = round((moment - now).total_seconds() / 60)
    if minutes < 1:
        return _("now")
    if minutes < 90:
        return many("in %(count)s minute", "in %(count)s minutes", minutes)
    there, here = moment.astimezone(), now.astimezone()
    days = (there.date() - here.date()).days
    if days == 0:
        return _("today at %(time)s", time=f"{there:%H:%M}")
    if days == 1:
        return _("tomorrow")
    if days < 14:
        return many("in %(count)s day", "in %(count)s days", days)
    return _("on %(day)s", day=day(there))


def ago(moment: datetime, now: datetime) -> str:
    """Return when a past moment was, seen from now.

    >>> from datetime import UTC, timedelta
    >>> noon = datetime(2026, 3, 4, 12, tzinfo=UTC)
    >>> ago(noon - timedelta(minutes=9), noon), ago(noon - timedelta(days=40), noon)
    ('9 minutes ago', 'on 23 January')
    """
    minutes = round((now - moment).total_seconds() / 60)
    if minutes < 1:
        return _("just now")
    if minutes < 90:
        return many("%(count)s minute ago", "%(count)s minutes ago", minutes)
    there, here = moment.astimezone(), now.astimezone()
    days = (here.date() - there.date()).days
    if days == 0:
        return _("today at %(time)s", time=f"{there:%H:%M}")
    if days == 1:
        return _("yesterday")
    if days < 14:
        return many("%(count)s day ago", "%(count)s days ago", days)
    return _("on %(day)s", day=day(there))


def marked(text: str, ticks: Iterable[Tick]) -> Markup:
    """Return a free text with the evidence for each met criterion marked."""
    inside = {place for tick in ticks if tick.met for start, end in tick.evidence for place in range(start, end)}
    parts, open_ = [], False
    for place, char in enumerate(text):
        if (place in inside) != open_:
            open_ = not open_
            parts.append(Markup("<mark>" if open_ else "</mark>"))  # noqa: S704 — one of two constants
        parts.append(escape(char))
    return Markup("").join([*parts, Markup("</mark>" if open_ else "")])  # noqa: S704 — as above


def number(number: float) -> str:
    """Return a number as a person would type it.

    >>> number(2.0), number(0.25)
    ('2', '0.25')
    """
    return f"{number:.6g}"


def digest(text: str) -> str:
    """Return a short hash of a text, to name it in a page."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]

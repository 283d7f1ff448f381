"""The language of the studio's own words. English stands in the source; another language is a gettext catalog.

A text is marked where it is written: `{% trans %}…{% endtrans %}` or `_("…")` in a template, `_("…")` in Python,
`_("…")` from static/words.js in a module. The course's words are not these: a pack is written in one language.
"""

import gettext
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

ENGLISH = "en"
CATALOGS = Path(__file__).parent / "locale"  # <language>/LC_MESSAGES/studio.mo, and page.mo for the ES modules
_spoken: ContextVar[gettext.NullTranslations | None] = ContextVar("spoken", default=None)
_PLAIN = gettext.NullTranslations()


def _(text: str, **values: Any) -> str:
    """The text in the language of this request; `%(name)s` in it is filled from `values`.

    >>> _("%(count)s due", count=3)
    '3 due'
    """
    return said(text) % values if values else said(text)


def mark(text: str) -> str:
    """A text that is looked up later; naming it here puts it into the catalogs."""
    return text


def many(one: str, several: str, count: int, **values: Any) -> str:
    """The form that fits the count, which also fills `%(count)s`.

    >>> many("%(count)s try left", "%(count)s tries left", 2)
    '2 tries left'
    """
    return (_spoken.get() or _PLAIN).ngettext(one, several, count) % {"count": count, **values}


def said(text: str) -> str:
    """The text as the catalog has it, nothing filled in."""
    return (_spoken.get() or _PLAIN).gettext(text)


def said_many(one: str, several: str, count: int) -> str:
    """The form that fits the count as the catalog has it, nothing filled in."""
    return (_spoken.get() or _PLAIN).ngettext(one, several, count)


def speak(language: str | gettext.NullTranslations) -> None:
    """Use this language for the rest of the request; an unknown one is English."""
    _spoken.set(catalog(language) if isinstance(language, str) else language)


@cache
def languages() -> tuple[str, ...]:
    """The languages there are, English first."""
    others = sorted(file.parents[1].name for file in CATALOGS.glob("*/LC_MESSAGES/studio.mo"))
    return (ENGLISH, *others)


@cache
def catalog(language: str, domain: str = "studio") -> gettext.NullTranslations:
    """The translations of one language."""
    return gettext.translation(domain, CATALOGS, [language], fallback=True)


def for_modules(language: str) -> dict[str, str]:
    """What static/words.js translates with; empty for English."""
    entries: dict[object, str] = getattr(catalog(language, "page"), "_catalog", {})
    return {text: there for text, there in entries.items() if isinstance(text, str) and text}

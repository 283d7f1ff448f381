"""The language of the studio's own words. English stands in the source; another language is a gettext catalog.

A text is marked where it is written: `{% trans %}…{% endtrans %}` or `_("…")` in a template, `_("…")` in Python,
`_("…")` from static/words.js in a module. What grading and errors say comes from rooms below, which know no gettext:
`told` looks it up. The course's words are none of these: a pack is written in one language.
"""

import gettext
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from clearhead.course.proofs.messages import LEADS
from clearhead.errors import ClearheadError
from clearhead.messages import Message

ENGLISH = "en"
CATALOGS = Path(__file__).parents[1] / "locale"  # <language>/LC_MESSAGES/studio.mo, and page.mo for the ES modules
_spoken: ContextVar[gettext.NullTranslations | None] = ContextVar("spoken", default=None)
_ENGLISH = gettext.NullTranslations()


def _(text: str, **values: Any) -> str:
    """The text in the language of this request; `%(name)s` in it is filled from `values`.

    >>> _("%(count)s due", count=3)
    '3 due'
    """
    return lookup(text) % values if values else lookup(text)


def mark(text: str) -> str:
    """A text that is looked up later; naming it here puts it into the catalogs."""
    return text


def many(singular: str, plural: str, count: int, **values: Any) -> str:
    """The form that fits the count, which also fills `%(count)s`.

    >>> many("%(count)s try left", "%(count)s tries left", 2)
    '2 tries left'
    """
    return current_catalog().ngettext(singular, plural, count) % {"count": count, **values}


def translate(text: str) -> str:
    """What a room below said, in the language of this request: a sentence by its pattern, with those among its values;
    what a proof keeps by paragraphs.

    >>> from clearhead.messages import message
    >>> translate(message("Step %(step)s gives %(result)s.", step=1, result="4.0")), translate("In the author's words.")
    ('Step 1 gives 4.0.', "In the author's words.")
    """
    if isinstance(text, Message):
        values = {
            name: translate(value) if isinstance(value, Message) else value for name, value in text.values.items()
        }
        return _(text.pattern, **values)
    return "\n\n".join(lookup(part) if part in LEADS else part for part in text.split("\n\n"))


def explained(error: ClearheadError) -> str:
    """What an error says, in the language of this request where it was said in a sentence that can be.

    >>> from clearhead.errors import ModelError
    >>> explained(ModelError("the text is empty. Give at least one word."))
    'the text is empty. Give at least one word.'
    """
    first = error.args[0] if error.args else None
    return translate(first) if isinstance(first, Message) else str(error)


def lookup(text: str) -> str:
    """The text as the catalog has it, nothing filled in."""
    return current_catalog().gettext(text)


def lookup_many(singular: str, plural: str, count: int) -> str:
    """The form that fits the count as the catalog has it, nothing filled in."""
    return current_catalog().ngettext(singular, plural, count)


def use_language(language: str | gettext.NullTranslations) -> None:
    """Use this language for the rest of the request; an unknown one is English."""
    _spoken.set(catalog(language) if isinstance(language, str) else language)


def current_catalog() -> gettext.NullTranslations:
    """The catalog of this request; what is kept of a page's text is kept by it."""
    return _spoken.get() or _ENGLISH


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

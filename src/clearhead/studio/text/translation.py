"""Translation of the studio's own texts: English is in the source, every other language is a gettext catalog.

A text is marked where it is written: `{% trans %}…{% endtrans %}` or `_("…")` in a template, `_("…")` in Python,
`_("…")` from static/words.js in a module. Messages of grading and of errors come from lower rooms without gettext, as
`clearhead.messages.Message`: `translate` translates them. A pack is written in one language and is not translated.
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
    """Return the text in the language of this request; `%(name)s` in it is filled from `values`.

    >>> _("%(count)s due", count=3)
    '3 due'
    """
    return lookup(text) % values if values else lookup(text)


def mark(text: str) -> str:
    """Mark a text for the catalogs, to be translated later; returns it unchanged."""
    return text


def many(singular: str, plural: str, count: int, **values: Any) -> str:
    """Return the singular or plural for this count, which also fills `%(count)s`.

    >>> many("%(count)s try left", "%(count)s tries left", 2)
    '2 tries left'
    """
    return current_catalog().ngettext(singular, plural, count) % {"count": count, **values}


def translate(text: str) -> str:
    """Return a message in the language of this request. Its pattern is translated, and so are messages in its values.

    A text that a proof stored is translated paragraph by paragraph.

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
    """Return the text of an error, in the language of this request if it holds a `Message`.

    >>> from clearhead.errors import ModelError
    >>> explained(ModelError("the text is empty. Give at least one word."))
    'the text is empty. Give at least one word.'
    """
    first = error.args[0] if error.args else None
    return translate(first) if isinstance(first, Message) else str(error)


def lookup(text: str) -> str:
    """Return the text in the catalog's language, with its placeholders."""
    return current_catalog().gettext(text)


def lookup_many(singular: str, plural: str, count: int) -> str:
    """Return the singular or plural in the catalog's language, with its placeholders."""
    return current_catalog().ngettext(singular, plural, count)


def use_language(language: str | gettext.NullTranslations) -> None:
    """Use this language for the rest of the request; English if it is unknown."""
    _spoken.set(catalog(language) if isinstance(language, str) else language)


def current_catalog() -> gettext.NullTranslations:
    """Return the catalog of this request, which is part of the key of cached texts."""
    return _spoken.get() or _ENGLISH


@cache
def languages() -> tuple[str, ...]:
    """Return the available languages, English first."""
    others = sorted(file.parents[1].name for file in CATALOGS.glob("*/LC_MESSAGES/studio.mo"))
    return (ENGLISH, *others)


@cache
def catalog(language: str, domain: str = "studio") -> gettext.NullTranslations:
    """Return the translations of one language."""
    return gettext.translation(domain, CATALOGS, [language], fallback=True)


def for_modules(language: str) -> dict[str, str]:
    """Return the translations for static/words.js; empty for English."""
    entries: dict[object, str] = getattr(catalog(language, "page"), "_catalog", {})
    return {text: there for text, there in entries.items() if isinstance(text, str) and text}

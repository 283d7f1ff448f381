"""Names of learners: which are allowed, and when two spellings are the same name.

A name is stored as composed Unicode (NFC). Names are compared without regard to case and to forms that look the same
(NFKC and case folding, as RFC 8265 has it for user names), so `josé`, `JOSÉ` and an é typed as e with an accent all
log José in, and nobody else can be invited under one of them.
"""

import re
import unicodedata

from clearhead.errors import OptionError

LONGEST = 60  # characters
MARKS = 3  # accents on one letter; no script has more, and they would cover the lines around the name
_LETTERS = ("Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nd")
PUNCTUATION = " .@-_'’·"
# Letters and marks that show nothing (Unicode's Default_Ignorable_Code_Point, where its category does not say so).
INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def checked(name: str) -> str:
    """Return the name as it is stored.

    Raises:
        OptionError: it is too long, or has a character that a name cannot have; the message says which.

    >>> checked("Jose\u0301"), checked("李雷")
    ('José', '李雷')
    """
    kept = unicodedata.normalize("NFC", name)
    if not 1 <= len(kept) <= LONGEST:
        raise OptionError(f"{name!r} has {len(kept)} characters. A name has 1 to {LONGEST}.")
    for character in kept:
        if not _allowed(character):
            raise OptionError(
                f"{name!r} cannot be a name: it has {_called(character)}. "
                f"Write letters, digits, plain spaces and any of {PUNCTUATION.strip()}"
            )
    if not _is(kept[0], "LN") or not _is(kept[-1], "LNM."):
        raise OptionError(f"{name!r} cannot be a name. Begin and end it with a letter or a digit.")
    if "  " in kept:
        raise OptionError(f"{name!r} cannot be a name: it has two spaces in a row. Write one.")
    if re.search(f"M{{{MARKS + 1}}}", "".join(unicodedata.category(character)[0] for character in kept)):
        raise OptionError(f"{name!r} cannot be a name: a letter in it has more than {MARKS} accents.")
    return kept


def key(name: str) -> str:
    """Return a key that all spellings of one name share.

    >>> key("BJÖRN") == key("bjo\u0308rn"), key("Ada") == key("Ada"), key("Straße") == key("STRASSE")
    (True, True, True)
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded).strip()


def _is(character: str, kinds: str) -> bool:
    """Whether it is a letter (L), a mark on one (M), a digit (N), an underscore, or a full stop (.)."""
    return unicodedata.category(character)[0] in kinds or character == "_" or (character == "." and "." in kinds)


def _allowed(character: str) -> bool:
    if character in PUNCTUATION:
        return True
    return unicodedata.category(character) in _LETTERS and not INVISIBLE.match(character)


def _called(character: str) -> str:
    """Return a character that may be invisible, by its code and its name."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'which has no name')}"

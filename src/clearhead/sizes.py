"""Read and write sizes in bytes, such as "500MB"."""

import math
from contextlib import suppress

from clearhead.errors import OptionError

UNITS = {
    "": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40,
}  # fmt: skip


def size(given: object, name: str) -> int | None:
    """Return a number of bytes from a number or a text with a unit; None stays None.

    Args:
        name: the caller's name for the argument, for the message.

    Raises:
        OptionError: it is not a size, or less than one byte.

    >>> size("500MB", "max_bytes"), size("2 gib", "max_bytes"), size(4096, "max_bytes"), size(None, "max_bytes")
    (500000000, 2147483648, 4096, None)
    """
    if given is None:
        return None
    count = math.nan
    if isinstance(given, str):
        text = given.upper().replace(" ", "").replace("_", "")
        number = text.rstrip("BKMGTI")
        with suppress(ValueError, KeyError):
            count = float(number) * UNITS[text[len(number) :]]
    elif isinstance(given, int | float) and given is not True and given is not False:
        count = float(given)
    if not math.isfinite(count) or count < 1:
        raise OptionError(
            f"{name} is {given!r}, expected a size of at least one byte. Give a number and a unit, as in 500MB."
        )
    return int(count)


def size_text(count: float) -> str:
    """Return a number of bytes for people, in binary units.

    >>> size_text(1), size_text(999), size_text(3 * 2**29), size_text(2**47), size_text(2**64)
    ('1 byte', '999 bytes', '1.5 GiB', '128 TiB', '16777216 TiB')
    """
    for unit in ("byte" if count == 1 else "bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024
    return f"{count:.4g} TiB" if count < 1024 else f"{count:.0f} TiB"

"""Text in a CSV file that no spreadsheet computes, however it splits the file.

A spreadsheet takes a cell for a formula if it begins with a sign such as "=", after blanks too. Where a list separator
other than the comma is set, as in most of Europe, it splits our cells at ";", tabs or line ends, and each part counts.
"""

import re

_SEPARATORS = ";|\t\r\n"
_BLANKS = ' \v\f\xa0\u200b\u3000\ufeff"'  # a quotation mark, for it may open a cell that a formula fills
_SIGNS = "=+@＝＋－＠'-"  # our own mark too, so that what was marked is read back to the letter
_BARE = re.compile(f"([{_SEPARATORS}])([{_BLANKS}]*[{_SIGNS}])")
_MARKED = re.compile(f"([{_SEPARATORS}])'([{_BLANKS}]*[{_SIGNS}])")
_STARTS = re.compile(f"[{_BLANKS}\n]*[{_SIGNS}]|[\t\r]")


def inert(text: str) -> str:
    """Put an apostrophe before each part that a spreadsheet would compute.

    Example:
        >>> inert("=1+1; =2")
        "'=1+1;' =2"
    """
    text = _BARE.sub(r"\1'\2", text)
    return f"'{text}" if _STARTS.match(text) else text


def as_written(text: str) -> str:
    """Take the apostrophes of `inert` off again.

    Example:
        >>> as_written("'=1+1;' =2")
        '=1+1; =2'
    """
    text = text[1:] if text[:1] == "'" and _STARTS.match(text[1:]) else text
    return _MARKED.sub(r"\1\2", text)

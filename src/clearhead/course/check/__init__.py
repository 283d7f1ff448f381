"""Check packs: prove every item and page, write receipts, watch for changes."""

from clearhead.course.check.guessing import guessable
from clearhead.course.check.packs import (
    RECEIPTS,
    CheckedPack,
    as_data,
    check,
    check_all,
    line,
    watch,
    with_item,
    write_receipts,
)

__all__ = [
    "RECEIPTS",
    "CheckedPack",
    "as_data",
    "check",
    "check_all",
    "guessable",
    "line",
    "watch",
    "with_item",
    "write_receipts",
]

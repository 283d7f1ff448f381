"""Check packs: prove every item and page, write receipts, watch for changes."""

from clearhead.course.check.guessing import guessable
from clearhead.course.check.packs import RECEIPTS, check, line, watch, with_item, write_receipts

__all__ = ["RECEIPTS", "check", "guessable", "line", "watch", "with_item", "write_receipts"]

"""GIFT, the text format for Moodle questions: write it, parse it, make drafts of it."""

from clearhead.course.exchange.gift.parse import read_gift
from clearhead.course.exchange.gift.write import write_gift

__all__ = ["read_gift", "write_gift"]

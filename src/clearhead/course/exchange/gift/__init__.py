"""GIFT, the text format for Moodle questions: written, parsed, turned into drafts."""

from clearhead.course.exchange.gift.parse import read_gift
from clearhead.course.exchange.gift.write import write_gift

__all__ = ["read_gift", "write_gift"]

"""The course's own messages inside the texts of a proof."""

from clearhead.messages import message

# Paragraphs of their own in what a proof keeps as run against an option.
WOULD_PRINT = message("With this change the program would print")
PRINTS = message("As it stands it prints")
NOTHING = message("nothing")
SWEPT = message("The sweep says:")
STILL_FAILS = message("With this patch the tests still fail:")
LEADS = frozenset((WOULD_PRINT, PRINTS, NOTHING, SWEPT, STILL_FAILS))

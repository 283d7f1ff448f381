"""What the course says in words of its own inside a text that a proof keeps."""

from clearhead.saying import say

# Paragraphs of their own in what a proof keeps as run against an option.
WOULD_PRINT = say("With this change the program would print")
PRINTS = say("As it stands it prints")
NOTHING = say("nothing")
SWEPT = say("The sweep says:")
STILL_FAILS = say("With this patch the tests still fail:")
LEADS = frozenset((WOULD_PRINT, PRINTS, NOTHING, SWEPT, STILL_FAILS))

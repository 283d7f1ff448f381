"""Messages that a proof adds to its texts."""

from clearhead.messages import message

# Paragraphs in the counterexample of an option.
WOULD_PRINT = message("With this change the program would print")
PRINTS = message("As it stands it prints")
NOTHING = message("nothing")
SWEPT = message("The sweep says:")
STILL_FAILS = message("With this patch the tests still fail:")
LEADS = frozenset((WOULD_PRINT, PRINTS, NOTHING, SWEPT, STILL_FAILS))

"""What grading says in words of its own: plain English, with its pattern kept, so that it can be said otherwise."""


class Said(str):
    """A sentence, with the pattern and the values it was made of.

    Attributes:
        pattern: the sentence with `%(name)s` where a value goes; what a translation is looked up by.
        values: name -> what stands there, in nobody's language: numbers, words of the pack or of the learner.
    """

    pattern: str
    values: dict[str, object]


def say(pattern: str, **values: object) -> Said:
    """The sentence that the pattern and the values make.

    >>> said = say("Step %(step)s gives %(result)s.", step=2, result="4.0")
    >>> said, said.pattern
    ('Step 2 gives 4.0.', 'Step %(step)s gives %(result)s.')
    """
    said = Said(pattern % values if values else pattern)
    said.pattern, said.values = pattern, values
    return said


# Paragraphs of their own in what a proof keeps as run against an option.
WOULD_PRINT = say("With this change the program would print")
PRINTS = say("As it stands it prints")
NOTHING = say("nothing")
SWEPT = say("The sweep says:")
STILL_FAILS = say("With this patch the tests still fail:")
LEADS = frozenset((WOULD_PRINT, PRINTS, NOTHING, SWEPT, STILL_FAILS))

"""What is said to people: plain English, with its pattern kept, so that the studio can say it in another language."""


class Said(str):
    """A sentence, with the pattern and the values it was made of.

    Attributes:
        pattern: the sentence with `%(name)s` where a value goes; what a translation is looked up by.
        values: name -> what stands there: another `Said`, or what is in nobody's language: numbers, names, words of the
            pack or of the learner.
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

"""Messages for people: plain English that keeps its pattern, so that the studio can show it in another language."""


class Message(str):
    """A message, with the pattern and the values it was made of.

    Attributes:
        pattern: the text with `%(name)s` where a value goes; translations are looked up by it.
        values: name -> what goes there: another `Message`, or what belongs to no language: numbers, names, words of the
            pack or of the learner.
    """

    pattern: str
    values: dict[str, object]


def message(pattern: str, **values: object) -> Message:
    """Return the message that the pattern and the values make.

    >>> step = message("Step %(step)s gives %(result)s.", step=2, result="4.0")
    >>> step, step.pattern
    ('Step 2 gives 4.0.', 'Step %(step)s gives %(result)s.')
    """
    made = Message(pattern % values if values else pattern)
    made.pattern, made.values = pattern, values
    return made

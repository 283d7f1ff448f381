"""Messages for people: plain English that keeps its pattern, so that the studio can show it in another language."""


class Message(str):
    """A message that keeps the pattern and the values it was made from.

    Attributes:
        pattern: the text with `%(name)s` where a value goes; translations are looked up by it.
        values: name -> value: another `Message`, or something that is not translated, such as a number, a name, or text
            of the pack or of the learner.
    """

    pattern: str
    values: dict[str, object]


def message(pattern: str, **values: object) -> Message:
    """Return a message: the pattern with the values filled in.

    >>> step = message("Step %(step)s gives %(result)s.", step=2, result="4.0")
    >>> step, step.pattern
    ('Step 2 gives 4.0.', 'Step %(step)s gives %(result)s.')
    """
    made = Message(pattern % values if values else pattern)
    made.pattern, made.values = pattern, values
    return made

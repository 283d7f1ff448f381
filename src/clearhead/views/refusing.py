"""Readings that cannot be drawn, refused with why and what to do."""

from typing import TYPE_CHECKING

from clearhead.errors import ModelError, OptionError

if TYPE_CHECKING:
    from clearhead.capture import Reading

MOST = 3  # reasons said


def refuse_nothing(reading: "Reading") -> None:
    """Do nothing where a head was captured.

    Raises:
        ModelError: none was; says what was missed and why, or what kind of model has no attention.
    """
    if len(reading.record):
        return
    missed = [f"{missed.name}: {missed.reason}" for missed in reading.record.missed]
    why = (
        "no attention ran in it. A convolutional, recurrent or state-space model has none; give a transformer, such as "
        "a BERT, GPT, Llama or ViT"
    )
    if missed:
        more = f"; and {len(missed) - MOST} more" if len(missed) > MOST else ""
        why = f"what ran could not be captured ({'; '.join(missed[:MOST])}{more}). Give a model of another family"
    raise ModelError(f"there is nothing to show of {reading.model_name}: {why}.")


def refuse_unlike(first: "Reading", second: "Reading") -> None:
    """Do nothing where the two have as many tokens.

    Raises:
        OptionError: they have not, so their maps do not lie on each other.
    """
    if len(first.tokens) != len(second.tokens):
        raise OptionError(
            f"{first.model_name} reads {len(first.tokens)} tokens and {second.model_name} {len(second.tokens)}: the "
            "maps do not lie on each other. Compare models with one tokenizer."
        )

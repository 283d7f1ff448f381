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
    """Do nothing where the two read one text as the same tokens, but for upper case and the marks of a tokenizer.

    Raises:
        OptionError: they have not, so their maps do not lie on each other; says where they part.
    """
    if len(first.tokens) != len(second.tokens):
        raise OptionError(
            f"{first.model_name} reads {len(first.tokens)} tokens and {second.model_name} {len(second.tokens)}: the "
            "maps do not lie on each other. Compare models with one tokenizer."
        )
    for place, (one, other) in enumerate(zip(first.tokens, second.tokens, strict=True)):
        added = first.special[place] and second.special[place]  # each has names of its own for these
        if not added and _piece(one) != _piece(other):
            raise OptionError(
                f"at token {place} {first.model_name} reads “{one}” and {second.model_name} “{other}”: the two cut the "
                "text at other places, so their maps do not lie on each other. Compare models with one tokenizer."
            )


def _piece(token: str) -> str:
    """A token without what a tokenizer writes for a space, or for the middle of a word."""
    return token.removeprefix("##").removesuffix("</w>").strip("Ġ▁ ").casefold()

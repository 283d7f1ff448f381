"""Check readings before they are drawn, with errors that say what is wrong and what to do."""

from typing import TYPE_CHECKING

from clearhead.errors import ModelError, OptionError
from clearhead.messages import message

if TYPE_CHECKING:
    from clearhead.capture import Reading

MOST = 3  # reasons in one message


def check_not_empty(reading: "Reading") -> None:
    """Check that a head was captured.

    Raises:
        ModelError: none was; the message says what was missed and why, or which models have no attention.
    """
    if len(reading.record):
        return
    missed = [f"{missed.name}: {missed.reason}" for missed in reading.record.missed]
    if not missed:
        raise ModelError(
            message(
                "there is nothing to show of %(model)s: no attention ran in it. A convolutional, recurrent or "
                "state-space model has none; give a transformer, such as a BERT, GPT, Llama or ViT.",
                model=reading.model_name,
            )
        )
    reasons: str = "; ".join(missed[:MOST])
    if len(missed) > MOST:
        reasons = message("%(reasons)s; and %(count)s more", reasons=reasons, count=len(missed) - MOST)
    raise ModelError(
        message(
            "there is nothing to show of %(model)s: what ran could not be captured (%(reasons)s). Give a model of "
            "another family.",
            model=reading.model_name,
            reasons=reasons,
        )
    )


def check_same_tokens(first: "Reading", second: "Reading") -> None:
    """Check that two readings are of the same tokens, apart from upper case and the marks of a tokenizer.

    Raises:
        OptionError: they are not, so their maps cannot be compared; the message names the first difference.
    """
    _check_same_decoder_tokens(first, second)
    if len(first.tokens) != len(second.tokens):
        raise OptionError(
            message(
                "%(first)s reads %(tokens)s tokens and %(second)s reads %(others)s, so their maps cannot be compared. "
                "Compare models that share a tokenizer.",
                first=first.model_name,
                tokens=len(first.tokens),
                second=second.model_name,
                others=len(second.tokens),
            )
        )
    for place, (ours, theirs) in enumerate(zip(first.tokens, second.tokens, strict=True)):
        added = first.special[place] and second.special[place]  # special tokens have different names in each
        if not added and _piece(ours) != _piece(theirs):
            raise OptionError(
                message(
                    "at token %(place)s %(first)s reads “%(one)s” and %(second)s reads “%(other)s”: the texts "
                    "differ or are split differently, so their maps cannot be compared. Give both the same text, and "
                    "models that share a tokenizer.",
                    place=place,
                    first=first.model_name,
                    one=ours,
                    second=second.model_name,
                    other=theirs,
                )
            )


def _check_same_decoder_tokens(first: "Reading", second: "Reading") -> None:
    ours, theirs = ([] if side is None else side.tokens for side in (first.decoder, second.decoder))
    if list(map(_piece, ours[1:])) != list(map(_piece, theirs[1:])):  # each starts with its own start token
        raise OptionError(
            message(
                "the decoders of %(first)s and %(second)s read different tokens (%(ours)s and %(theirs)s of "
                "them), so their maps cannot be compared. Compare models that share a tokenizer.",
                first=first.model_name,
                second=second.model_name,
                ours=len(ours),
                theirs=len(theirs),
            )
        )


def _piece(token: str) -> str:
    """Return a token without the tokenizer's mark for a space, or for the middle of a word."""
    return token.removeprefix("##").removesuffix("</w>").strip("Ġ▁ ").casefold()


def check_head(reading: "Reading", layer: int, head: int) -> None:
    """Check that a reading has that layer and head.

    Raises:
        OptionError: it does not; the message lists those there are.
    """
    matrices = list(reading.record.values())
    if not 0 <= layer < len(matrices):
        raise OptionError(
            message(
                "there is no layer %(layer)s: %(model)s has %(known)s.",
                layer=layer,
                model=reading.model_name,
                known=_known_layers(len(matrices)),
            )
        )
    heads = matrices[layer].shape[1]
    if not 0 <= head < heads:
        known = message("heads 0 to %(last)s", last=heads - 1) if heads > 1 else message("only head 0")
        raise OptionError(
            message("there is no head %(head)s: layer %(layer)s has %(known)s.", head=head, layer=layer, known=known)
        )


def _known_layers(count: int) -> str:
    if not count:
        return message("no layers")
    return message("layers 0 to %(last)s", last=count - 1) if count > 1 else message("only layer 0")

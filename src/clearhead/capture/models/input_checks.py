"""Check what a model is given before it runs, and turn what it raises into one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from clearhead.capture.models.loading import Loaded
from clearhead.errors import ClearheadError, ModelError
from clearhead.messages import Message, message


def check_characters(text: str) -> None:
    """Check that a text consists of whole characters. A shell argument that is not UTF-8 holds halves of surrogates.

    Raises:
        ModelError: it does not.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ModelError(
            message(
                "the text “%(start)s…” holds half a character at place %(place)s, which no tokenizer reads. Give text "
                "in UTF-8.",
                start=text[: error.start][-20:],
                place=error.start,
            )
        ) from error


def check_length(loaded: Loaded, length: int, name: Message | None = None) -> None:
    """Check that there is a token, and that there are not too many.

    Raises:
        ModelError: there is none, or the model's maximum is smaller; the message says by how much.
    """
    if not length:
        raise ModelError(message("the tokenizer made no token of the text. Give at least one word."))
    if length > loaded.max_length:
        raise ModelError(
            message(
                "%(name)s is %(length)s tokens long and %(model)s takes at most %(most)s (special tokens included). "
                "Cut %(more)s tokens.",
                name=name or message("the text"),
                length=length,
                model=loaded.name,
                most=loaded.max_length,
                more=length - loaded.max_length,
            )
        )


def check_no_picture_token(loaded: Loaded, text: str) -> None:
    """Check that a text without a picture has no place for one.

    Raises:
        ModelError: it has.
    """
    token = getattr(loaded.processor, "image_token", None)
    if token is not None and token in text:
        raise ModelError(
            message(
                "the text has a place for a picture, %(token)s, and no picture was given. Give one, or take %(token)s "
                "out.",
                token=token,
            )
        )


def check_vocabulary(loaded: Loaded, ids: list[int]) -> None:
    """Check that the model knows every token.

    Raises:
        ModelError: it does not: the tokenizer is another model's.
    """
    known = _vocabulary(loaded.model)
    if known is not None and max(ids) >= known:
        raise ModelError(
            message(
                "the tokenizer of %(model)s gives token %(token)s, and the model knows %(known)s tokens. Tokenizer and "
                "weights belong to different models: copy both from one.",
                model=loaded.name,
                token=max(ids),
                known=known,
            )
        )


def _vocabulary(model: torch.nn.Module) -> int | None:
    """Return the number of tokens that have an embedding; None if the model does not say."""
    try:
        count = getattr(model.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return count if isinstance(count, int) else None


@contextmanager
def running(loaded: Loaded, input_kind: str) -> Iterator[None]:
    """Turn an error that the model raises into one sentence.

    Raises:
        ModelError: the model raised an error of Python or torch; the message quotes its first line.
    """
    try:
        yield
    except ClearheadError:
        raise
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError, ArithmeticError) as error:
        first = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(
            message(
                "%(model)s cannot be run on a %(what)s alone: %(why)s Use clearhead.observe on it, with the inputs it "
                "takes.",
                model=loaded.name,
                what=input_kind,
                why=first if first.endswith((".", "!", "?")) else f"{first}.",
            )
        ) from error

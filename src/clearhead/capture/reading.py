"""One text through one model: the record, with the tokens that name its rows and columns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.capture.models import Loaded
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.errors import ModelError
from clearhead.saying import say


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the patches of a picture lie: token `first + r * cols + c` is the patch in row r and column c.

    Attributes:
        rows, cols: patches down and across.
        first: how many tokens come before the patches.
        pixels: (height, width, 3) uint8, the picture as the model saw it: height is a multiple of rows, width of cols.
    """

    rows: int
    cols: int
    first: int
    pixels: Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read` and `read_picture` give.

    Attributes:
        record: module name -> AttentionMatrix (1, H, L, L), in layer order.
        tokens: the L tokens as the tokenizer writes them, special ones included; of a picture, "r,c" for a patch.
        model_name: what to call the model.
        token_ids: the L ids; of a picture, 0..L - 1, as no patch comes twice.
        special: for each token, whether the tokenizer or the model added it ([CLS], [SEP] and their like).
        segments: for each token, 0 for the first text and 1 for the second.
        grid: where the patches of a picture lie; None for a text.
    """

    record: Record
    tokens: list[str]
    model_name: str
    token_ids: list[int]
    special: list[bool]
    segments: list[int]
    grid: Grid | None = None


def read(loaded: Loaded, text: str, *, second: str | None = None, max_bytes: int | None = None) -> Reading:
    """Run one text (or a pair of texts) through the model and record every head.

    Args:
        loaded: from `load`.
        text: not empty; at most `loaded.max_length` tokens.
        second: a second text, read together with the first as the tokenizer pairs them.
        max_bytes: as of `observe`; layers past it are listed in the record's `missed`.

    Returns:
        The Reading.

    Raises:
        ModelError: the text is empty, or longer than the model takes (the message says both lengths); or the model
            reads pictures.

    Memory: queries and keys of every layer; no weights are stored.
    """
    if loaded.reads != "text":
        raise ModelError(
            say("%(model)s reads pictures, not text. Give it a picture, or choose a model of text.", model=loaded.name)
        )
    for value, refused in (
        (text, say("text is empty. Give at least one word.")),
        (second, say("second is empty. Give at least one word.")),
    ):
        if value is not None and not value.strip():
            raise ModelError(refused)
    encoded = loaded.tokenizer(text, second, return_tensors="pt", return_special_tokens_mask=True, verbose=False)
    special = encoded.pop("special_tokens_mask")[0].bool().tolist()
    ids = encoded["input_ids"][0].tolist()
    if not ids:
        raise ModelError(say("the tokenizer made no token of the text. Give at least one word."))
    known = _vocabulary(loaded.model)
    if known is not None and max(ids) >= known:
        raise ModelError(
            say(
                "the tokenizer of %(model)s gives token %(token)s, and the model knows %(known)s tokens. Tokenizer and "
                "weights belong to different models: copy both from one.",
                model=loaded.name,
                token=max(ids),
                known=known,
            )
        )
    if len(ids) > loaded.max_length:
        raise ModelError(
            say(
                "the text is %(length)s tokens long and %(model)s takes at most %(most)s (special tokens included). "
                "Cut %(more)s tokens.",
                length=len(ids),
                model=loaded.name,
                most=loaded.max_length,
                more=len(ids) - loaded.max_length,
            )
        )
    with torch.inference_mode(), observe(loaded.model, max_bytes=max_bytes) as record:
        loaded.model(**encoded)
    segments = encoded.sequence_ids(0) if encoded.is_fast else [0] * len(ids)
    return Reading(
        record=record,
        tokens=loaded.tokenizer.convert_ids_to_tokens(ids),
        model_name=loaded.name,
        token_ids=ids,
        special=special,
        segments=_fill(segments),
    )


def _vocabulary(model: torch.nn.Module) -> int | None:
    """How many tokens have an embedding, where the model says so."""
    try:
        count = getattr(model.get_input_embeddings(), "num_embeddings", None)  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return count if isinstance(count, int) else None


def _fill(segments: list[int | None]) -> list[int]:
    """Give each special token (None) the segment of the token before it, as a closing [SEP] belongs to its text."""
    filled, current = [], 0
    for segment in segments:
        current = current if segment is None else segment
        filled.append(current)
    return filled

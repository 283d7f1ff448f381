"""One text through one model: the record, with the tokens that name its rows and columns."""

from dataclasses import dataclass

import torch

from clearhead.capture.models import Loaded
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.errors import ModelError


@dataclass(frozen=True, slots=True)
class Reading:
    """What `read` gives.

    Attributes:
        record: module name -> AttentionMatrix (1, H, L, L), in layer order.
        tokens: the L tokens as the tokenizer writes them, special ones included.
        model_name: what to call the model.
        token_ids: the L ids.
        special: for each token, whether the tokenizer added it ([CLS], [SEP] and their like).
        segments: for each token, 0 for the first text and 1 for the second.
    """

    record: Record
    tokens: list[str]
    model_name: str
    token_ids: list[int]
    special: list[bool]
    segments: list[int]


def read(loaded: Loaded, text: str, *, second: str | None = None) -> Reading:
    """Run one text (or a pair of texts) through the model and record every head.

    Args:
        loaded: from `load`.
        text: not empty; at most `loaded.max_length` tokens.
        second: a second text, read together with the first as the tokenizer pairs them.

    Returns:
        The Reading.

    Raises:
        ModelError: the text is empty, or longer than the model takes; the message says both lengths.

    Memory: queries and keys of every layer; no weights are stored.
    """
    for name, value in (("text", text), ("second", second)):
        if value is not None and not value.strip():
            raise ModelError(f"{name} is empty. Give at least one word.")
    encoded = loaded.tokenizer(text, second, return_tensors="pt", return_special_tokens_mask=True, verbose=False)
    special = encoded.pop("special_tokens_mask")[0].bool().tolist()
    ids = encoded["input_ids"][0].tolist()
    if not ids:
        raise ModelError("the tokenizer made no token of the text. Give at least one word.")
    if len(ids) > loaded.max_length:
        raise ModelError(
            f"the text is {len(ids)} tokens long and {loaded.name} takes at most {loaded.max_length} "
            f"(special tokens included). Cut {len(ids) - loaded.max_length} tokens."
        )
    with torch.inference_mode(), observe(loaded.model) as record:
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


def _fill(segments: list[int | None]) -> list[int]:
    """Give each special token (None) the segment of the token before it, as a closing [SEP] belongs to its text."""
    filled, current = [], 0
    for segment in segments:
        current = current if segment is None else segment
        filled.append(current)
    return filled

"""Score every head, with one row per head and scores between 0 and 1; run the induction probe."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clearhead.capture.models.reading import Reading
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.capture.scoring.head_scores import HeadScores
from clearhead.capture.scoring.record_scores import score_calls
from clearhead.errors import OptionError


def scores(reading: Reading) -> list[HeadScores]:
    """Score every head of a reading, in layer order.

    Memory: O(L) per head. Cost: about four forward passes.
    """
    decoder = reading.decoder
    return score_record(
        reading.record,
        torch.tensor([reading.token_ids]),
        reading.special,
        decoder_token_ids=None if decoder is None else torch.tensor([decoder.token_ids]),
        decoder_special=None if decoder is None else decoder.special,
    )


def score_record(
    record: Record,
    token_ids: Tensor,
    special: Sequence[bool] | None = None,
    *,
    decoder_token_ids: Tensor | None = None,
    decoder_special: Sequence[bool] | None = None,
) -> list[HeadScores]:
    """Score every head of a record. The calls of one generation are scored together, as in `record.joined()`.

    Queries and keys are taken at their positions in the text. Queries that are padding do not count. For
    cross-attention, and for queries or keys that are not tokens, only `breadth` and `separator` are defined; the other
    scores are NaN.

    Args:
        record: from `observe`.
        token_ids: (B, T), what the model read: for a generation, the prompt and the generated tokens, with or without
            the last one, which has no query; for an encoder-decoder, the encoder's tokens.
        special: for each of the T positions, whether its token is a special token; None = none is.
        decoder_token_ids, decoder_special: the same for the decoder's tokens. Without them, the decoder's scores that
            depend on tokens (duplicate_token, induction, separator) are NaN.

    Raises:
        OptionError: the token ids are not a tensor, or their number differs from the record's positions.

    Warns (RuntimeWarning) about calls and batches that could not be scored.
    """
    return score_calls(
        record if isinstance(record, Record) else Record.of(record),
        token_ids,
        special,
        decoder_token_ids=decoder_token_ids,
        decoder_special=decoder_special,
    )


def induction_scores(model: nn.Module, *, vocab_size: int, length: int = 50, batch: int = 4, seed: int = 0) -> Tensor:
    """Run the usual probe for induction heads: random tokens, then the same again.

    In the second half, the position after a token's first occurrence predicts what comes next. A head's score is the
    mean weight it puts there.

    Args:
        model: a causal model that takes `input_ids`.
        vocab_size: tokens are drawn from 1..vocab_size - 1, without repetition if there are enough.
        length: the number of tokens before they repeat.
        batch: the number of sequences.
        seed: the seed of the draw.

    Returns:
        (layers, H), between 0 and 1, in layer order.

    Raises:
        OptionError: vocab_size is below 3, or length below 2.

    Source: Olsson et al. 2022, "In-context Learning and Induction Heads".
    """
    if vocab_size < 3 or length < 2:
        raise OptionError(
            f"vocab_size is {vocab_size} and length is {length}; the probe needs vocab_size >= 3 and length >= 2. Give "
            "the model's own vocabulary, model.config.vocab_size, and a longer text."
        )
    make = torch.Generator().manual_seed(seed)
    draws = [torch.randperm(vocab_size - 1, generator=make) + 1 for _ in range(batch)]
    first = torch.stack([draw.repeat(math.ceil(length / len(draw)))[:length] for draw in draws])
    device = next(model.parameters()).device
    tokens = torch.cat([first, first], dim=1).to(device)
    with torch.inference_mode(), observe(model) as record:
        model(input_ids=tokens)
    # Query length + i holds token i again; the key to look at is i + 1.
    return torch.stack([matrix.diagonal(1 - length)[..., 1:].mean((0, 2)) for matrix in record.values()])

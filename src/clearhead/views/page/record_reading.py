"""Turn a record into a reading that the views draw, with joined calls and named positions."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clearhead.capture.models.reading import Reading, Target
from clearhead.capture.models.token_text import readable
from clearhead.errors import OptionError
from clearhead.matrix import AttentionMatrix

if TYPE_CHECKING:
    from clearhead.capture import Record


def reading_of(
    record: "Record",
    *,
    tokens: Sequence[str] | None = None,
    decoder_tokens: Sequence[str] | None = None,
    title: str = "A record",
) -> Reading:
    """Return the reading that a view draws for a record.

    Args:
        record: from `observe`. The calls of a generation are drawn as one matrix; of a batch, the first entry is drawn.
        tokens: what the model read: for a generation, the prompt and the generated tokens; for an encoder-decoder, the
            encoder's tokens. None: positions are named by their numbers.
        decoder_tokens: the decoder's tokens of an encoder-decoder.
        title: its name.

    Raises:
        OptionError: nothing was captured, or the number of tokens differs from that of the positions.

    Warns (RuntimeWarning) about calls that are not drawn.
    """
    if not len(record):
        why = "; ".join(f"{missed.name}: {missed.reason}" for missed in record.missed)
        raise OptionError(
            "the record holds no attention, so there is nothing to draw. "
            + (f"Not captured: {why}" if why else "Run the model inside the `with observe(model)` block first.")
        )
    whole = record.joined()
    left_out = whole.missed[len(record.missed) :]
    if left_out:
        more = f" (and {len(left_out) - 1} more, see record.joined().missed)" if len(left_out) > 1 else ""
        warnings.warn(f"not drawn: {left_out[0].name}: {left_out[0].reason}{more}.", RuntimeWarning, stacklevel=3)
    generated = any(len(record.calls(name)) > 1 for name in record)
    names, decoder = (
        _named(whole, sequence, argument, given, generated)
        for sequence, argument, given in (("input", "tokens", tokens), ("decoder", "decoder_tokens", decoder_tokens))
    )
    return Reading(
        record=_first(whole),
        tokens=names,
        model_name=title,
        token_ids=_same_word(names),
        special=[False] * len(names),
        segments=[0] * len(names),
        decoder=Target(decoder, _same_word(decoder), [False] * len(decoder)) if decoder else None,
    )


def _first(record: "Record") -> "Record":
    """Return the first entry of the batch."""
    matrices = {name: _first_entry(matrix) for name, matrix in record.items()}
    first = type(record).of(matrices, {name: record.positions(name)[-1] for name in record})
    first.missed, first.read = list(record.missed), dict(record.read)
    return first


def _first_entry(matrix: AttentionMatrix) -> AttentionMatrix:
    if matrix.shape[0] == 1:
        return matrix
    value, lse = (None if part is None else part[:1] for part in (matrix._value, matrix._lse))
    return matrix._like(matrix._logits.batch(slice(0, 1)), value, lse)


def _named(whole: "Record", sequence: str, argument: str, given: Sequence[str] | None, generated: bool) -> list[str]:
    """Return names for a sequence's positions, without the last token of a generation, which the model never read."""
    size = whole.length(sequence)
    if given is None:
        return [str(place) for place in range(size)]
    if isinstance(given, str):
        raise OptionError(f"{argument} is one string. Give a list of tokens, one per position.")
    if len(given) == size or (generated and len(given) == size + 1):
        return readable([str(token) for token in given])[:size]
    if not size:
        subject = "decoder" if sequence == "decoder" else "tokens of the model's input"
        raise OptionError(f"{argument} was given, and no matrix of the record is about the {subject}. Leave it out.")
    which = " of the decoder" if sequence == "decoder" else ""
    also = f", or {size + 1} with the last one generated" if generated else ""
    raise OptionError(
        f"{len(given)} {argument} were given for {size} positions{which}. Give one per position{also}, or none."
    )


def _same_word(tokens: Sequence[str]) -> list[int]:
    """Return a number for each token, equal for equal tokens, as ids for the scores."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(token, len(numbers)) for token in tokens]

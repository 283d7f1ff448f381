"""read(): run a text through a model; its tokens name the rows and columns of the record."""

from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from clearhead.capture.models.input_checks import (
    check_characters,
    check_length,
    check_no_picture_token,
    check_vocabulary,
    running,
)
from clearhead.capture.models.loading import Loaded
from clearhead.capture.models.token_text import letters, pieces_of
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.errors import ModelError
from clearhead.messages import Message, message
from clearhead.printing import count

UNKNOWN_SHOWN = 5  # parts of a text that a note names
TOKENS_SHOWN = 12  # in the repr of a reading
_STARTS = ("decoder_start_token_id", "bos_token_id", "pad_token_id")


@dataclass(frozen=True, slots=True)
class Grid:
    """The grid of patches of a picture: token `first + r * (cols + row_gap) + c` is the patch in row r and column c.

    Attributes:
        rows, cols: patches down and across.
        first: the number of tokens before the patches.
        pixels: (height, width, 3) uint8, the picture as the model saw it; height is a multiple of rows, width of cols.
        row_gap: the number of other tokens between two rows.
    """

    rows: int
    cols: int
    first: int
    pixels: Tensor
    row_gap: int = 0

    @property
    def stop(self) -> int:
        """The token after the last patch."""
        return self.first + self.rows * (self.cols + self.row_gap) - self.row_gap

    def places(self) -> list[int]:
        """Return the tokens of the patches, row by row."""
        step = self.cols + self.row_gap
        return [self.first + row * step + col for row in range(self.rows) for col in range(self.cols)]


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound that a model heard: token i is the frame from `i * seconds` to `(i + 1) * seconds`.

    Attributes:
        seconds: the duration of a frame.
        duration: the duration of the sound; the model hears silence after it.
        peaks: (frames,) float32, the largest amplitude in each frame, 0 to 1.
    """

    seconds: float
    duration: float
    peaks: Tensor

    @property
    def frames(self) -> int:
        """The number of tokens that the sound fills; the tokens after them are silence."""
        return max(1, min(len(self.peaks), round(self.duration / self.seconds)))


@dataclass(frozen=True, slots=True)
class Target:
    """The input of an encoder-decoder's decoder: its tokens, their ids, and whether each is special."""

    tokens: list[str]
    token_ids: list[int]
    special: list[bool]


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of `read`, `read_picture`, `read_with_picture` and `read_sound`.

    Attributes:
        record: module name -> AttentionMatrix, in layer order: (1, H, L, L), except for a decoder's attention.
        tokens: the text of the L tokens, special ones included; for a picture, "r,c" for a patch; for a sound, the
            moment at which a frame begins.
        model_name: the display name of the model.
        token_ids: the L ids; for a picture, 0..L - 1, because patches do not repeat.
        special: for each token, whether the tokenizer or the model added it ([CLS], [SEP] and the like).
        segments: for each token, 0 for the first text and 1 for the second.
        grid: the grid of patches of a model of pictures; None for any other.
        pictures: the pictures among the tokens of a text, in its order, each tile of a picture for itself.
        sound: the sound whose frames the tokens are; None for any other model.
        decoder: the decoder's input, for an encoder-decoder with a target; None for any other model.
        note: sentences about parts of the model that are not shown, or not trained; None if there are none.
        pieces: for each token, the text it was made from, with the space before it; None if the tokenizer does not say.
    """

    record: Record
    tokens: list[str]
    model_name: str
    token_ids: list[int]
    special: list[bool]
    segments: list[int]
    grid: Grid | None = None
    decoder: Target | None = None
    note: str | None = None
    pieces: list[str] | None = None
    pictures: tuple[Grid, ...] = ()
    sound: Sound | None = None

    def __repr__(self) -> str:
        """The model, the first tokens, and the record: a few lines, however long the text is."""
        shown = [repr(token) for token in self.tokens[:TOKENS_SHOWN]] + ["…"] * (len(self.tokens) > TOKENS_SHOWN)
        lengths = count(len(self.tokens), "token")
        if self.decoder is not None:
            lengths += f" and {len(self.decoder.tokens):,} of the decoder"
        return f"Reading({self.model_name!r}, {lengths}: {' '.join(shown)})\n{self.record!r}"


def read(
    loaded: Loaded,
    text: str,
    *,
    second: str | None = None,
    target: str | None = None,
    max_bytes: int | str | None = None,
) -> Reading:
    """Run one text (or a pair of texts) through the model and record every head.

    Args:
        loaded: from `load`.
        text: not empty; at most `loaded.max_length` tokens.
        second: a second text, read together with the first as the tokenizer pairs them.
        target: the decoder's input for an encoder-decoder, as in training: a translation of the text, for example.
            Without it only the encoder runs, and the reading's `note` says so.
        max_bytes: as in `observe`; layers past it are listed in the record's `missed`.

    Returns:
        The Reading.

    Raises:
        ModelError: the text is empty, or longer than the model's maximum (the message says both lengths); or the model
            does not read text, has no decoder for a target, or cannot run with a text as its only input.

    Memory: queries and keys of every layer; no weights are stored.
    """
    _check_texts(loaded, text, second, target)
    encoded = loaded.tokenizer(text, second, return_tensors="pt", return_special_tokens_mask=True, verbose=False)
    special = encoded.pop("special_tokens_mask")[0].bool().tolist()
    ids = encoded["input_ids"][0].tolist()
    check_length(loaded, len(ids))
    check_vocabulary(loaded, ids)
    decoder = None if target is None else decoder_input(loaded, target)
    with running(loaded, "text"), torch.inference_mode(), observe(loaded.model, max_bytes=max_bytes) as record:
        _run(loaded, encoded, decoder)
    lost = unknown_note(loaded, ids, encoded if encoded.is_fast and second is None else None, text)
    segments = encoded.sequence_ids(0) if encoded.is_fast else [0] * len(ids)
    note = None
    if loaded.has_decoder and decoder is None:
        note = message("The encoder alone is shown: its decoder reads a text of its own, given by --target (target=).")
    return Reading(
        record=record.joined(),
        tokens=letters(loaded.tokenizer, ids),
        model_name=loaded.name,
        token_ids=ids,
        special=special,
        segments=_fill(segments),
        decoder=decoder,
        note=joined_notes(loaded.note, lost, note),
        pieces=pieces_of(encoded, special, text, second or "") if encoded.is_fast else None,
    )


def _check_texts(loaded: Loaded, text: str, second: str | None, target: str | None) -> None:
    if loaded.reads == "pictures":
        raise ModelError(
            message(
                "%(model)s reads pictures, not text. Give it a picture, or choose a model that reads text.",
                model=loaded.name,
            )
        )
    if loaded.reads == "sound":
        raise ModelError(
            message(
                "%(model)s hears sound, and was given only words. Give it a sound, with the words that are said in it.",
                model=loaded.name,
            )
        )
    check_no_picture_token(loaded, text)
    for value, refused in (
        (text, message("text is empty. Give at least one word.")),
        (second, message("second is empty. Give at least one word.")),
        (target, message("target is empty. Give at least one word.")),
    ):
        if value is not None and not value.strip():
            raise ModelError(refused)
        check_characters(value or "")
    if target is not None and not loaded.has_decoder:
        raise ModelError(
            message(
                "%(model)s is not an encoder-decoder, so it takes no target. Leave the target out.", model=loaded.name
            )
        )


def _run(loaded: Loaded, encoded: Any, decoder: Any) -> None:
    """Run the model; without a target, only the encoder of an encoder-decoder."""
    if loaded.has_decoder and decoder is None:
        _call(loaded.model.get_encoder(), encoded)  # type: ignore[operator]
    elif decoder is not None:
        loaded.model(
            input_ids=encoded["input_ids"],
            attention_mask=encoded.get("attention_mask"),
            decoder_input_ids=torch.tensor([decoder.token_ids]),
        )
    else:
        loaded.model(**encoded)


def joined_notes(*sentences: Message | None) -> Message | None:
    """Return sentences as one message, None if there are none."""
    whole = None
    for sentence in sentences:
        if sentence is not None:
            whole = sentence if whole is None else message("%(first)s %(second)s", first=whole, second=sentence)
    return whole


def unknown_note(loaded: Loaded, ids: list[int], encoded: Any = None, text: str = "") -> Message | None:
    """Return a sentence about the parts of a text that the tokenizer has no token for, or None.

    Args:
        loaded: its tokenizer may have a token for unknown text, such as [UNK].
        ids: the tokens.
        encoded: a fast tokenizer's output for one text, which maps tokens to the text; None if not known.
        text: the text.
    """
    unknown = getattr(loaded.tokenizer, "unk_token_id", None)
    places = [place for place, number in enumerate(ids) if number == unknown]
    if unknown is None or not places:
        return None
    spans = [] if encoded is None else [encoded.encodings[0].offsets[place] for place in places]
    parts = list(dict.fromkeys(text[start:stop] for start, stop in spans if stop > start))
    shown = ", ".join(f"“{part[:20]}”" for part in parts[:UNKNOWN_SHOWN])
    if parts == [str(loaded.tokenizer.unk_token)]:  # the user typed the unknown token itself
        return None
    return message(
        "The tokenizer has no token for %(parts)s: the model reads %(token)s there.",
        parts=shown + (" …" if len(parts) > UNKNOWN_SHOWN else "") if parts else message("part of the text"),
        token=str(loaded.tokenizer.unk_token),
    )


def decoder_input(loaded: Loaded, target: str) -> Target:
    """Return the decoder's input for a target: the start token, then the target's tokens without an end token.

    Raises:
        ModelError: the target is too long for the model.
    """
    ids = loaded.tokenizer(text_target=target, verbose=False)["input_ids"]
    numbers = [getattr(loaded.model.config, name, None) for name in _STARTS]
    start = next((number for number in numbers if number is not None), 0)
    ends = ids and ids[-1] == loaded.tokenizer.eos_token_id
    ids = ids[:-1] if ends else ids
    ids = ids if ids[:1] == [start] else [int(start), *ids]  # Whisper's tokenizer begins with it
    check_length(loaded, len(ids), message("the target"))
    special = set(loaded.tokenizer.all_special_ids)
    return Target(
        tokens=letters(loaded.tokenizer, ids),
        token_ids=ids,
        special=[place == 0 or number in special for place, number in enumerate(ids)],
    )


def _call(module: Any, encoded: Any) -> None:
    """Run an encoder on those outputs of a tokenizer that it accepts."""
    takes = signature(module.forward).parameters
    module(**{name: value for name, value in encoded.items() if name in takes})


def _fill(segments: list[int | None]) -> list[int]:
    """Give each special token (None) the segment of the token before it: a closing [SEP] belongs to its text."""
    filled, current = [], 0
    for segment in segments:
        current = current if segment is None else segment
        filled.append(current)
    return filled

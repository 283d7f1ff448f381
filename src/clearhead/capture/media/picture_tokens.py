"""picture_tokens(): find the pictures among the tokens of a vision-language model, to relate words and patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearhead.errors import CaptureError, OptionError
from clearhead.matrix import AttentionMatrix

_RESAMPLERS = ("perceiver_config", "qformer_config", "resampler_config")  # these make latents, which have no place


@dataclass(frozen=True, slots=True)
class PictureTokens:
    """One picture, one tile of it, or one frame of a video, among the tokens of a text.

    Attributes:
        start: the position of its first token; the others follow row by row.
        rows, cols: its grid of tokens.
        entry: which text of the batch it is in.
        row_gap: the number of other tokens between two rows: 1 if the model ends each row with a special token.
    """

    start: int
    rows: int
    cols: int
    entry: int = 0
    row_gap: int = 0

    @property
    def stop(self) -> int:
        """The position after its last patch."""
        return self.start + self.rows * (self.cols + self.row_gap) - self.row_gap

    def seen_by(self, A: AttentionMatrix, word: int) -> Tensor:
        """Return (H, rows, cols): the weight that a word puts on each patch.

        Args:
            A: a layer's attention over the whole text, from a record or `record.generated()`.
            word: the position of the word's token.

        Raises:
            OptionError: A has no such token, or does not include the picture.
        """
        self._check(A, word, 2)
        weights = A[self.entry, :, word, self.start : self.stop]
        return F.pad(weights, (0, self.row_gap)).unflatten(-1, (self.rows, -1))[..., : self.cols]

    def readers(self, A: AttentionMatrix, row: int, col: int) -> Tensor:
        """Return (H, L): the weight that each token of the text puts on one patch."""
        place = self._place(row, col)
        self._check(A, place, 3)
        return A[self.entry, :, :, place]

    def seen_from(self, A: AttentionMatrix, row: int, col: int) -> Tensor:
        """Return (H, S): the weight that one patch, as a query, puts on each token of the text."""
        place = self._place(row, col)
        self._check(A, place, 2)
        return A[self.entry, :, place]

    def received(self, A: AttentionMatrix, words: Sequence[int] | slice | None = None) -> Tensor:
        """Return (H, rows, cols): the mean weight that words put on each patch.

        Args:
            A: a layer's attention over the whole text.
            words: the positions of the words' tokens, or a slice of positions; None = every token after the picture.

        Raises:
            OptionError: no words are named, or A has no such tokens.

        Memory: H · words · patches weights.
        """
        length = A.shape[2]
        if words is None:
            words = slice(self.stop, length)
        places = list(range(length))[words] if isinstance(words, slice) else [int(word) for word in words]
        if not places:
            raise OptionError(f"no words are named, of {length} tokens. Give the positions of at least one token.")
        return torch.stack([self.seen_by(A, place) for place in places]).float().mean(0)

    def _place(self, row: int, col: int) -> int:
        if not (0 <= row < self.rows and 0 <= col < self.cols):
            raise OptionError(
                f"there is no patch ({row}, {col}): the grid has {self.rows} rows and {self.cols} columns."
            )
        return self.start + row * (self.cols + self.row_gap) + col

    def _check(self, A: AttentionMatrix, place: int, axis: int) -> None:
        batch, _, _, keys = A.shape
        name = "query" if axis == 2 else "key"
        if not 0 <= place < A.shape[axis]:
            raise OptionError(
                f"the matrix has no {name} {place}: it has {A.shape[axis]} (A.shape={tuple(A.shape)}). Give a matrix "
                "of the language model over the whole text, as record.generated() does of a generation."
            )
        if keys < self.stop or batch <= self.entry:
            raise OptionError(
                f"the picture is at positions {self.start}..{self.stop - 1} of text {self.entry}, and the matrix has "
                f"{batch} texts and {keys} keys. Give a matrix of the language model, not of the picture's encoder."
            )


def picture_tokens(
    model: nn.Module, inputs: Mapping[str, Any], grid: tuple[int, int] | None = None
) -> list[PictureTokens]:
    """Find the pictures among the tokens of a vision-language model.

    Args:
        model: a model of transformers that puts a token into the text for each patch, or for each group of patches:
            Qwen2-VL, Qwen2.5-VL, LLaVA, Pixtral, Idefics3, SmolVLM, PaliGemma, Gemma 3, InternVL and similar models.
        inputs: the processor's output, with which the model is called: `input_ids`, `image_grid_thw` or
            `video_grid_thw` of the Qwen models, `image_sizes` of Pixtral.
        grid: (rows, cols) of tokens of each picture; by default taken from the inputs, or else each unbroken run of
            picture tokens is a square.

    Returns:
        In text order, one entry per picture, per tile of a picture that is cut into tiles, or per (two) frames of a
        video.

    Raises:
        CaptureError: the model's configuration names no picture token, its picture tokens are latents that have no
            place in the picture (Idefics2, BLIP-2), words read the picture by cross-attention (Mllama), a picture is
            present at several sizes (LLaVA-NeXT), or its tokens do not form a grid.
        OptionError: inputs have no input_ids.

    Example:
        >>> import torch
        >>> from transformers import LlavaConfig
        >>> model = torch.nn.Linear(1, 1)
        >>> model.config = LlavaConfig(image_token_id=9)
        >>> picture_tokens(model, {"input_ids": torch.tensor([[1, 9, 9, 9, 9, 5]])})
        [PictureTokens(start=1, rows=2, cols=2, entry=0, row_gap=0)]
    """
    config: Any = getattr(model, "config", None)
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.dim() != 2:
        raise OptionError("inputs have no input_ids of shape (B, L). Give what the model is called with, as a mapping.")
    tokens = {kind: _token(config, kind) for kind in ("image", "video")}
    if not any(token is not None for token in tokens.values()):
        raise CaptureError(
            f"the configuration of {type(model).__name__} names no picture token (image_token_id), so which tokens are "
            "patches is not known. Make PictureTokens(start, rows, cols) yourself."
        )
    if grid is None:
        _check_each_is_a_patch(type(model).__name__, config)
    if _ends_rows(config):
        return _with_ended_rows(ids, tokens["image"], _sizes_in_tokens(config, inputs.get("image_sizes"), grid))
    sizes = {kind: iter(_grids(config, inputs.get(f"{kind}_grid_thw"))) for kind in tokens}
    pictures: list[PictureTokens] = []
    for entry, text in enumerate(ids.tolist()):
        for kind, start, stop in _runs(text, tokens):
            listed = None if inputs.get(f"{kind}_grid_thw") is None else sizes[kind]
            pictures.extend(_split(start, stop, entry, grid, listed))
    return pictures


def _check_each_is_a_patch(name: str, config: Any) -> None:
    """Raise CaptureError for a family whose picture tokens are not the patches of one grid."""
    resampler = next((part for part in _RESAMPLERS if getattr(config, part, None) is not None), None)
    if resampler is not None:
        raise CaptureError(
            f"{name} puts a picture into the text as latents (its configuration has {resampler}): each latent reads "
            "the whole picture, so none has a place in it. Ask its resampler's own matrices."
        )
    if getattr(getattr(config, "text_config", None), "cross_attention_layers", None):
        raise CaptureError(
            f"{name} puts one token into the text for a whole picture; words read its patches in the language model's "
            "cross-attention. Ask those matrices of the record: their keys are the patches, tile by tile."
        )
    if getattr(config, "image_grid_pinpoints", None):
        raise CaptureError(
            f"{name} puts a picture into the text at several sizes, the large one with a token after each row. Make "
            "PictureTokens(start, rows, cols, row_gap=1) for it, and PictureTokens(start, rows, cols) for the small "
            "one, yourself."
        )


def _ends_rows(config: Any) -> bool:
    """Whether a token ends each row of a picture, as in Pixtral."""
    return getattr(getattr(config, "vision_config", None), "model_type", None) == "pixtral"


def _sizes_in_tokens(config: Any, sizes: Any, grid: tuple[int, int] | None) -> Iterator[tuple[int, int]]:
    """Return the grid of tokens of each picture, from its size in pixels.

    Raises:
        CaptureError: neither the sizes nor a grid are given.
    """
    if grid is not None:
        return repeat(grid)
    if sizes is None:
        raise CaptureError("the rows of a picture are not known. Give inputs with `image_sizes`, or grid=(rows, cols).")
    side = int(config.vision_config.patch_size) * int(getattr(config, "spatial_merge_size", 1))
    return iter([(int(high) // side, int(wide) // side) for high, wide in torch.as_tensor(sizes).tolist()])


def _with_ended_rows(ids: Tensor, token: int | None, sizes: Iterator[tuple[int, int]]) -> list[PictureTokens]:
    """Return the pictures whose rows are runs of tokens, each followed by one other token.

    Raises:
        CaptureError: the rows in the text are not those of the sizes.
    """
    pictures = []
    for entry, text in enumerate(ids.tolist()):
        place = 0
        while token in text[place:]:
            place = text.index(token, place)
            rows, cols = next(sizes, (0, 0))
            row = [True] * cols + [False]
            size = rows * len(row)
            if not size or [number == token for number in text[place : place + size]] != row * rows:
                raise CaptureError(
                    f"the picture tokens from position {place} of text {entry} are not {rows} rows of {cols} with a "
                    "token after each, as image_sizes or grid say. Give the inputs that the processor made."
                )
            pictures.append(PictureTokens(place, rows, cols, entry, row_gap=1))
            place += size
    return pictures


def _token(config: Any, kind: str) -> int | None:
    for name in (f"{kind}_token_id", f"{kind}_token_index"):
        token = getattr(config, name, None)
        if isinstance(token, int):
            return token
    return None


def _grids(config: Any, sizes: Tensor | None) -> list[tuple[int, int]]:
    """Return the grid of tokens of each picture and frame. Qwen's sizes count patches, which are merged into tokens."""
    if sizes is None:
        return []
    merged = int(getattr(getattr(config, "vision_config", None), "spatial_merge_size", 1))
    return [(high // merged, wide // merged) for frames, high, wide in sizes.tolist() for _ in range(frames)]


def _runs(text: list[int], tokens: Mapping[str, int | None]) -> Iterator[tuple[str, int, int]]:
    """Yield (kind, start, stop) of each unbroken run of picture tokens."""
    kinds = {token: kind for kind, token in tokens.items() if token is not None}
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or text[place] != text[start]:
            if text[start] in kinds:
                yield kinds[text[start]], start, place
            start = place


def _split(
    start: int, stop: int, entry: int, grid: tuple[int, int] | None, listed: Iterator[tuple[int, int]] | None
) -> Iterator[PictureTokens]:
    """Split a run of picture tokens into grids, one after the other."""
    first, length = start, stop - start
    while start < stop:
        side = isqrt(length)
        if grid is not None:
            rows, cols = grid
        elif listed is not None:
            rows, cols = next(listed, (0, 0))
        else:
            rows, cols = (side, side) if side * side == length else (0, 0)
        if rows * cols < 1 or start + rows * cols > stop:
            raise CaptureError(
                f"the {length} picture tokens at positions {first}..{stop - 1} of text {entry} do not make "
                + (f"grids of {grid[0]} × {grid[1]}" if grid else "a grid: they are not the square of a number, or not "
                   "what the inputs say")
                + ". Give grid=(rows, cols), or make PictureTokens(start, rows, cols) yourself."
            )  # fmt: skip
        yield PictureTokens(start, rows, cols, entry)
        start += rows * cols


def picture_pixels(pixels: Tensor, mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> Tensor:
    """Turn a processor's pixels, (3, height, width), into a picture, (height, width, 3) in 0..1, to draw on.

    Args:
        pixels: one picture.
        mean, std: the processor's `image_mean` and `image_std`, undone; None: the pixels are stretched to 0..1.
    """
    pixels = pixels.detach().float()
    if mean is not None and std is not None:
        pixels = pixels * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None]
    else:
        pixels = (pixels - pixels.min()) / (pixels.max() - pixels.min()).clamp(min=1e-12)
    return pixels.clamp(0, 1).permute(1, 2, 0).contiguous()

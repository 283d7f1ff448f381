"""read_picture(): run a picture through a model; its grid of patches names the rows and columns of the record."""

from __future__ import annotations

import warnings
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from clearhead.capture.models.input_checks import running
from clearhead.capture.models.loading import Loaded
from clearhead.capture.models.reading import Grid, Reading, joined_notes
from clearhead.capture.observing import observe
from clearhead.capture.positions import assumed
from clearhead.capture.record import Record
from clearhead.errors import ModelError
from clearhead.extras import needs
from clearhead.messages import Message, message

if TYPE_CHECKING:
    from PIL.Image import Image


def read_picture(loaded: Loaded, picture: str | Path | bytes | Image) -> Reading:
    """Run one picture through the model and record every head.

    Args:
        loaded: from `load`, a model that reads pictures and cuts them into a grid of patches (ViT, DeiT, DINOv2, BEiT,
            the picture half of CLIP).
        picture: a path, the bytes of a picture file, or a PIL image.

    Returns:
        The Reading; its `grid` says where each patch is and holds the pixels as the model saw them.

    Raises:
        ModelError: the model reads text, or its attention is not over one grid of patches; or the picture does not
            exist, cannot be read, or is too large (over 89 megapixels).

    Memory: queries and keys of every layer; no weights are stored.
    """
    if loaded.reads != "pictures":
        raise ModelError(
            message(
                "%(model)s reads %(what)s, not pictures alone. Give it that, or choose a model such as ViT.",
                model=loaded.name,
                what=message("sound") if loaded.reads == "sound" else message("text"),
            )
        )
    image = opened(picture)
    with running(loaded, "picture"):
        seen = loaded.processor(image, return_tensors="pt")["pixel_values"]
        with torch.inference_mode(), observe(loaded.model) as record:
            loaded.model(pixel_values=seen)
    rows, cols, first = _layout(loaded, seen, record)
    patches = [f"{row},{col}" for row in range(rows) for col in range(cols)]
    tokens = ["[CLS]", *(f"[extra {n}]" for n in range(1, first))][:first] + patches
    return Reading(
        record=_square(record.joined()),
        tokens=tokens,
        model_name=loaded.name,
        token_ids=list(range(len(tokens))),
        special=[True] * first + [False] * len(patches),
        segments=[0] * len(tokens),
        note=joined_notes(loaded.note, _not_shown(record)),
        grid=Grid(rows, cols, first, _pixels(loaded.processor, seen[0])),
    )


def opened(picture: str | Path | bytes | Image) -> Image:
    """Return a picture upright, as RGB.

    Raises:
        ModelError: it does not exist, cannot be read, or is too large.
    """
    with needs("models", message("reading a picture")):
        from PIL import Image, ImageOps, UnidentifiedImageError
    name = message("the picture") if not isinstance(picture, str | Path) else str(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if isinstance(picture, Image.Image):
                image = picture
            else:
                image = Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture)
            return ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise ModelError(message("%(name)s does not exist. Give the path of a picture file.", name=name)) from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise ModelError(
            message(
                "%(name)s has more than %(most)s pixels. Give a smaller copy.",
                name=name,
                most=f"{Image.MAX_IMAGE_PIXELS:,}",
            )
        ) from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ModelError(
            message(
                "%(name)s cannot be read as a picture (%(why)s). Give a PNG, JPEG or WebP file.", name=name, why=error
            )
        ) from error


def _layout(loaded: Loaded, seen: Tensor, record: Record) -> tuple[int, int, int]:
    """Return (rows, cols, first): the grid of patches, and the number of tokens before it."""
    size: Any = getattr(loaded.model.config, "patch_size", None)
    high, wide = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    height, width = seen.shape[-2:]
    shapes = {(A.shape[0], A.shape[2]) for A in _square(record).values()}
    if len(shapes) == 1 and high and wide and height % high == 0 and width % wide == 0:
        batch, length = next(iter(shapes))
        rows, cols = height // high, width // wide
        first = length - rows * cols
        if batch == 1 and 0 <= first <= 16:  # a class token, a distilled one, registers
            return rows, cols, first
    raise ModelError(
        message(
            "%(model)s does not attend over one grid of patches in all its layers, as ViT does (it may use windows, or "
            "drop patches), so there is no picture to draw it on. Use clearhead.observe on it and look at its "
            "matrices.",
            model=loaded.name,
        )
    )


def _square(record: Record) -> Record:
    """Return the layers in which patches attend to patches, without a pooling head (SigLIP)."""
    kept = {name: matrix for name, matrix in record.items() if matrix.shape[2] == matrix.shape[3]}
    squares = Record.of(kept, {name: assumed(matrix.shape[2], matrix.shape[3]) for name, matrix in kept.items()})
    squares.missed.extend(record.missed)
    return squares


def _not_shown(record: Record) -> Message | None:
    """Return a sentence that names the layers that `_square` leaves out."""
    others = [name for name, matrix in record.items() if matrix.shape[2] != matrix.shape[3]]
    if not others:
        return None
    return message("Not shown, as its queries are not the picture's patches: %(names)s.", names=", ".join(others))


def _pixels(processor: Any, seen: Tensor) -> Tensor:
    """Turn the model's input, (3, height, width), into (height, width, 3) uint8, undoing the normalisation."""
    if getattr(processor, "do_normalize", False):
        mean, spread = (torch.tensor(value, dtype=seen.dtype) for value in (processor.image_mean, processor.image_std))
        seen = seen * spread[:, None, None] + mean[:, None, None]
    if getattr(processor, "do_rescale", True):
        seen = seen / processor.rescale_factor
    return seen.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).contiguous()

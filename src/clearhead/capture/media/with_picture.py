"""read_with_picture(): run a text with a picture in it through a vision-language model, and name its patches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clearhead.capture.media.picture_tokens import PictureTokens, picture_pixels, picture_tokens
from clearhead.capture.media.pictures import opened
from clearhead.capture.models.chat_template import as_message, has_chat_template
from clearhead.capture.models.input_checks import check_characters, check_length, check_vocabulary, running
from clearhead.capture.models.loading import Loaded
from clearhead.capture.models.reading import Grid, Reading, joined_notes
from clearhead.capture.models.token_text import letters
from clearhead.capture.observing import observe
from clearhead.capture.record import Record
from clearhead.errors import CaptureError, ModelError
from clearhead.messages import message

if TYPE_CHECKING:
    from PIL.Image import Image

PATCH_PIXELS = 28  # a side of a patch in a picture that is drawn from its file


def read_with_picture(
    loaded: Loaded, text: str, picture: str | Path | bytes | Image, *, max_bytes: int | str | None = None
) -> Reading:
    """Run a text with one picture through a vision-language model and record every head of its language model.

    If the text does not say where the picture belongs (by the model's own token, such as `<image>`), the picture comes
    first: as the chat template puts it, or, without a template, as one token before the text.

    Args:
        loaded: from `load`, with `takes_picture` true: Qwen2-VL, LLaVA, Idefics3, PaliGemma and similar models.
        text: not empty; with the picture's tokens at most `loaded.max_length` tokens.
        picture: a path, the bytes of a picture file, or a PIL image.
        max_bytes: as in `observe`; layers past it are listed in the record's `missed`.

    Returns:
        The Reading. Its `pictures` say which tokens are patches; these count as special, as the model adds them.

    Raises:
        ModelError: the model takes no picture with its text; the text is empty, too long, or has several places for a
            picture; or the picture cannot be read.
        CaptureError: the patches have no place of their own in the text (see `picture_tokens`).

    Memory: queries and keys of every layer; no weights are stored.
    """
    if not loaded.takes_picture:
        raise ModelError(_reads_other_things(loaded))
    if not text.strip():
        raise ModelError(message("text is empty. Give at least one word."))
    check_characters(text)
    image = opened(picture)
    with running(loaded, "text with a picture"):
        inputs = dict(loaded.processor(text=[_prompt(loaded, text)], images=[image], return_tensors="pt"))
    ids = inputs["input_ids"][0].tolist()
    check_length(loaded, len(ids), message("the text, with its picture,"))
    check_vocabulary(loaded, ids)
    places = picture_tokens(loaded.model, inputs)
    if not places:
        raise ModelError(
            message(
                "the tokenizer of %(model)s made no token of the picture, so the model would not see it. Check that "
                "its processor and its configuration name the same picture token.",
                model=loaded.name,
            )
        )
    observed = observe(loaded.model, max_bytes=max_bytes)
    with running(loaded, "text with a picture"), torch.inference_mode(), observed as record:
        loaded.model(**inputs)
    kept, left_out = _of_the_text(loaded, record.joined(), len(ids))
    special = set(loaded.tokenizer.all_special_ids)
    names, added = letters(loaded.tokenizer, ids), [number in special for number in ids]
    grids = _grids(loaded, places, inputs, image)
    for number, (place, grid) in enumerate(zip(places, grids, strict=True)):
        added[place.start : place.stop] = [True] * (place.stop - place.start)
        for patch, token in enumerate(grid.places()):
            row, col = divmod(patch, grid.cols)
            names[token] = f"{row},{col}" if len(grids) == 1 else f"{number}:{row},{col}"
    not_shown = message("Not shown: the %(count)s layers in which patches attend to patches alone.", count=left_out)
    return Reading(
        record=kept,
        tokens=names,
        model_name=loaded.name,
        token_ids=ids,
        special=added,
        segments=[0] * len(ids),
        note=joined_notes(loaded.note, not_shown if left_out else None),
        pictures=tuple(grids),
    )


def _reads_other_things(loaded: Loaded) -> str:
    if loaded.no_picture is not None:
        return message(
            "%(model)s is a vision-language model and cannot see here: %(why)s",
            model=loaded.name,
            why=loaded.no_picture,
        )
    if loaded.reads == "text":
        return message(
            "%(model)s reads text alone, and was given a picture. Leave the picture out, or give a vision-language "
            "model (Qwen2-VL, LLaVA, Idefics3) in a folder with its preprocessor_config.json.",
            model=loaded.name,
        )
    return message(
        "%(model)s does not read a text with a picture in it. Give it one of the two, or choose a vision-language "
        "model.",
        model=loaded.name,
    )


def _prompt(loaded: Loaded, text: str) -> str:
    """Return the text with one place for the picture.

    Raises:
        ModelError: it has several.
    """
    token = str(loaded.processor.image_token)
    if (count := text.count(token)) > 1:
        raise ModelError(
            message(
                "the text has %(count)s places for a picture, %(token)s, and one picture was given. Keep one of them.",
                count=count,
                token=token,
            )
        )
    if count:
        return text
    if has_chat_template(loaded):
        return as_message(loaded, text, picture=True)
    return f"{token}\n{text}"


def _of_the_text(loaded: Loaded, record: Record, length: int) -> tuple[Record, int]:
    """Return the layers of the language model, and how many others were recorded: those of the picture's encoder."""
    part: Any = loaded.model.get_decoder()  # type: ignore[operator]
    names = {module: name for name, module in loaded.model.named_modules()}
    inside = f"{names[part]}." if names.get(part) else ""
    kept = {name: A for name, A in record.items() if name.startswith(inside) and tuple(A.shape[2:]) == (length, length)}
    chosen = Record.of(kept, {name: record.positions(name)[-1] for name in kept})
    chosen.missed, chosen.read = list(record.missed), dict(record.read)
    return chosen, len(record) - len(kept)


def _grids(loaded: Loaded, places: Sequence[PictureTokens], inputs: dict[str, Any], image: Image) -> list[Grid]:
    """Return the grids of the pictures, with the pixels that the model saw.

    Raises:
        CaptureError: there are not as many pictures as runs of picture tokens.
    """
    seen: Tensor | None = inputs.get("pixel_values")
    sizes = inputs.get("image_sizes")
    pictures: list[Tensor] | None = None
    if seen is not None and seen.dim() >= 4:
        pictures = list(seen.flatten(0, seen.dim() - 4))
        if len(pictures) != len(places):
            raise CaptureError(
                f"{loaded.name} was given {len(pictures)} pictures or tiles, and its text has picture tokens in "
                f"{len(places)} places, so which belong together is not known. Use clearhead.observe and "
                "capture.picture_tokens on it."
            )
    grids = []
    for number, place in enumerate(places):
        if pictures is None:  # its input is a row a patch, as in Qwen2-VL: it is resized, and nothing is cut off
            whole = image.resize((place.cols * PATCH_PIXELS, place.rows * PATCH_PIXELS))
            pixels = torch.from_numpy(np.array(whole))
        else:
            pixels = pictures[number]
            if sizes is not None and len(sizes) == len(pictures):
                high, wide = (int(side) for side in sizes[number])
                pixels = pixels[:, :high, :wide]  # the rest is padding
            pixels = _as_bytes(loaded, pixels)
        grids.append(Grid(place.rows, place.cols, place.start, pixels, place.row_gap))
    return grids


def _as_bytes(loaded: Loaded, pixels: Tensor) -> Tensor:
    processor = loaded.processor.image_processor
    is_normal = getattr(processor, "do_normalize", False)
    mean, std = (processor.image_mean, processor.image_std) if is_normal else (None, None)
    return (picture_pixels(pixels, mean, std) * 255).round().to(torch.uint8)

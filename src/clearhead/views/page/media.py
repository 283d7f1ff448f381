"""The pictures and the sound of a reading, as a page draws them."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F

from clearhead.extras import needs
from clearhead.views.media.looks import pictures_of

if TYPE_CHECKING:
    from clearhead.capture import Reading

WAVE = 512  # numbers of a drawn sound, at most


def pictures(reading: "Reading") -> list[dict[str, Any]]:
    """Return the pictures that the model saw: `src` (a data: address), `rows`, `cols`, `first` and `gap`.

    The patch in row r and column c is token `first + r * (cols + gap) + c` of the reading's own tokens.
    """
    if not (grids := pictures_of(reading)):
        return []
    with needs("models", "drawing a picture"):
        from PIL import Image

    drawn = []
    for grid in grids:
        file = BytesIO()
        Image.fromarray(grid.pixels.cpu().numpy()).save(file, "JPEG", quality=88)
        source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
        drawn.append({"src": source, "rows": grid.rows, "cols": grid.cols, "first": grid.first, "gap": grid.row_gap})
    return drawn


def sound(reading: "Reading") -> dict[str, Any] | None:
    """Return the sound that the model heard, or None.

    Returns:
        `seconds` of a token, `duration`, `heard` (how many of the reading's tokens it fills), and `wave`, at most 512
        amplitudes, 0 to 1, over those tokens.
    """
    heard = reading.sound
    if heard is None:
        return None
    wave = F.adaptive_max_pool1d(heard.peaks[None, : heard.frames], min(heard.frames, WAVE))[0]
    return {
        "seconds": heard.seconds,
        "duration": heard.duration,
        "heard": heard.frames,
        "wave": [round(float(value), 3) for value in wave],
    }

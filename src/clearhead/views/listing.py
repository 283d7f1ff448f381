"""List the numbers of the pictures, which `clearhead see --json` prints."""

from typing import TYPE_CHECKING, Any

from clearhead.views.links import LINKS
from clearhead.views.maps import numbers
from clearhead.views.media.looks import pictures_of
from clearhead.views.score_tables import Table, tables
from clearhead.views.token_axes import TokenAxis, token_axes

if TYPE_CHECKING:
    from clearhead.capture import Reading
    from clearhead.matrix import AttentionMatrix

FORMAT = "clearhead.listing/1"
ALL_WEIGHTS = 1_000_000  # a named head with at most this many weights is listed in full


def listing(reading: "Reading", *, layer: int | None = None, head: int | None = None) -> dict[str, Any]:
    """Return the numbers of a reading as JSON-ready data.

    Args:
        reading: one text through one model.
        layer, head: only these; None: all.
    Returns:
        `format`, `model`, `tokens`, `decoder_tokens` (for an encoder-decoder with a target), `note` (what is not
        shown), `missed`; `pictures` (each with the token of its `first` patch, `rows`, `cols` and `row_gap`) and
        `sound` (the `seconds` of a token and the `duration`; None without sound); `layers`, each with its `name` and
        the tokens and positions of its `queries` and `keys`; and `heads`, each with its `layer`, `name`, `head`,
        `scores` (see scores.py) and `links`: for each query its strongest keys as `[key, weight]`, largest first, with
        keys counted along the layer's own keys. If both layer and head are given, the head also has `weights`, the rows
        of the whole matrix, if they are at most a million.
    """
    scores = tables(reading)
    heads = [
        entry
        for number, (name, matrix) in enumerate(reading.record.items())
        if layer is None or number == layer
        for entry in _heads(number, name, matrix, head, scores)
    ]
    if layer is not None and head is not None:
        matrix = list(reading.record.values())[layer]
        if matrix.shape[2] * matrix.shape[3] <= ALL_WEIGHTS:
            heads[0]["weights"] = _rounded(numbers(matrix[0, head]))
    return {
        "format": FORMAT,
        "model": reading.model_name,
        "tokens": list(reading.tokens),
        "decoder_tokens": None if reading.decoder is None else list(reading.decoder.tokens),
        "note": reading.note,
        "pictures": [
            {"first": grid.first, "rows": grid.rows, "cols": grid.cols, "row_gap": grid.row_gap}
            for grid in pictures_of(reading)
        ],
        "sound": None
        if reading.sound is None
        else {"seconds": reading.sound.seconds, "duration": reading.sound.duration},
        "layers": [
            {"name": name, **{side: _axis(line) for side, line in zip(("queries", "keys"), axes, strict=True)}}
            for name, axes in ((name, token_axes(reading, name)) for name in reading.record)
        ],
        "heads": heads,
        "missed": [{"name": missed.name, "reason": missed.reason} for missed in reading.record.missed],
    }


def _axis(line: TokenAxis) -> dict[str, Any]:
    return {"sequence": line.sequence, "positions": list(line.positions), "tokens": line.tokens}


def _heads(
    layer: int, name: str, matrix: "AttentionMatrix", only: int | None, scores: list[Table]
) -> list[dict[str, Any]]:
    values, indices = matrix.topk(min(LINKS, matrix.shape[-1]))
    weights, keys = numbers(values)[0], indices[0].tolist()
    return [
        {
            "layer": layer,
            "name": name,
            "head": head,
            "scores": {table.name: table.values[layer][head] for table in scores},
            "links": [
                [[key, weight] for key, weight in zip(row, weighed, strict=True) if weight > 0]
                for row, weighed in zip(keys[head], _rounded(weights[head]), strict=True)
            ],
        }
        for head in range(matrix.shape[1])
        if only is None or head == only
    ]


def _rounded(rows: Any) -> list[list[float]]:
    return [[float(f"{value:.6g}") for value in row] for row in rows.tolist()]

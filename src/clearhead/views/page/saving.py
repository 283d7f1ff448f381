"""saved(): a reading, or one of its heads, as a file: a picture (SVG, PNG, PDF) or numbers (CSV, JSON, Parquet)."""

import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from clearhead.errors import ExtraError, OptionError
from clearhead.messages import message
from clearhead.spreadsheet import inert
from clearhead.views.checks import check_head
from clearhead.views.links import LINKS
from clearhead.views.listing import ALL_WEIGHTS, listing
from clearhead.views.maps import numbers
from clearhead.views.token_axes import token_axes

if TYPE_CHECKING:
    from clearhead.capture import Reading

PICTURES: Final = {"svg": "image/svg+xml", "png": "image/png", "pdf": "application/pdf"}
NUMBERS: Final = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
COLUMNS: Final = ("layer", "head", "name", "query", "query_token", "key", "key_token", "weight")


def kinds() -> list[str]:
    """Return the kinds of files that can be written here."""
    missing = {"parquet"} if find_spec("pyarrow") is None else set()
    missing |= set(PICTURES) if find_spec("matplotlib") is None else set()
    return [kind for kind in (*PICTURES, *NUMBERS) if kind not in missing]


def saved(
    reading: "Reading",
    kind: str,
    *,
    layer: int | None = None,
    head: int | None = None,
    second: "Reading | None" = None,
) -> bytes:
    """Return the content of a file.

    Args:
        reading: one text or picture through one model.
        kind: one of `PICTURES` or `NUMBERS`.
        layer, head: one head; None for all. The table of one head has all its weights if they are at most a million,
            otherwise the strongest links of each query.
        second: another reading with the same number of tokens, for a picture of how the two models differ.

    Raises:
        OptionError: an unknown kind, or there is no such head.
        ExtraError: a library is missing: matplotlib for pictures, pyarrow for Parquet.
    """
    if layer is not None and head is not None:
        check_head(reading, layer, head)
    if kind in PICTURES:
        return _picture(reading, kind, layer, head, second)
    if kind == "json":
        return json.dumps(listing(reading, layer=layer, head=head), ensure_ascii=False).encode()
    if kind == "csv":
        text = StringIO()
        writer = csv.writer(text)
        writer.writerow(COLUMNS)
        writer.writerows(
            [inert(value) if isinstance(value, str) else value for value in row] for row in _rows(reading, layer, head)
        )
        return text.getvalue().encode()
    if kind == "parquet":
        return parquet(list(_rows(reading, layer, head)), COLUMNS)
    known = ", ".join((*PICTURES, *NUMBERS))
    raise OptionError(message("%(kind)r cannot be saved. Choose one of %(known)s.", kind=kind, known=known))


def _rows(reading: "Reading", layer: int | None, head: int | None) -> Iterator[tuple[Any, ...]]:
    """Return the rows of the table: every weight of one head above 0, or the strongest links of each query of all."""
    for number, (name, matrix) in enumerate(reading.record.items()):
        if layer is not None and number != layer:
            continue
        queries, keys = token_axes(reading, name)
        whole = head is not None and matrix.shape[2] * matrix.shape[3] <= ALL_WEIGHTS
        values, places = matrix.topk(matrix.shape[3] if whole else min(LINKS, matrix.shape[3]))
        weights, chosen = numbers(values)[0], places[0].tolist()
        for index in range(matrix.shape[1]) if head is None else [head]:
            for row, query in enumerate(queries.positions):
                for weight, column in zip(weights[index, row].tolist(), chosen[index][row], strict=True):
                    if weight > 0:
                        tokens = queries.tokens[row], keys.tokens[column]
                        yield number, index, name, query, tokens[0], keys.positions[column], tokens[1], weight


def parquet(rows: list[tuple[Any, ...]], names: Sequence[str]) -> bytes:
    """Return a Parquet file of rows under column names.

    Raises:
        ExtraError: pyarrow is missing.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ExtraError(message("Parquet needs pyarrow. Run `pip install pyarrow`."), name="pyarrow") from error
    columns = zip(*rows, strict=True) if rows else [()] * len(names)
    table = pa.table(dict(zip(names, map(list, columns), strict=True)))
    file = BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def _picture(reading: "Reading", kind: str, layer: int | None, head: int | None, second: "Reading | None") -> bytes:
    from clearhead.views import plot
    from clearhead.views.comparison import compare
    from clearhead.views.media.figure import reading_figure

    place = None if layer is None or head is None else (layer, head)
    figure = reading_figure(reading, place) if second is None else plot.compared(compare(reading, second), place)
    with tempfile.TemporaryDirectory() as folder:
        plot.save(figure, path := Path(folder, f"picture.{kind}"))
        return path.read_bytes()

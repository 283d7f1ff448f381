"""Read a text column of Parquet and Arrow files, a few rows at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from clearhead.errors import ModelError
from clearhead.extras import needs
from clearhead.files import unreadable

CHUNK = 2**22  # bytes of a file read at a time for its digest


@dataclass(frozen=True, slots=True)
class TableFile:
    """A column of a Parquet or an Arrow file.

    Attributes:
        path, texts, digest: as in `parts.TextFile`.
        form: the file format.
        column: the column that holds the text.
    """

    path: str
    form: Literal["parquet", "arrow"]
    column: str
    texts: int
    digest: str

    @classmethod
    def opened(
        cls,
        path: Path,
        form: Literal["parquet", "arrow"],
        column: str,
        progress: Callable[[int], None] = lambda _bytes: None,
    ) -> TableFile:
        """Open a file and compute its digest.

        Args:
            progress: called now and then with the number of bytes read since the last call.

        Raises:
            ModelError: it cannot be read, or has no such column of text; the message lists its columns.
        """
        try:
            table = _parquet(path) if form == "parquet" else _arrow(path)
            schema = table.schema_arrow if form == "parquet" else table.schema
            rows = table.metadata.num_rows if form == "parquet" else table.num_rows
            made = hashlib.blake2b(column.encode(), digest_size=16)
            with path.open("rb") as file:
                while block := file.read(CHUNK):
                    made.update(block)
                    progress(len(block))
        except (OSError, ValueError) as error:  # pyarrow's own errors are among them
            raise unreadable(path, _first_line(error), f"a whole {form.title()} file") from error
        _check_column(path, schema, column)
        return cls(str(path), form, column, rows, made.hexdigest())

    def read(self, first: int, count: int) -> list[str | None]:
        """Return `count` consecutive texts from number `first` on; None for null."""
        try:
            if self.form == "arrow":
                return _strings(_arrow(Path(self.path)).column(self.column).slice(first, count))
            return self._read_parquet(first, count)
        except (OSError, ValueError) as error:
            raise unreadable(self.path, _first_line(error), f"a whole {self.form.title()} file") from error

    def _read_parquet(self, first: int, count: int) -> list[str | None]:
        file, start = _parquet(Path(self.path)), 0
        texts: list[str | None] = []
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            begin, stop = max(first - start, 0), min(first + count - start, rows)
            if begin < stop:
                column = file.read_row_group(group, columns=[self.column]).column(self.column)
                texts += _strings(column.slice(begin, stop - begin))
            start += rows
        return texts


def _first_line(error: Exception) -> Exception:
    return error if getattr(error, "strerror", None) else ValueError(str(error).partition("\n")[0])


def _check_column(path: Path, schema: Any, column: str) -> None:
    with needs("survey", "reading tables"):
        import pyarrow
    types = pyarrow.types
    if column not in schema.names:
        raise ModelError(
            f"{path} has no column {column!r}; its columns are {', '.join(map(repr, schema.names)) or 'none'}. "
            "Name the one that holds the text: --column."
        )
    if schema.names.count(column) > 1:
        raise ModelError(f"{path} has several columns {column!r}, so it is not clear which holds the text. Rename one.")
    kind = schema.field(column).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    is_view = getattr(types, "is_string_view", lambda _kind: False)
    if not (types.is_string(kind) or types.is_large_string(kind) or is_view(kind) or types.is_null(kind)):
        raise ModelError(f"{path}: column {column!r} holds {kind}, not text. Name another: --column.")


def _strings(column: Any) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _parquet(path: Path) -> Any:
    with needs("survey", "reading Parquet"):
        from pyarrow import parquet
    return parquet.ParquetFile(path)


def _arrow(path: Path) -> Any:
    """Return the table of an Arrow stream, or of an Arrow file with a footer. It is mapped, not copied."""
    with needs("survey", "reading Arrow files"):
        import pyarrow
    source = pyarrow.memory_map(str(path))
    try:
        return pyarrow.ipc.open_file(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_stream(source).read_all()

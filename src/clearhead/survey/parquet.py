"""Write Parquet files atomically; the same numbers always give the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clearhead.extras import needs
from clearhead.files import unwritable, whole_file


def table_bytes(columns: dict[str, Any], notes: dict[str, str] | None = None) -> bytes:
    """Return a table as the content of a Parquet file.

    Args:
        columns: name -> values.
        notes: kept in the file's metadata.
    """
    with needs("survey", "a survey"):
        import pyarrow
        from pyarrow import parquet
    table = pyarrow.table(columns).replace_schema_metadata(notes or {})
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read_table(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the columns of a Parquet file as lists, and its notes."""
    with needs("survey", "a survey"):
        from pyarrow import parquet
    table = parquet.read_table(path, partitioning=None)
    notes = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return table.to_pydict(), notes


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: it appears complete or not at all, even if the machine stops meanwhile.

    Raises:
        OptionError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    with whole_file(path) as draft:
        draft.write_bytes(content)

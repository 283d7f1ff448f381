"""Turn rows about heads into a table of pandas, polars or xarray, if it is installed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from clearhead.errors import ExtraError, OptionError

LIBRARIES = ("pandas", "polars", "xarray")
INDEX = ("layer", "head")


def as_table(rows: Sequence[Any], library: str, caller: str = "record.scores", argument: str = "as_") -> Any:
    """Return rows of a dataclass as a pandas or polars DataFrame, or as an xarray Dataset over `layer` and `head`.

    Args:
        rows: at least `layer` and `head` in each.
        library: "pandas", "polars" or "xarray".
        caller, argument: what the user called, and with which argument, for the messages.

    Raises:
        OptionError: library is none of these.
        ExtraError: it is not installed.
    """
    if library not in LIBRARIES:
        raise OptionError(
            f"{argument} is {library!r}, expected one of {', '.join(map(repr, LIBRARIES))}. For a list, use "
            f"the rows as they are."
        )
    try:
        module = import_module(library)
    except ImportError as error:
        raise ExtraError(
            f"{caller} needs {library} for a table of {library}. Run `pip install {library}`, or use the rows as they "
            "are, a list."
        ) from error
    columns = tuple(field.name for field in fields(rows[0])) if rows else INDEX
    if library == "xarray":
        return _dataset(rows, columns, module)
    return module.DataFrame({name: [getattr(row, name) for row in rows] for name in columns})


def _dataset(rows: Sequence[Any], columns: Sequence[str], xarray: Any) -> Any:
    """Return a Dataset with one variable per score; NaN where a layer has fewer heads than another."""
    layers = list(dict.fromkeys(row.layer for row in rows))
    heads = sorted({row.head for row in rows})
    by_place = {(row.layer, row.head): row for row in rows}
    variables = {
        name: (
            INDEX,
            [[getattr(by_place.get((layer, head)), name, math.nan) for head in heads] for layer in layers],
        )
        for name in columns
        if name not in INDEX
    }
    return xarray.Dataset(variables, coords={"layer": layers, "head": heads})

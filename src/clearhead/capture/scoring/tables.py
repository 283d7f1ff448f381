"""Head scores as the table of another library, where it is installed: pandas, polars or xarray."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from importlib import import_module
from typing import Any

from clearhead.capture.scoring.head_scores import HeadScores
from clearhead.errors import ExtraError, OptionError

LIBRARIES = ("pandas", "polars", "xarray")
INDEX = ("layer", "head")
COLUMNS = tuple(field.name for field in fields(HeadScores))


def as_table(rows: Sequence[HeadScores], library: str) -> Any:
    """The scores as a pandas or polars DataFrame, one row a head, or as an xarray Dataset over (layer, head).

    Raises:
        OptionError: library is none of these.
        ExtraError: it is not installed.
    """
    if library not in LIBRARIES:
        raise OptionError(f"as_ is {library!r}, expected one of {', '.join(map(repr, LIBRARIES))}, or None for a list.")
    try:
        module = import_module(library)
    except ImportError as error:
        raise ExtraError(
            f"record.scores(as_={library!r}) needs {library}. Run `pip install {library}`, or leave as_ out for a list "
            "of HeadScores."
        ) from error
    if library == "xarray":
        return _dataset(rows, module)
    return module.DataFrame({name: [getattr(row, name) for row in rows] for name in COLUMNS})


def _dataset(rows: Sequence[HeadScores], xarray: Any) -> Any:
    """A Dataset with one variable a score; NaN where a layer has fewer heads than another."""
    layers = list(dict.fromkeys(row.layer for row in rows))
    heads = sorted({row.head for row in rows})
    by_place = {(row.layer, row.head): row for row in rows}
    variables = {
        name: (
            INDEX,
            [[getattr(by_place.get((layer, head)), name, math.nan) for head in heads] for layer in layers],
        )
        for name in COLUMNS
        if name not in INDEX
    }
    return xarray.Dataset(variables, coords={"layer": layers, "head": heads})

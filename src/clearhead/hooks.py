"""Functions of an upper room that a lower room calls; `clearhead/__init__.py` sets them, so no room imports upward."""

from __future__ import annotations

TYPE_CHECKING = False  # as in clearhead/__init__.py, which imports this
if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any


def _not_set(*_args: object, **_options: object) -> Any:
    raise RuntimeError("clearhead/__init__.py has not run, so its hooks are not set. Import clearhead first.")


# Writes a record as an HTML page, for `Record.to_html`: (record, path, **options) -> the path.
save_record_page: Callable[..., Path] = _not_set

# `clearhead.distributed.attention`, for transformers models whose sequence is sharded.
sharded_attention: Callable[..., Any] = _not_set

# `clearhead.distributed.sharding.check_positions`, for the same models: (positions, query, mesh, placement).
check_positions: Callable[..., None] = _not_set

# Tells the other ranks that this one refuses its part of a call of these models: (mesh, query, whether the call is
# `check_positions` or `sharded_attention`).
refuse_sharded: Callable[..., None] = _not_set

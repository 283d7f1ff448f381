"""HeadEffects: the effect of ablating each head, as rows, a matrix or another library's table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import torch
from torch import Tensor

from clearhead.capture.scoring.tables import as_table
from clearhead.printing import count


@dataclass(frozen=True, slots=True)
class HeadEffect:
    """The effect of one head.

    Attributes:
        layer: the attention module's name.
        head: the head's index.
        value: the metric without the head.
        effect: `value` minus the metric with all heads.
    """

    layer: str
    head: int
    value: float
    effect: float


class HeadEffects(Sequence[HeadEffect]):
    """The effect of every head, in layer order: a sequence of HeadEffect.

    Attributes:
        baseline: the metric with all heads.
        missed: attention modules whose heads could not be ablated, with the reason.

    Example:
        >>> effects = HeadEffects([HeadEffect("a", 0, 3.0, -1.0), HeadEffect("a", 1, 6.5, 2.5)], 4.0)
        >>> effects.strongest(1)
        [HeadEffect(layer='a', head=1, value=6.5, effect=2.5)]
        >>> effects.matrix()
        tensor([[-1.0000,  2.5000]])
    """

    def __init__(self, rows: Sequence[HeadEffect], baseline: float, missed: Mapping[str, str] | None = None) -> None:
        self._rows = list(rows)
        self.baseline = baseline
        self.missed = dict(missed or {})

    @overload
    def __getitem__(self, index: int) -> HeadEffect: ...
    @overload
    def __getitem__(self, index: slice) -> list[HeadEffect]: ...
    def __getitem__(self, index: int | slice) -> HeadEffect | list[HeadEffect]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        lines = [f"{count(len(self), 'head')}; the metric with all of them: {self.baseline:.4g}"]
        lines += [f"{row.layer}, head {row.head}: {row.value:.4g} ({row.effect:+.4g})" for row in self.strongest(5)]
        return "\n".join(lines)

    def strongest(self, count: int = 10) -> list[HeadEffect]:
        """Return the heads with the largest absolute effects, largest first."""
        return sorted(self._rows, key=lambda row: -abs(row.effect))[:count]

    def matrix(self) -> Tensor:
        """Return the effects, (layers, heads); NaN where a layer has fewer heads, or a head was not ablated."""
        layers = {name: place for place, name in enumerate(dict.fromkeys(row.layer for row in self._rows))}
        table = torch.full((len(layers), 1 + max((row.head for row in self._rows), default=-1)), math.nan)
        for row in self._rows:
            table[layers[row.layer], row.head] = row.effect
        return table

    def table(self, library: str) -> Any:
        """Return the rows as a "pandas" or "polars" DataFrame, or as an "xarray" Dataset over (layer, head).

        Raises:
            OptionError: library is none of these.
            ExtraError: it is not installed.
        """
        return as_table(self._rows, library, "effects.table", "library")

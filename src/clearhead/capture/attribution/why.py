"""why(): split one logit of a head by the parts of the residual stream that its query and its key come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from clearhead.capture.attribution.families import family_of
from clearhead.capture.attribution.residual import Parts, ResidualParts
from clearhead.errors import CaptureError

if TYPE_CHECKING:
    from clearhead.matrix import AttentionMatrix

CLOSE = 1e-3  # largest difference between the logit and the sum of its parts, as a share of the logit or of 1


@dataclass(frozen=True, slots=True)
class Why:
    """One logit as a sum of parts.

    Attributes:
        names: the names of the parts: "token", "position", "layer.head" of each earlier head, "mlp layer", and "bias".
        table: (n, n), float64, the product of query part a and key part b, in units of the logit.
        logit: the sum of the table, which is the head's logit to rounding.
    """

    names: list[str]
    table: Tensor
    logit: float

    @property
    def query_parts(self) -> dict[str, float]:
        """The contribution of each part of the query, summed over all parts of the key. They sum to the logit."""
        return dict(zip(self.names, self.table.sum(1).tolist(), strict=True))

    @property
    def key_parts(self) -> dict[str, float]:
        """The contribution of each part of the key, summed over all parts of the query."""
        return dict(zip(self.names, self.table.sum(0).tolist(), strict=True))

    def strongest(self, count: int = 10) -> list[tuple[str, str, float]]:
        """Return the pairs (query part, key part, logit) of largest absolute value, largest first."""
        order = self.table.abs().flatten().argsort(descending=True)[:count].tolist()
        return [
            (
                self.names[place // len(self.names)],
                self.names[place % len(self.names)],
                float(self.table.flatten()[place]),
            )
            for place in order
        ]


@dataclass(frozen=True, slots=True)
class Source:
    """Where a recorded matrix comes from: the model, its layer, and the model's inputs.

    Attributes:
        model: the model observed.
        name: the attention module's name.
        inputs: the positional and keyword arguments of the model's pass.
    """

    model: nn.Module
    name: str
    inputs: tuple[tuple[Any, ...], dict[str, Any]]

    def why(self, matrix: AttentionMatrix, query: int, key: int, head: int, batch: int) -> Why:
        """Split a logit; see `AttentionMatrix.why`."""
        family = family_of(self.model, self.name)
        kept = ResidualParts(family, self.name, (query, key), batch)
        args, kwargs = self.inputs
        with torch.no_grad(), kept.watching():
            self.model(*args, **kwargs)
        queries, keys = kept.projected(head, matrix.shape[1], matrix._logits.key.shape[1])
        scale = matrix._logits.attention.multiplier
        factor = float(scale) if not isinstance(scale, Tensor) else float(scale.flatten()[head])
        table = factor * (queries.vectors.double() @ keys.vectors.double().mT)
        group = matrix.shape[1] // matrix._logits.key.shape[1]
        own = (
            matrix._logits.query.detach()[batch, head, query].double()
            @ matrix._logits.key[batch, head // group, key].double()
        )
        total, expected = float(table.sum()), factor * float(own)
        precision = torch.finfo(matrix.dtype).eps * 1e4
        if not abs(total - expected) <= max(CLOSE, precision) * max(1.0, abs(expected), float(table.abs().max())):
            raise CaptureError(
                f"the parts of {self.name!r}'s logit sum to {total:.4g}, and it is {expected:.4g}: its queries and "
                "keys are made in a way that Clearhead does not know, or the model or its input has changed"
            )
        return Why(_joined(queries, keys), table, total)


def _joined(queries: Parts, keys: Parts) -> list[str]:
    assert queries.names == keys.names  # noqa: S101 (both come from one stream)
    return queries.names

"""A fake reading: dense weights behind the few methods that the pictures call."""

from dataclasses import dataclass

import torch
from torch import Tensor

from clearhead.capture.positions import Positions, assumed


class DenseMatrix:
    """The methods of `AttentionMatrix` that the views use, computed directly from stored weights (B, H, L, S)."""

    def __init__(self, weights: Tensor) -> None:
        self.weights, self.shape, self.dtype = weights, weights.shape, weights.dtype

    def to_dense(self) -> Tensor:
        return self.weights

    def topk(self, k: int) -> tuple[Tensor, Tensor]:
        found = self.weights.topk(k, dim=-1)
        return found.values, found.indices

    def entropy(self) -> Tensor:
        return -(self.weights * self.weights.clamp_min(1e-30).log()).sum(-1)

    def mean_distance(self) -> Tensor:
        places = torch.arange(self.shape[-1])
        return (self.weights * (places[:, None] - places).abs()).sum(-1)

    def heads(self, heads: list[int]) -> "DenseMatrix":
        return DenseMatrix(self.weights[:, heads])

    def kl(self, other: "DenseMatrix") -> Tensor:
        ratio = (self.weights / other.weights).clamp_min(1e-30).log()
        return (self.weights * ratio).nan_to_num(0.0, posinf=float("inf")).sum(-1)

    def pooled(self, rows: int, cols: int, *, region: tuple[slice, slice] | None = None) -> Tensor:
        part = self.weights if region is None else self.weights[:, :, *region]
        return torch.nn.functional.adaptive_avg_pool2d(part, (rows, cols))

    def __getitem__(self, index: object) -> Tensor:
        return self.weights[index]


@dataclass(frozen=True)
class Missed:
    name: str
    reason: str


class Record(dict[str, DenseMatrix]):
    missed: tuple[Missed, ...] = ()

    def positions(self, name: str) -> tuple[Positions, ...]:
        return (assumed(*self[name].shape[2:]),)


@dataclass(frozen=True)
class Reading:
    record: Record
    tokens: list[str]
    model_name: str = "a small model"
    grid: object = None
    decoder: object = None
    pictures: tuple[object, ...] = ()
    sound: object = None
    note: object = None

    @property
    def token_ids(self) -> list[int]:
        return [self.tokens.index(token) for token in self.tokens]

    @property
    def special(self) -> list[bool]:
        return [token in ("[CLS]", "[SEP]") for token in self.tokens]


def reading(
    tokens: list[str] | int = 7, *, layers: int = 3, heads: int = 5, is_causal: bool = False, seed: int = 0
) -> Reading:
    """Random heads over the tokens given (or that many made up)."""
    names = tokens if isinstance(tokens, list) else [f"word{i}" for i in range(tokens)]
    generator = torch.Generator().manual_seed(seed)
    record = Record()
    for layer in range(layers):
        logits = 2.5 * torch.randn(1, heads, len(names), len(names), generator=generator)
        if is_causal:
            logits = logits.masked_fill(~torch.ones_like(logits, dtype=torch.bool).tril(), float("-inf"))
        record[f"layer.{layer}.attention"] = DenseMatrix(logits.softmax(-1))
    return Reading(record, names)

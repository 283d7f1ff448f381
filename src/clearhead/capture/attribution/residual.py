"""ResidualParts: the residual stream at two positions as named vectors, carried through a model's norms.

A norm is linear once its divisor is known, so it is applied to each part: RMSNorm divides by the root mean square of
the whole, LayerNorm takes each part's own mean and divides by the standard deviation of the whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clearhead.capture.attribution.families import Family
from clearhead.errors import CaptureError


@dataclass(frozen=True, slots=True)
class Parts:
    """Named vectors whose sum is one vector: names, and (n, E), float64."""

    names: list[str]
    vectors: Tensor


class ResidualParts:
    """Collects what each module writes at a query's and a key's position, up to one layer.

    Args:
        family: the model's.
        name: of the layer's attention module.
        places: the positions of the query and the key.
        batch: the entry of the batch.
    """

    def __init__(self, family: Family, name: str, places: tuple[int, int], batch: int) -> None:
        self._family, self._layer = family, family.names.index(name)
        self._places, self._batch = places, batch
        self._written: dict[str, Tensor] = {}
        self._heads: dict[int, Tensor] = {}
        self._rotary: tuple[Tensor, Tensor] | None = None
        self._thread = threading.get_ident()  # another thread may run the same model

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Keep what the modules write, inside the block."""
        family = self._family
        with ExitStack() as stack:
            writers = {"token": family.tokens, **family.embeddings}
            writers |= {f"mlp {n}": block.mlp for n, block in enumerate(family.blocks[: self._layer])}
            for name, module in writers.items():
                stack.callback(module.register_forward_hook(self._keeper(name)).remove)
            for number, block in enumerate(family.blocks[: self._layer]):
                stack.callback(block.output.register_forward_pre_hook(self._head_keeper(number)).remove)
            attention = family.blocks[self._layer].attention
            stack.callback(attention.register_forward_pre_hook(self._keep_rotary, with_kwargs=True).remove)
            yield

    def projected(self, head: int, heads: int, key_heads: int) -> tuple[Parts, Parts]:
        """Return the query of one head and its key, each as parts of width head_dim."""
        family, number = self._family, self._layer
        streams = [self._stream(place) for place in range(2)]
        key_head = head * key_heads // heads
        sides = (("query", family.query[number], head, heads), ("key", family.key[number], key_head, key_heads))
        answers = []
        for place, (side, layer, own, count) in enumerate(sides):
            parts = streams[place]
            weight, bias = _part_of(layer, side, own, count)
            vectors = parts.vectors @ weight.double().mT
            if bias is not None:
                vectors = torch.cat([vectors[:-1], vectors[-1:] + bias.double()])
            answers.append(Parts(parts.names, self._rotated(vectors, place)))
        return answers[0], answers[1]

    def _stream(self, place: int) -> Parts:
        """Return the input of the layer's projections at the query's (0) or key's (1) position; "bias" is last."""
        family = self._family
        names = ["token", *family.embeddings]
        vectors = [self._at(self._written[name], place) for name in names]
        vectors.append(torch.zeros_like(vectors[0]))
        names.append("bias")
        stream = Parts(names, torch.stack(vectors).double())
        stream = stream if family.start is None else _normed(stream, family.start)
        for number, block in enumerate(family.blocks[: self._layer]):
            stream = _added(stream, self._head_parts(number, place), block.output)
            stream = _normed(stream, block.first) if family.after else stream
            written = self._at(self._written[f"mlp {number}"], place).double()
            stream = _with(stream, [f"mlp {number}"], written[None])
            stream = _normed(stream, block.second) if family.after else stream
        return stream if family.after else _normed(stream, family.blocks[self._layer].first)

    def _head_parts(self, number: int, place: int) -> Parts:
        """Return what each head of an earlier layer writes."""
        block = self._family.blocks[number]
        merged = self._at(self._heads[number], place).double()
        output: Any = block.output
        weight = output.weight.detach()
        whole = weight if type(output).__name__ == "Conv1D" else weight.mT  # (H·D_v, E)
        heads = _head_count(block.attention)
        vectors = merged.view(heads, 1, -1) @ whole.double().view(heads, len(merged) // heads, -1)
        return Parts([f"{number}.{head}" for head in range(heads)], vectors[:, 0])

    def _rotated(self, vectors: Tensor, place: int) -> Tensor:
        if self._rotary is None:
            return vectors
        cos, sin = (self._at(table, place).double() for table in self._rotary)
        if cos.shape[-1] != vectors.shape[-1]:
            raise CaptureError("its rotary positions turn only a part of each head, which is not supported")
        half = vectors.shape[-1] // 2
        return vectors * cos + torch.cat([-vectors[:, half:], vectors[:, :half]], -1) * sin

    def _at(self, tensor: Tensor, place: int) -> Tensor:
        """A (B or 1, L, …) tensor at one of the two positions."""
        return tensor[self._batch if len(tensor) > 1 else 0, self._places[place]].detach()

    def _keeper(self, name: str) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if threading.get_ident() != self._thread:
                return
            output = output[0] if isinstance(output, tuple) else output
            self._written[name] = output if output.dim() == 3 else output[None]

        return keep

    def _head_keeper(self, number: int) -> Any:
        def keep(_: nn.Module, given: tuple[Tensor, ...]) -> None:
            if threading.get_ident() == self._thread:
                self._heads[number] = given[0]

        return keep

    def _keep_rotary(self, _: nn.Module, __: Any, given: dict[str, Any]) -> None:
        if threading.get_ident() == self._thread:
            self._rotary = given.get("position_embeddings")


def _normed(stream: Parts, norm: Any) -> Parts:
    """Return a stream after a norm: each part normalised, and the norm's bias added to "bias"."""
    whole = stream.vectors.sum(0)
    kind, weight = type(norm).__name__, getattr(norm, "weight", None)
    if isinstance(norm, nn.LayerNorm):
        vectors = stream.vectors - stream.vectors.mean(-1, keepdim=True)
        vectors = vectors / (whole.var(unbiased=False) + norm.eps).sqrt()
    elif kind.endswith("RMSNorm") and hasattr(norm, "variance_epsilon"):
        vectors = stream.vectors / (whole.square().mean() + norm.variance_epsilon).sqrt()
    else:
        raise CaptureError(f"{kind} is an unknown norm; only LayerNorm and RMSNorm are supported")
    vectors = vectors if weight is None else vectors * weight.detach().double()
    bias = getattr(norm, "bias", None)
    if bias is not None:
        place = stream.names.index("bias")
        vectors[place] = vectors[place] + bias.detach().double()
    return Parts(stream.names, vectors)


def _added(stream: Parts, heads: Parts, projection: Any) -> Parts:
    """Return a stream plus what heads write; the projection's bias is added to "bias"."""
    stream = _with(stream, heads.names, heads.vectors)
    if getattr(projection, "bias", None) is not None:
        stream.vectors[stream.names.index("bias")] += projection.bias.detach().double()
    return stream


def _with(stream: Parts, names: list[str], vectors: Tensor) -> Parts:
    """Return a stream with more parts; "bias" stays last."""
    return Parts([*stream.names[:-1], *names, "bias"], torch.cat([stream.vectors[:-1], vectors, stream.vectors[-1:]]))


def _part_of(layer: Any, side: str, head: int, heads: int) -> tuple[Tensor, Tensor | None]:
    """Return the weight (D, E) and bias (D,) that project one head's query or key."""
    weight, bias = layer.weight.detach(), getattr(layer, "bias", None)
    if type(layer).__name__ == "Conv1D":  # (E, 3·E): queries, keys and values side by side
        third = weight.shape[1] // 3
        start = 0 if side == "query" else third
        weight, bias = weight[:, start : start + third].mT, layer.bias[start : start + third].detach()
    width = weight.shape[0] // heads
    rows = slice(head * width, (head + 1) * width)
    return weight[rows], None if bias is None else bias.detach()[rows]


def _head_count(attention: Any) -> int:
    config = getattr(attention, "config", None)
    for owner in (attention, config):
        for name in ("num_heads", "num_attention_heads"):
            if isinstance(getattr(owner, name, None), int):
                return int(getattr(owner, name))
    raise CaptureError(f"{type(attention).__name__} does not say how many heads it has")

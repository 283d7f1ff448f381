"""Attention flow: the maximum flow from each position of the last layer to each input token."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from clearhead.errors import TooLargeError
from clearhead.matrix.chain import rollout
from clearhead.matrix.matrix import AttentionMatrix

LIMIT = 100_000  # edges: six layers of 128 tokens


def flow(
    matrices: Sequence[AttentionMatrix], positions: Sequence[int], *, residual: float = 0.5, limit: int | None = LIMIT
) -> Tensor:
    """Return the maximum flow from some positions of the last layer to each input token.

    The positions of all layers are the nodes of a network. The capacity of an edge between two layers is the
    head-averaged weight mixed with the residual path.

    Args:
        matrices: one per layer, in layer order, all (B, H, L, L).
        positions: positions of the last layer.
        residual: the share of the skip connection, as in `rollout`.
        limit: the most edges (layers·L²) of the network; None for no limit.

    Returns:
        (B, len(positions), L), float64, each row scaled to sum to 1.

    Raises:
        TooLargeError: the network is larger than `limit`; use `rollout` for long texts.
        OptionError, ShapeError: as `rollout`.

    Memory: the whole network, O(layers·L²). Time: one maximum flow per position and token.
    Source: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", section 3.
    """
    networkx: Any = import_module("networkx")  # comes with torch; untyped
    batch, length, _ = rollout(matrices, residual=residual).shape
    edges = len(matrices) * length * length
    if limit is not None and edges > limit:
        raise TooLargeError(
            f"attention flow over {len(matrices)} layers of {length} tokens is a network of {edges} edges; the limit "
            f"is {limit}. Use rollout(...), which has no such limit, a shorter text, or limit={edges}."
        )
    out = torch.zeros(batch, len(positions), length, dtype=torch.float64, device="cpu")
    for sample in range(batch):
        network = networkx.DiGraph()
        for layer, matrix in enumerate(matrices):
            mixed = (1 - residual) * matrix[sample].double().mean(0).cpu()
            mixed += residual * torch.eye(length, dtype=torch.float64, device="cpu")
            for row, col in (mixed > 0).nonzero().tolist():
                network.add_edge((layer + 1, row), (layer, col), capacity=float(mixed[row, col]))
        for index, position in enumerate(positions):
            top = (len(matrices), position % length)
            for token in range(length):
                if network.has_node((0, token)):
                    out[sample, index, token] = networkx.maximum_flow_value(network, top, (0, token))
    return out / out.sum(-1, keepdim=True).clamp_min(1e-300)

"""Measure how much a model's loss grows without each head, text by text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from clearhead.capture import Loaded, ablate
from clearhead.survey.measuring.batches import Tokens

TOGETHER = 12  # heads that share a forward pass
LOSS, DISTANCE = "nats of next-token loss", "1 - cosine of the text's mean hidden state with and without the head"


def loss_name(loaded: Loaded) -> str:
    """Return the name of the loss, and its unit."""
    return DISTANCE if loaded.writer is None else LOSS


def effects(loaded: Loaded, row: Tokens, layers: dict[str, int]) -> Tensor | None:
    """Return (layers, H), float64: how much the loss of one text grows without each head. None for a text too short.

    Args:
        row: the tokens of the text.
        layers: name -> number of heads, for the layers of the survey.
    """
    writer = loaded.writer
    if writer is not None and len(row.ids) < 2:
        return None
    model = loaded.model if writer is None else writer
    given = {"input_ids": torch.tensor([row.ids])}
    whole: list[Tensor] = []  # filled by the first call, which has all heads

    def metric(output: Any) -> float:
        if writer is not None:
            return float(functional.cross_entropy(output.logits[0, :-1].double(), given["input_ids"][0, 1:]))
        state = output.last_hidden_state[0].double().mean(0)
        whole.append(state)
        return 1.0 - float(functional.cosine_similarity(whole[0], state, dim=0))

    if loaded.has_decoder:
        model = loaded.model.get_encoder()  # type: ignore[operator]
    by_head = {(effect.layer, effect.head): effect.effect for effect in ablate(model, given, metric, batch=TOGETHER)}
    table = torch.full((len(layers), max(layers.values())), torch.nan, dtype=torch.double)
    for number, name in enumerate(layers):
        for (layer, head), effect in by_head.items():
            if layer == name or layer.endswith(f".{name}") or name.endswith(f".{layer}"):
                table[number, head] = effect
    return table

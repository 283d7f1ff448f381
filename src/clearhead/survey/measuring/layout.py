"""Find the layers and heads of a model by running one short text, and compute a digest of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch

from clearhead.capture import Loaded
from clearhead.errors import CaptureError, ModelError
from clearhead.survey.measuring.batches import batches, pad_id, tokenize
from clearhead.survey.measuring.observing import each_layer

PROBE = "One word after another, and each looks back."
SAMPLED = 64  # entries of each parameter that enter the digest
NAMED = 3  # layers that a message names


@dataclass(frozen=True, slots=True)
class Layout:
    """The layers whose attention is recorded, in the model's order, and those that are not.

    Attributes:
        layers: their names.
        heads: the number of heads of each.
        missed: (name, reason) of attention modules that are not surveyed.
    """

    layers: tuple[str, ...]
    heads: tuple[int, ...]
    missed: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> int:
        """The number of heads in all layers."""
        return sum(self.heads)

    def span(self, layer: int) -> slice:
        """Return the slice of a layer's heads among all heads, which are numbered layer after layer."""
        start = sum(self.heads[:layer])
        return slice(start, start + self.heads[layer])

    @classmethod
    def of(cls, loaded: Loaded) -> Layout:
        """Return the layout of a model.

        Raises:
            ModelError: it does not read text.
            CaptureError: none of its attention can be surveyed; the message gives the reasons.
        """
        if loaded.reads != "text":
            raise ModelError(f"{loaded.name} reads pictures, and a survey reads texts. Choose a model that reads text.")
        (batch,) = batches(tokenize(loaded, [PROBE], loaded.max_length), 1, pad_id(loaded))
        heads: dict[str, int] = {}
        reasons = each_layer(loaded, batch, lambda name, matrix: heads.update({name: matrix.shape[1]}))
        missed = tuple((name, reason) for name, reason in reasons.items() if reason is not None)
        layers = tuple(name for name, reason in reasons.items() if reason is None)
        if not layers:
            listed = "; ".join(f"{name}: {reason}" for name, reason in missed[:NAMED]) or "none was seen in it"
            raise CaptureError(f"no attention of {loaded.name} can be surveyed ({listed}). Choose another model.")
        if loaded.has_decoder:
            missed += (("decoder", "a survey runs the encoder of an encoder-decoder alone"),)
        return cls(layers, tuple(heads[name] for name in layers), missed)


def digest(loaded: Loaded) -> str:
    """Return a digest of what decides a model's attention: parameters, configuration and tokenizer.

    Every entry of a parameter enters a sum, and some enter as they are: reading them all takes 0.1 s for 100 MB.
    """
    made = hashlib.blake2b(digest_size=16)
    for name, tensor in loaded.model.state_dict().items():
        flat = tensor.detach().contiguous().view(-1).view(_INTEGERS[tensor.element_size()]).cpu()
        made.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {int(flat.sum(dtype=torch.int64))}".encode())
        made.update(flat[:: max(len(flat) // SAMPLED, 1)].contiguous().numpy().tobytes())
    made.update(_json(_configuration(loaded.model)))
    made.update(_json(_tokenizer(loaded.tokenizer)))
    return made.hexdigest()


_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _json(data: Any) -> bytes:
    return json.dumps(data, sort_keys=True, default=str).encode()


def _configuration(model: Any) -> dict[str, Any]:
    """Return a model's configuration without the path and the versions it was saved with."""
    config = getattr(model, "config", None)
    data: dict[str, Any] = config.to_dict() if config is not None else {}
    return {name: value for name, value in data.items() if not name.startswith("_") and name != "transformers_version"}


def _tokenizer(tokenizer: Any) -> Any:
    """Return what decides the tokens of a text: the vocabulary and, of a fast tokenizer, its rules."""
    fast = getattr(tokenizer, "backend_tokenizer", None)
    if fast is None:
        return sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    data = json.loads(fast.to_str())
    return {name: rules for name, rules in data.items() if name not in ("truncation", "padding")}  # set by each call

"""Find the layers and heads of a model by running one short text, and compute a digest of its weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from clearhead.capture import Loaded, Record
from clearhead.capture.adapters import transformers_interface
from clearhead.capture.models.input_checks import running
from clearhead.capture.observer import Observer
from clearhead.errors import CaptureError, ModelError
from clearhead.survey.measuring.batches import Batch, batches, inputs, pad_id, tokenize

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
        record = observed(loaded, batch)
        layers, missed = [], [(item.name, item.reason) for item in record.missed]
        for name in record:
            reason = why_not(record, name, batch)
            if reason is None:
                layers.append(name)
            else:
                missed.append((name, reason))
        if not layers:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in missed[:NAMED])
            raise CaptureError(f"no attention of {loaded.name} can be surveyed ({reasons}).")
        return cls(tuple(layers), tuple(record[name].shape[1] for name in layers), tuple(missed))


def why_not(record: Record, name: str, batch: Batch) -> str | None:
    """Return why a layer of a record cannot be surveyed; None if its queries and keys are the tokens of the batch."""
    if len(record.calls(name)) > 1:
        return "it runs more than once for a text"
    texts, length = batch.ids.shape
    shape, where = record[name].shape, record.positions(name)[-1]
    if (shape[0], shape[2], shape[3]) != (texts, length, length) or not where.within or where.offset != 0:
        return f"its queries and keys are not the tokens of a text (shape {shape}, axes B,H,L,S)"
    return None


def observed(loaded: Loaded, batch: Batch, *, check: bool = True) -> Record:
    """Run a batch through a model (through the encoder of an encoder-decoder) and return its record.

    Args:
        check: compare rows of each layer's output with the model's own, as `observe` does; takes 4% of the time.
    """
    model: Any = loaded.model
    module = model.get_encoder() if loaded.has_decoder else model
    options = {"use_cache": False} if "use_cache" in signature(module.forward).parameters else {}
    observer = Observer(model, None, None, max_bytes=None, values=False, check=check)
    listening = transformers_interface.listening(observer.record_call)
    with running(loaded, "text"), torch.inference_mode(), listening, observer.watching():
        module(**inputs(batch), **options)
    observer.check_something_was_seen()
    return observer.record


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

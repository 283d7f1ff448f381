"""Find the layers and heads of a model by running one short text, and compute a digest of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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
    """Return a digest of a model: names, shapes and some entries of its parameters, and its vocabulary."""
    made = hashlib.blake2b(digest_size=16)
    for name, tensor in loaded.model.state_dict().items():
        made.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        entries = flat[:: max(len(flat) // SAMPLED, 1)].cpu()
        made.update(entries.contiguous().view(torch.uint8).numpy().tobytes())
    vocabulary: Sequence[tuple[str, int]] = sorted(loaded.tokenizer.get_vocab().items(), key=lambda item: item[1])
    made.update(repr(vocabulary).encode("utf-8", "surrogatepass"))
    return made.hexdigest()

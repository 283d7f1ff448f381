"""Run a batch through a model, and pass on the attention matrix of each layer as soon as the layer has run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from inspect import signature
from typing import Any

import torch

from clearhead.capture import Loaded
from clearhead.capture.adapters import transformers_interface
from clearhead.capture.call import Call
from clearhead.capture.models.input_checks import running
from clearhead.capture.observer import Observer
from clearhead.capture.positions import Positions
from clearhead.matrix import AttentionMatrix
from clearhead.survey.measuring.batches import Batch, inputs

Take = Callable[[str, AttentionMatrix], None]


def each_layer(loaded: Loaded, batch: Batch, take: Take, *, check: bool = True) -> dict[str, str | None]:
    """Run a batch through a model, or through the encoder of an encoder-decoder, and pass on each layer's matrix.

    Args:
        take: called with the name and the matrix (B, H, L, L) of each layer whose queries and keys are the tokens of
            the batch, when the layer has run.
        check: compare rows of each layer's output with the model's own, as `observe` does; takes 4% of the time.

    Returns:
        Name -> why the layer cannot be surveyed, None if it can, of the attention that ran, in the model's order. A
        layer that runs more than once was passed on before that was known.
    """
    model: Any = loaded.model
    module = model.get_encoder() if loaded.has_decoder else model
    options = {"use_cache": False} if "use_cache" in signature(module.forward).parameters else {}
    observer = _LayerObserver(model, batch, take, check=check)
    listening = transformers_interface.listening(observer.record_call)
    with running(loaded, "text"), torch.inference_mode(), listening, observer.watching():
        module(**inputs(batch), **options)
    return observer.reasons()


class _LayerObserver(Observer):
    """Passes on the matrices of a batch, and keeps no queries and keys.

    Those of all layers are 40 MB for a batch of MiniLM. The allocator would return that memory and take it again with
    every batch, at 150 page faults a text.
    """

    def __init__(self, model: Any, batch: Batch, take: Take, *, check: bool) -> None:
        super().__init__(model, None, None, max_bytes=None, values=False, check=check)
        self._batch, self._take = batch, take
        self._surveyed: dict[str, str | None] = {}

    def record_call(self, call: Call) -> AttentionMatrix | None:
        matrix = super().record_call(call)
        if matrix is None:
            return None
        name, texts = self._names[id(call.module)], _without_blocks(matrix, self._batch.ids.shape[1])
        (where,) = self.record.positions(name)
        if name in self._surveyed:
            self._surveyed[name] = "it runs more than once for a text"
        else:
            reason = self._surveyed[name] = _why_not(texts, where, self._batch)
            if reason is None:
                with torch._C.DisableTorchFunction():  # these torch functions are not the model's
                    self._take(name, texts)
        self.record._steps[name].clear()
        return matrix

    def _reported(self) -> Iterable[str]:
        return (*self._surveyed, *super()._reported())

    def reasons(self) -> dict[str, str | None]:
        """Return name -> reason, as in `each_layer`."""
        reasons = {item.name: item.reason for item in self.record.missed} | self._surveyed
        return {name: reasons[name] for name in self._names.values() if name in reasons}


def _without_blocks(matrix: AttentionMatrix, length: int) -> AttentionMatrix:
    """Return a matrix of `length` tokens, without those that Longformer and BigBird append to fill their last block."""
    logits = matrix._logits
    allow, inside = logits.attention.allow, slice(0, length)
    if logits.shape[2] != logits.shape[3] or logits.shape[2] <= length or allow is None:
        return matrix
    if bool(allow[..., length:].any()):  # some token attends to them, so they are not padding
        return matrix
    query, key = logits.query[:, :, inside], logits.key[:, :, inside]
    return AttentionMatrix.of(query, key, logits.attention.pairs(inside, inside))


def _why_not(matrix: AttentionMatrix, where: Positions, batch: Batch) -> str | None:
    """Return why a layer cannot be surveyed; None if its queries and keys are the tokens of the batch."""
    texts, length = batch.ids.shape
    shape = matrix.shape
    if (shape[0], shape[2], shape[3]) == (texts, length, length) and where.within and where.offset == 0:
        return None
    return "its queries and keys are not the tokens of a text"  # the same for all shapes: texts are counted by reason

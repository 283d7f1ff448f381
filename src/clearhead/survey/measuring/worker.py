"""Worker: surveys one part of the texts after another with a model. Each process or thread has its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from clearhead.capture import Loaded
from clearhead.errors import KernelError
from clearhead.matrix import AttentionMatrix
from clearhead.multihead import accelerate
from clearhead.survey.asks import statistics_of
from clearhead.survey.corpus.parts import Part
from clearhead.survey.measuring.ablations import effects
from clearhead.survey.measuring.batches import Batch, batches, longest, pad_id, tokenize
from clearhead.survey.measuring.layout import Layout
from clearhead.survey.measuring.moments import Counts, Floats, Moments
from clearhead.survey.measuring.observing import each_layer
from clearhead.survey.measuring.statistics import Positions, measure
from clearhead.survey.measuring.token_kinds import KindTable
from clearhead.survey.settings import Settings


class StoppedError(Exception):
    """The worker was asked to stop."""


@dataclass(slots=True)
class Measured:
    """The measurements of a part.

    Attributes:
        part: the part.
        moments: statistic -> moments of all heads.
        counts: measured "texts", "empty", "cut", "tokens", "positions" with padding, "batches", "ablated".
        missed: (layer, reason) -> how many texts of the part.
        texts, lengths: the number of each measured text, and its length in tokens.
        values: statistic -> (T, N), if the numbers of each text are kept; else empty.
    """

    part: Part
    moments: dict[str, Moments]
    counts: dict[str, int]
    missed: dict[tuple[str, str], int]
    texts: Counts
    lengths: Counts
    values: dict[str, Floats] = field(default_factory=dict)


class Worker:
    """Surveys parts with one model.

    Args:
        loaded: the model; nothing else may run it at the same time.
        settings: what to ask.
        layout: the layout of the model.
        total: number of texts in the survey.
        check: called between two batches; an exception that it raises stops the part.
    """

    def __init__(
        self,
        loaded: Loaded,
        settings: Settings,
        layout: Layout,
        total: int,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._loaded, self._settings, self._layout, self._total = loaded, settings, layout, total
        self._check = check
        self._kinds = KindTable(loaded.tokenizer)
        self._length = longest(loaded, settings.max_length)
        self._statistics = statistics_of(settings.asks)
        self._names = [statistic.name for statistic in self._statistics if statistic.name != "ablation"]

    def measure(self, part: Part, texts: Sequence[str | None]) -> Measured:
        """Measure the texts of a part. Empty ones (None or blank) are counted and left out."""
        with _accelerated():
            return self._measured(part, texts)

    def _measured(self, part: Part, texts: Sequence[str | None]) -> Measured:
        places = [place for place, text in enumerate(texts) if text is not None and text.strip()]
        rows = tokenize(self._loaded, [texts[place] or "" for place in places], self._length)
        rows = [replace(row, text=places[row.text]) for row in rows]
        values = {s.name: np.full((len(texts), self._layout.total), np.nan) for s in self._statistics}
        missed: dict[tuple[str, str], int] = {}
        # Without other asks, ablation runs the sampled texts only.
        made = batches(rows, self._settings.batch_tokens, pad_id(self._loaded)) if self._names else []
        for number, batch in enumerate(made):
            self._check()
            self._measure_batch(batch, values, missed, check=number == 0)
        ablated = 0
        if "ablation" in self._settings.asks:
            heads = dict(zip(self._layout.layers, self._layout.heads, strict=True))
            for row in rows:
                if self._settings.is_sampled(part.first + row.text, self._total):
                    self._check()
                    table = effects(self._loaded, row, heads)
                    if table is not None:
                        ablated += 1
                        flat = [table[layer, :count] for layer, count in enumerate(self._layout.heads)]
                        values["ablation"][row.text] = torch.cat(flat).numpy()
        lengths = np.zeros(len(texts), dtype=np.int64)
        for row in rows:
            lengths[row.text] = len(row.ids)
        there = np.flatnonzero(lengths)
        counts = {
            "texts": len(rows),
            "empty": len(texts) - len(rows),
            "cut": sum(row.cut for row in rows),
            "tokens": int(lengths.sum()),
            "positions": sum(batch.ids.numel() for batch in made),
            "batches": len(made),
            "ablated": ablated,
        }
        numbers = part.first + there
        moments = {
            s.name: Moments.of(values[s.name][there], numbers, lengths[there], s.threshold, bounded=s.bounded)
            for s in self._statistics
        }
        kept = {name: table[there] for name, table in values.items()} if self._settings.keep_texts else {}
        return Measured(part, moments, counts, missed, numbers, lengths[there], kept)

    def _measure_batch(
        self, batch: Batch, values: dict[str, Floats], missed: dict[tuple[str, str], int], *, check: bool
    ) -> None:
        with torch.inference_mode():
            positions = Positions.of(batch, self._kinds(batch.ids))
        spans = {name: self._layout.span(layer) for layer, name in enumerate(self._layout.layers)}

        def take(name: str, matrix: AttentionMatrix) -> None:
            if name in spans:
                for statistic, table in measure(matrix, positions, self._names).items():
                    values[statistic][batch.texts, spans[name]] = table.numpy()

        reasons = each_layer(self._loaded, batch, take, check=check)
        for name, span in spans.items():
            reason = reasons.get(name, "it did not run")
            if reason is not None:
                missed[name, reason] = missed.get((name, reason), 0) + len(batch.texts)
                for table in values.values():
                    table[batch.texts, span] = np.nan


def _accelerated() -> AbstractContextManager[object]:
    """Run the model's own attention on our kernels; on torch's where ours cannot run, which takes longer."""
    try:
        return accelerate()
    except KernelError:
        return nullcontext()


def own_copy(loaded: Loaded) -> Loaded:
    """Return a model for another thread: its own modules and tokenizer, sharing the weights in memory."""
    memo: dict[int, object] = {}
    models = [model for model in (loaded.model, loaded.writer) if model is not None]
    for model in models:
        memo |= {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    model, writer = copy.deepcopy((loaded.model, loaded.writer), memo)
    return replace(loaded, model=model, writer=writer, tokenizer=copy.deepcopy(loaded.tokenizer))

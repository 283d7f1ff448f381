"""Each layer is measured when it has run, and its queries and keys are dropped before the next one runs."""

import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clearhead import AttentionMatrix, accelerate, observe
from clearhead.capture import Loaded
from clearhead.errors import CaptureError, KernelError
from clearhead.survey import Settings, open_corpus
from clearhead.survey.corpus.parts import Corpus, Part
from clearhead.survey.measuring import batches, worker
from clearhead.survey.measuring.layout import Layout
from clearhead.survey.measuring.observing import each_layer
from clearhead.survey.running import in_process
from clearhead.survey.running.job import Job
from survey.made import TEXTS, induction, write_lines


def deep(layers: int, kind: str, **options: Any) -> Loaded:
    """A model with random weights for the induction model's tokens: each layer its own module, or all one module."""
    import transformers

    size = {"vocab_size": 131, "hidden_size": 22, "num_attention_heads": 2, "intermediate_size": 13}
    config = getattr(transformers, f"{kind}Config")(num_hidden_layers=layers, **size, **options)
    torch.manual_seed(0)
    return replace(induction(), model=getattr(transformers, f"{kind}Model")(config).eval(), writer=None, name=kind)


def batch_of(loaded: Loaded) -> batches.Batch:
    return batches.batches(batches.tokenize(loaded, TEXTS[2:5], loaded.max_length), 10**6, 0)[0]


def test_queries_and_keys_of_earlier_layers_are_dropped() -> None:
    loaded, kept, most = deep(5, "Bert"), [], []

    def take(name: str, matrix: AttentionMatrix) -> None:
        kept.append(weakref.ref(matrix._logits.query))
        most.append(sum(query() is not None for query in kept))

    reasons = each_layer(loaded, batch_of(loaded), take)
    assert list(reasons) == [f"encoder.layer.{layer}.attention.self" for layer in range(5)]
    assert set(reasons.values()) == {None}
    assert len(most) == 5
    assert max(most) <= 2  # the model may still hold the matrix of the layer before


def test_a_layer_that_runs_twice_is_not_surveyed() -> None:
    loaded, taken = deep(3, "Albert"), []
    reasons = each_layer(loaded, batch_of(loaded), lambda name, _: taken.append(name))
    assert set(reasons.values()) == {"it runs more than once for a text"}
    assert len(taken) == 1
    with pytest.raises(CaptureError, match=r"no attention of Albert can be surveyed .*runs more than once for a text"):
        Layout.of(loaded)


def test_a_survey_of_an_encoder_decoder_says_that_its_decoder_is_left_out() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    size = {"vocab_size": 131, "d_model": 14, "d_kv": 5, "d_ff": 11, "num_layers": 2, "num_heads": 3}
    model = T5ForConditionalGeneration(T5Config(**size)).eval()
    layout = Layout.of(replace(induction(), model=model, writer=None))
    assert layout.layers == tuple(f"encoder.block.{layer}.layer.0.SelfAttention" for layer in range(2))
    assert layout.missed == (("decoder", "a survey runs the encoder of an encoder-decoder alone"),)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Longformer", {"attention_window": [4, 4]}),
        ("BigBird", {"attention_type": "block_sparse", "block_size": 3, "num_random_blocks": 1}),
    ],
)
def test_tokens_that_fill_the_last_block_are_left_out(kind: str, options: dict[str, Any]) -> None:
    loaded = deep(2, kind, max_position_embeddings=211, pad_token_id=0, **options)
    rows = batches.tokenize(loaded, TEXTS, loaded.max_length)
    (batch,) = batches.batches([row for row in rows if 37 <= len(row.ids) <= 61], 10**6, 0)
    length = batch.ids.shape[1]
    assert length % 3
    assert length % 4
    taken: dict[str, AttentionMatrix] = {}
    reasons = each_layer(loaded, batch, lambda name, matrix: taken.update({name: matrix}))
    assert list(reasons.values()) == [None, None]
    with observe(loaded.model) as record, torch.inference_mode():
        loaded.model(input_ids=batch.ids[-1:])  # the longest: BigBird's blocks depend on the length of the batch
    for name, matrix in taken.items():
        ours, alone = matrix.to_dense(), record[name].to_dense()[0]
        assert (*ours.shape[2:], alone.shape[1] > length) == (length, length, True)
        torch.testing.assert_close(
            ours[-1], alone[:, :length, :length], rtol=0, atol=64 * torch.finfo(torch.float32).eps
        )
        for weights, size in zip(ours, batch.lengths.tolist(), strict=True):
            torch.testing.assert_close(weights[:, :size, :size].sum(-1), torch.ones(2, size))


def test_numbers_of_a_layer_that_then_runs_again_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = induction()
    layout = Layout.of(loaded)
    first = layout.layers[0]
    again = "it runs more than once for a text"
    monkeypatch.setattr(worker, "each_layer", lambda *args, **options: each_layer(*args, **options) | {first: again})
    texts = TEXTS[:3]
    measured = worker.Worker(loaded, Settings(keep_texts=True), layout, 3).measure(Part(0, 0, 3), texts)
    assert measured.missed == {(first, again): 3}
    for table in measured.values.values():
        assert np.isnan(table[:, layout.span(0)]).all()
    assert not np.isnan(measured.values["entropy"][:, layout.span(1)]).any()
    assert set(measured.moments["entropy"].count[layout.span(0)]) == {0}


def test_the_models_own_attention_runs_on_our_kernels_where_these_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = deep(2, "Bert")
    layout = Layout.of(loaded)

    def measured() -> tuple[worker.Measured, int]:
        """The measurements, and how many calls ran on our kernels."""
        counts = []

        def counting(*args: Any, **options: Any) -> dict[str, str | None]:
            reasons = each_layer(*args, **options)
            with accelerate() as acceleration:  # as part of an outer block, it goes on counting
                counts.append(acceleration.counts["forward"])
            return reasons

        with monkeypatch.context() as patch:
            patch.setattr(worker, "each_layer", counting)
            own = worker.Worker(loaded, Settings(keep_texts=True), layout, 3).measure(Part(0, 0, 3), TEXTS[:3])
        return own, max(counts)

    def unavailable() -> None:
        raise KernelError("the library was not built.")

    ours, count = measured()
    assert count == 2
    with monkeypatch.context() as patch:
        patch.setattr(worker, "accelerate", unavailable)
        torchs, count = measured()
    assert count == 0
    for name, table in ours.values.items():
        np.testing.assert_allclose(table, torchs.values[name], rtol=0, atol=64 * np.finfo(np.float32).eps)


def test_the_next_part_is_computed_while_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow", reason="a survey is written by pyarrow: pip install 'clearhead[survey]'")
    loaded, read, second = induction(), Corpus.read, threading.Event()

    def reading(self: Corpus, part: Part) -> list[str | None]:
        if part.number == 1:
            second.set()
        return read(self, part)

    monkeypatch.setattr(Corpus, "read", reading)
    corpus = open_corpus(write_lines(tmp_path))
    job = Job("induction", False, "", corpus, Settings(part_texts=4), Layout.of(loaded), "")
    runner = in_process.run(job, corpus.parts(4), 1, loaded)
    next(runner)
    assert second.wait(20)  # nobody has asked for the second part yet
    assert len(list(runner)) == 2

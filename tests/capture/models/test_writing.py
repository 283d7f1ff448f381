"""Writing: the same tokens as generate, and for each step the same weights as reading the text again."""

import math

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from clearhead import AttentionMatrix, capture
from clearhead.capture.models import writing as writing_module
from clearhead.capture.models.loading import Loaded
from clearhead.capture.models.writing import Writing, pooled_rows, read_again
from clearhead.errors import ModelError

SIZE = {"vocab_size": 53, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3}
LLAMA = {"intermediate_size": 17, "num_key_value_heads": 3, "eos_token_id": None, "bos_token_id": None}
WRITERS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZE, **LLAMA)),
    "mistral, a window": lambda: MistralForCausalLM(MistralConfig(**SIZE, **LLAMA, sliding_window=5)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=53, n_embd=24, n_layer=3, n_head=3, n_positions=64, eos_token_id=None)
    ),
}


class NoWords:
    """A tokenizer whose tokens end nothing."""

    eos_token_id = None


def loaded(name: str) -> Loaded:
    torch.manual_seed(0)
    writer = WRITERS[name]().eval()
    return Loaded(model=writer.base_model, tokenizer=NoWords(), name=name, max_length=64, writer=writer)


@pytest.mark.parametrize("name", WRITERS)
def test_it_writes_what_generate_does_and_looks_where_the_whole_text_does(name: str) -> None:
    model = loaded(name)
    prompt = [5, 17, 3, 29, 41, 11, 2]
    writing = Writing(model, prompt, known=len(prompt))
    steps = [token for _ in range(6) for token in writing.step()]
    plain = model.writer.generate(torch.tensor([prompt]), max_new_tokens=6, do_sample=False)
    assert writing.ids == plain[0].tolist()
    whole, _ = read_again(model, writing.ids[:-1])
    rows = pooled_rows(whole, range(len(prompt) - 1, len(writing.ids) - 1), len(writing.ids) - 1)
    for row, step in zip(rows, steps, strict=True):
        assert torch.allclose(row[: len(step.weights)], step.weights, atol=8 * torch.finfo(torch.float32).eps)
        assert not row[len(step.weights) :].any()
        assert float(step.weights.sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_what_was_observed_while_it_wrote_is_what_reading_again_gives(name: str) -> None:
    model = loaded(name)
    prompt = [5, 17, 3, 29, 41, 11, 2]
    with Writing(model, prompt, known=len(prompt)) as writing:
        steps = [token for _ in range(6) for token in writing.step()]
    assert writing.is_read
    record, again = writing.generated(), read_again(model, writing.ids[:-1])[0]
    assert list(record) == list(again)
    for layer in record:
        torch.testing.assert_close(record[layer].to_dense(), again[layer].to_dense(), rtol=0, atol=4e-6)
    rows = pooled_rows(record, range(len(prompt) - 1, len(writing.ids) - 1), len(writing.ids) - 1)
    for row, step in zip(rows, steps, strict=True):
        assert torch.allclose(row[: len(step.weights)], step.weights, atol=1e-6)
    assert record[list(record)[1]].why(5, 3).logit == pytest.approx(again[list(again)[1]].why(5, 3).logit, rel=1e-4)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.writer.modules())
    with pytest.raises(ModelError, match="inside `with Writing"):
        Writing(model, prompt, known=7).generated()


def test_tokens_that_were_typed_are_reported_with_what_the_model_gave_them() -> None:
    model = loaded("llama")
    typed = Writing(model, [5, 17, 3, 29, 41], known=2)
    tokens = typed.step()
    assert [token.token_id for token in tokens] == typed.ids[2:]
    with torch.no_grad():
        chances = model.writer(torch.tensor([typed.ids[:-1]])).logits[0].softmax(-1)
    for place, token in enumerate(tokens, 2):
        assert token.probability == pytest.approx(float(chances[place - 1, token.token_id]), rel=1e-5)
        assert len(token.weights) == place


def test_it_ends_where_the_model_has_no_room() -> None:
    model = loaded("llama")
    writing = Writing(model, [1] * 62, known=62)
    writing.step()
    assert not writing.ended
    writing.step()
    assert writing.ended
    with pytest.raises(ModelError, match="takes at most 64"):
        Writing(model, [1] * 64, known=64)


@pytest.mark.parametrize("layer", [None, 1])
@pytest.mark.parametrize("head", [None, 2])
def test_rows_of_a_layer_or_a_head_are_those_of_its_matrix(layer: int | None, head: int | None) -> None:
    record, _ = read_again(loaded("llama"), [5, 17, 3, 29, 41])
    dense = torch.cat([matrix.to_dense() for matrix in record.values()]).double()
    chosen = dense[slice(None) if layer is None else slice(layer, layer + 1)]
    chosen = chosen[:, slice(None) if head is None else slice(head, head + 1)]
    rows = pooled_rows(record, range(2, 5), 5, layer=layer, head=head)
    assert torch.allclose(rows.double(), chosen.mean((0, 1))[2:], atol=4 * torch.finfo(torch.float32).eps)


def test_rows_of_a_long_text_hold_few_weights_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All queries of all heads of a layer were held together: 256 MB for 2,000,000 links of 32 heads."""
    record, _ = read_again(loaded("llama"), [5, 17, 3, 29, 41, 11, 2])
    at_once = pooled_rows(record, range(1, 7), 7)
    sizes: list[int] = []
    dense = AttentionMatrix.to_dense
    monkeypatch.setattr(AttentionMatrix, "to_dense", lambda self: sizes.append(math.prod(self.shape)) or dense(self))
    monkeypatch.setattr(writing_module, "AT_ONCE", 60)
    assert torch.allclose(pooled_rows(record, range(1, 7), 7), at_once, atol=4 * torch.finfo(torch.float32).eps)
    assert len(sizes) > len(record)
    assert max(sizes) <= 60


def test_models_that_write_keep_their_head_and_others_have_none(demo: Loaded) -> None:
    assert demo.writer is None
    with pytest.raises(ModelError, match="does not write"):
        Writing(demo, [1, 2], known=2)
    copier = capture.load("induction")
    assert type(copier.writer).__name__ == "LlamaForCausalLM"
    assert copier.writer.model is copier.model


def test_a_writer_without_its_head_only_reads(tmp_path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(**SIZE, **LLAMA, tie_word_embeddings=False, architectures=["LlamaForCausalLM"])
    from transformers import LlamaModel

    LlamaModel(config).save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace('"LlamaModel"', '"LlamaForCausalLM"'))
    source = capture.load("induction").tokenizer
    source.save_pretrained(tmp_path)
    headless = capture.load(tmp_path)
    assert headless.writer is None
    assert len(capture.read(headless, "a cat").record) == 3


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("known", [1, 4, 19])
def test_many_typed_tokens_are_reported_in_steps_and_as_at_once(
    name: str, known: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The logits of all of them at once take memory: vocabulary × tokens."""
    model = loaded(name)
    ids = torch.randint(53, (19,), generator=torch.Generator().manual_seed(7)).tolist()
    whole = Writing(model, ids, known=known).step()
    monkeypatch.setattr(writing_module, "REPORTED", 5)
    kept = []
    hook = model.writer.register_forward_hook(lambda *call: kept.append(call[-1].logits.shape[1]))
    writing, steps = Writing(model, ids, known=known), []
    while len(writing.ids) == len(ids):
        assert not writing.ended
        steps.append(writing.step())
    hook.remove()
    assert max(kept) <= 5
    assert [len(step) for step in steps[:-1]] == [5] * (len(steps) - 1)
    tokens = [token for step in steps for token in step]
    assert [token.token_id for token in tokens] == [token.token_id for token in whole] == writing.ids[known:]
    for token, other in zip(tokens, whole, strict=True):
        assert token.probability == pytest.approx(other.probability, rel=1e-4)
        assert torch.allclose(token.weights, other.weights, atol=1e-5)


@pytest.mark.parametrize("name", WRITERS)
def test_writing_on_reads_only_what_is_new(name: str) -> None:
    """Going on after a stop, and from another token: the prompt was read once more each time."""
    model, prompt = loaded(name), [5, 17, 3, 29, 41, 11, 2]
    lengths: list[int] = []
    hook = model.writer.register_forward_pre_hook(
        lambda _model, _args, given: lengths.append(given["input_ids"].shape[1]), with_kwargs=True
    )
    with Writing(model, prompt, known=len(prompt)) as first:
        for _ in range(6):
            first.step()
    go_on = list(first.ids)
    for ids, typed, read in ((go_on, [], [1, 1, 1, 1]), ([*go_on[:9], 50], [], [1, 1, 1, 1]), (go_on[:8], [4, 6], 0)):
        plain = Writing(model, [*ids, *typed], known=len(ids))
        expected = [token for _ in range(4) for token in plain.step()]
        lengths.clear()
        with Writing(model, [*ids, *typed], known=len(ids), after=first.continuation()) as again:
            steps = [token for _ in range(4) for token in again.step()]
        if name != "mistral, a window" or ids is go_on:  # keys that left a window are gone: the text is read again
            assert lengths == (read or [3, 1, 1, 1])
        assert again.ids == plain.ids
        for step, other in zip(steps, expected, strict=True):
            assert step.probability == pytest.approx(other.probability, rel=1e-4)
            assert torch.allclose(step.weights, other.weights, atol=1e-6)
        whole, known = again.generated(), read_again(model, again.ids[:-1])[0]
        for layer in known:
            torch.testing.assert_close(whole[layer].to_dense(), known[layer].to_dense(), rtol=0, atol=4e-6)
        first = again
    hook.remove()


def test_a_text_with_nothing_in_common_is_read_from_its_beginning() -> None:
    model = loaded("llama")
    with Writing(model, [5, 17, 3], known=3) as first:
        first.step()
    with Writing(model, [6, 17, 3], known=3, after=first.continuation()) as other:
        other.step()
    assert first.continuation() is None  # used up
    torch.testing.assert_close(
        other.generated()["model.layers.1.self_attn"].to_dense(),
        read_again(model, [6, 17, 3])[0]["model.layers.1.self_attn"].to_dense(),
    )


def test_an_error_in_the_model_leaves_nothing_to_go_on_from() -> None:
    model = loaded("llama")
    with Writing(model, [5, 17, 3], known=3) as writing:
        writing.step()
        hook = model.writer.model.layers[2].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ModelError, match="division"):
            writing.step()
        hook.remove()
    assert writing.continuation() is None

"""generate(): one matrix per step, right whatever the cache does, with keys kept once."""

import pickle

import pytest
import torch
import transformers as hf

from clearhead.capture import observe

from .families import ENCODER_DECODER, GROUPED, cache_name

NAME = "model.layers.1.self_attn"
IDS = torch.tensor([[5, 3, 9, 7, 11, 4, 8]])


def llama(**options) -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**({**GROUPED, "eos_token_id": None} | options))).eval()


def weights(model, tokens: torch.Tensor) -> torch.Tensor:
    """The eager weights of layer 1 over a whole sequence at once."""
    model.set_attn_implementation("eager")
    with torch.no_grad():
        dense = model(tokens, output_attentions=True).attentions[1]
    model.set_attn_implementation("sdpa")
    return dense


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_each_step_equals_its_row_of_the_whole(cache: str):
    model = llama()
    options = {"max_new_tokens": 6, "do_sample": False, "cache_implementation": cache}
    plain = model.generate(IDS, **options)
    with observe(model) as record:
        tokens = model.generate(IDS, **options)
    assert torch.equal(tokens, plain)
    assert record.missed == []
    exact = weights(model, tokens[:, :-1])
    row = 0
    for matrix in record.calls(NAME):
        dense = matrix.to_dense()
        seen = min(dense.shape[3], exact.shape[3])
        part = exact[:, :, row : row + dense.shape[2], :seen]
        torch.testing.assert_close(dense[..., :seen], part, rtol=0, atol=1e-6)
        assert not dense[..., seen:].any()
        row += dense.shape[2]
    assert row == 12
    assert torch.equal(record[NAME].to_dense(), record.calls(NAME)[-1].to_dense())


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_keys_of_a_growing_cache_are_kept_once(cache: str):
    model = llama()
    with observe(model) as record:
        model.generate(IDS, max_new_tokens=9, do_sample=False, cache_implementation=cache)
    steps = record._steps[NAME]
    assert len({id(step.keys) for step in steps}) == 1
    assert len({matrix._logits.key.untyped_storage().data_ptr() for matrix in record.calls(NAME)}) == 1


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_steps_of_a_growing_cache_are_not_recorded_in_full(mode, monkeypatch):
    """Tensors of inference mode have no version that would tell of a write in place: their new keys are copied."""
    from clearhead.capture import observer

    full = []
    record_step = observer.record_step
    monkeypatch.setattr(
        observer, "record_step", lambda call, *rest, **kw: full.append(call) or record_step(call, *rest, **kw)
    )
    model = llama()
    with mode(), observe(model) as record:
        tokens = model.generate(IDS, max_new_tokens=90, do_sample=False, max_length=None)
    layers = 2
    assert len(full) == 2 * layers  # the prompt, and the first step
    assert record._steps[NAME][-1].keys.tensor.is_contiguous()  # without room for more
    torch.testing.assert_close(record.generated()[1].to_dense(), weights(model, tokens[:, :-1]), rtol=0, atol=1e-6)


def test_a_generation_that_leaves_inference_mode_and_whose_cache_is_overwritten():
    model = llama()
    name, ids, cache, rows = cache_name(model), IDS, None, []
    with observe(model) as record:
        for step in range(9):
            with torch.inference_mode(2 <= step < 6):
                out = model(ids if cache is None else ids[:, -1:], **{name: cache})
            cache, ids = out[name], torch.cat([ids, out.logits[:, -1:].argmax(-1)], 1)
        for layer in cache.layers:
            layer.keys = layer.keys.clone()
    exact = weights(model, ids[:, :-1])
    for matrix in record.calls(NAME):
        rows.append(matrix.to_dense())
        first = rows[-1].shape[3] - rows[-1].shape[2]
        part = exact[:, :, first : rows[-1].shape[3], : rows[-1].shape[3]]
        torch.testing.assert_close(rows[-1], part, rtol=0, atol=1e-6)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_cache_that_is_overwritten_before_the_next_text_leaves_the_record_right(mode):
    model, caches = llama(), []
    with mode(), observe(model) as record:
        for ids in (IDS, IDS.flip(1)):
            cache = hf.DynamicCache(config=model.config)
            texts = model.generate(ids, max_new_tokens=6, do_sample=False, **{cache_name(model): cache})
            caches.append((cache, texts))
            if len(caches) == 2:
                caches[0][0].layers[1].keys.zero_()
    first = record.calls(NAME)[5]
    exact = weights(model, caches[0][1][:, :-1])[:, :, -1:]
    torch.testing.assert_close(first.to_dense(), exact, rtol=0, atol=1e-6)


def sequences(model, generate) -> list[torch.Tensor]:
    """The tokens that each step of generation has behind it, beams in their order then."""
    seen, prepare = [], model.prepare_inputs_for_generation

    def told(input_ids, *args, **options):
        seen.append(input_ids.clone())
        return prepare(input_ids, *args, **options)

    model.prepare_inputs_for_generation = told
    try:
        generate()
    finally:
        del model.prepare_inputs_for_generation
    return seen


WAYS = {
    "beams": {"num_beams": 4},
    "two texts, beams": {"num_beams": 3},
    "static beams": {"num_beams": 4, "cache_implementation": "static"},
    "sampled beams": {"num_beams": 4, "do_sample": True},
    "sequences": {"num_return_sequences": 3, "do_sample": True},
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_each_step_of_beams_equals_its_rows_of_the_whole(way: str):
    model = llama()
    ids = torch.cat([IDS, IDS.flip(1)]) if way.startswith("two") else IDS
    options = {"max_new_tokens": 17, "do_sample": False} | WAYS[way]
    torch.manual_seed(3)
    with observe(model) as record:
        texts = sequences(model, lambda: model.generate(ids, **options))
    calls = record.calls(NAME)
    assert len(calls) == len(texts) == 17
    for matrix, text in zip(calls, texts, strict=True):
        exact = weights(model, text)[:, :, -matrix.shape[2] :]
        dense = matrix.to_dense()
        torch.testing.assert_close(dense[..., : text.shape[1]], exact, rtol=0, atol=1e-6)
        assert not dense[..., text.shape[1] :].any()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["beams", "static beams"])
def test_memory_of_beams_grows_with_the_text_and_not_with_its_square(way: str):
    def kept(tokens: int) -> int:
        model = llama()
        with observe(model) as record:
            model.generate(IDS, **{"max_new_tokens": tokens, "do_sample": False} | WAYS[way])
        assert record.missed == []
        record.calls(NAME)  # put together, and not kept
        chains = {id(step.keys.chain): step.keys.chain for step in record._steps[NAME]}
        held = {id(step.keys.held): step.keys.held for step in record._steps[NAME] if step.keys.held is not None}
        own = [change for chain in chains.values() if chain is not None for change in chain.changes]
        assert own  # beams changed places
        parts = [tensor for change in own for tensor in (change.rows, change.places, change.values)]
        parts += [chain.root for chain in chains.values() if chain is not None]
        assert not any(step._made for step in record._steps[NAME] if step.keys.held is None)
        return sum(tensor.untyped_storage().nbytes() for tensor in (*parts, *held.values()))

    assert kept(64) < 2.2 * kept(32)


@pytest.mark.slow
def test_a_window_and_its_beams_are_one_cache():
    torch.manual_seed(0)
    config = hf.MistralConfig(**{**GROUPED, "eos_token_id": None}, sliding_window=8)
    model = hf.MistralForCausalLM(config).eval()
    with observe(model) as record:
        texts = sequences(model, lambda: model.generate(IDS, max_new_tokens=23, num_beams=3, do_sample=False))
    changes = record._steps[NAME][-1].keys.chain.changes
    assert len(changes) >= 20
    assert all(len(change.places) <= 2 for change in changes)
    for matrix, text in zip(record.calls(NAME), texts, strict=True):
        exact = weights(model, text)[:, :, -matrix.shape[2] :, -matrix.shape[3] :]
        torch.testing.assert_close(matrix.to_dense(), exact, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of transformers, about the assistant's settings
def test_tokens_taken_back_by_assisted_decoding_leave_the_cache():
    model, assistant = llama(), llama(num_hidden_layers=1)
    with observe(model) as record:
        tokens = model.generate(IDS, assistant_model=assistant, max_new_tokens=23, do_sample=False)
    exact = weights(model, tokens)
    calls, own = record.calls(NAME), record._steps[NAME]
    assert len(calls) > 3
    for matrix in calls:
        rows, keys = matrix.shape[2:]
        same = matrix.to_dense()[:, :, 0, : keys - rows + 1]  # the first query of a step is of the text that stays
        torch.testing.assert_close(same, exact[:, :, keys - rows, : keys - rows + 1], rtol=0, atol=1e-6)
    roots = {id(step.keys.chain) if step.keys.chain else id(step.keys) for step in own}
    assert len(roots) <= 2


@pytest.mark.slow
def test_a_record_of_many_beams_may_be_pickled():
    model = llama()
    with observe(model) as record:
        model.generate(IDS, max_new_tokens=40, num_beams=3, do_sample=False)
    again = pickle.loads(pickle.dumps(record))  # noqa: S301 (our own)
    for ours, theirs in zip(record.calls(NAME), again.calls(NAME), strict=True):
        assert torch.equal(ours.to_dense(), theirs.to_dense())


def test_an_encoder_decoder_generates():
    torch.manual_seed(0)
    config = hf.BartConfig(**{**ENCODER_DECODER, "eos_token_id": None}, max_position_embeddings=64)
    model = hf.BartForConditionalGeneration(config).eval()
    options = {"max_new_tokens": 4, "do_sample": False, "num_beams": 1}
    with observe(model) as record:
        model.generate(IDS, **options)
    cross = [matrix.shape for matrix in record.calls("model.decoder.layers.0.encoder_attn")]
    own = [matrix.shape for matrix in record.calls("model.decoder.layers.0.self_attn")]
    assert cross == [(1, 4, 1, 7)] * 4
    assert own == [(1, 4, 1, size) for size in (1, 2, 3, 4)]
    assert record["model.encoder.layers.0.self_attn"].shape == (1, 4, 7, 7)


def counted(monkeypatch, name: str) -> list:
    """The calls of one function of `observer`, as they come."""
    from clearhead.capture import observer

    calls, original = [], getattr(observer, name)
    monkeypatch.setattr(observer, name, lambda call, *rest, **kw: calls.append(call) or original(call, *rest, **kw))
    return calls


def test_a_step_whose_cache_is_known_to_append_is_neither_described_nor_compared(monkeypatch):
    from clearhead.capture.adapters import transformers_interface

    described, original = [], transformers_interface.describe
    monkeypatch.setattr(
        transformers_interface, "describe", lambda module, *rest: described.append(module) or original(module, *rest)
    )
    model = llama()
    hooks = []
    with observe(model) as record:
        model.generate(IDS, max_new_tokens=30, do_sample=False, max_length=None)
        hooks = [
            len(layer.self_attn._forward_pre_hooks | layer.self_attn._forward_hooks) for layer in model.model.layers
        ]
    # The prompt, the first step, two checked ones and one of sixteen.
    assert len(described) == 5 * 2
    assert hooks == [0, 0]
    assert len(record.calls(NAME)) == 30


@pytest.mark.parametrize("change", ["replaced", "overwritten", "reordered", "cropped"])
def test_a_cache_that_is_changed_between_steps_leaves_each_step_right(change: str):
    model = llama()
    cache, exact = None, []
    tokens = torch.cat([IDS, IDS.flip(1)])

    with torch.no_grad(), observe(model) as record:
        for step in range(9):
            out = model(tokens if cache is None else torch.full((2, 1), step), **{cache_name(model): cache})
            cache = out[cache_name(model)]
            exact.append(cache.layers[1].keys.clone())
            if step == 5:
                layer = cache.layers[1]
                if change == "replaced":
                    layer.keys = layer.keys + 1
                elif change == "overwritten":
                    layer.keys.mul_(2)
                elif change == "reordered":
                    cache.reorder_cache(torch.tensor([1, 0]))
                else:
                    cache.crop(-2)
    first = 6 if change == "overwritten" else 0  # writing into the tensor that a step used changes its record
    for matrix, keys in list(zip(record.calls(NAME), exact, strict=True))[first:]:
        assert torch.equal(matrix._logits.key, keys)


def test_keys_that_stay_as_they_are_are_kept_once_and_not_recorded_in_full(monkeypatch):
    """A decoder's cross-attention reads the same keys at each step."""
    full = counted(monkeypatch, "record_step")
    torch.manual_seed(0)
    model = hf.BartForConditionalGeneration(hf.BartConfig(**ENCODER_DECODER)).eval()
    with observe(model) as record:
        model.generate(IDS, max_new_tokens=30, min_new_tokens=30, do_sample=False)
    name = "model.decoder.layers.1.encoder_attn"
    assert len(record.calls(name)) == 30
    assert len({id(step.keys) for step in record._steps[name]}) == 1
    layers = [call.module for call in full]
    assert layers.count(dict(model.named_modules())[name]) == 1  # decoders begin with one query
    assert record.missed == []


def test_a_layer_that_is_called_by_itself_knows_the_positions_of_its_cache():
    model = llama()
    cache = hf.DynamicCache(config=model.config)
    layer = model.model.layers[1]
    with torch.no_grad(), observe(model) as record:
        for start, size in ((0, 5), (5, 1), (6, 1)):
            states = torch.randn(1, size, model.config.hidden_size)
            positions = torch.arange(start, start + size)[None]
            rotary = model.model.rotary_emb(states, positions)
            layer(states, position_embeddings=rotary, position_ids=positions, **{cache_name(model): cache})
    places = record.positions(NAME)
    assert [place.queries.positions for place in places] == [range(5), range(5, 6), range(6, 7)]
    assert {place.nth for place in places} == {0}
    assert {place.text for place in places} == {0}

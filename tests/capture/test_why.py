"""A.why(i, j): a logit as a sum over the residual stream's parts, for each family that is known."""

import numpy as np
import pytest
import torch
import transformers as hf

from clearhead import AttentionMatrix
from clearhead.capture import observe
from clearhead.errors import CaptureError, OptionError, PlaceError

from .families import GPT, GROUPED, SIZE, ids

MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**{**GROUPED, "num_hidden_layers": 3})),
    "gpt2": lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**{**GPT, "n_layer": 3})),
    "bert": lambda: hf.BertModel(hf.BertConfig(**{**SIZE, "num_hidden_layers": 3})),
}


def recorded(make):
    torch.manual_seed(0)
    model = make().double().eval()
    for parameter in model.parameters():  # norms and biases that are not 1 and 0
        parameter.data += 0.1 * torch.randn_like(parameter)
    with torch.no_grad(), observe(model) as record:
        model(ids())
    return model, record


@pytest.mark.parametrize("family", MODELS)
def test_the_parts_sum_to_the_logit_and_are_what_each_module_writes(family):
    _, record = recorded(MODELS[family])
    close = 1e-5 if family == "llama" else 1e-12  # its RMSNorm computes in float32, whatever the model's dtype is
    for layer, matrix in enumerate(record.values()):
        why = matrix.why(8, 3, head=2, batch=1)
        logits = matrix._logits
        group = matrix.shape[1] // logits.key.shape[1]
        exact = logits.query[1, 2, 8] @ logits.key[1, 2 // group, 3] * logits.attention.scale
        assert why.logit == pytest.approx(float(exact.detach()), abs=close)
        assert sum(why.query_parts.values()) == pytest.approx(why.logit, abs=1e-12)
        assert sum(why.key_parts.values()) == pytest.approx(why.logit, abs=1e-12)
        heads = [f"{earlier}.{head}" for earlier in range(layer) for head in range(4)]
        assert set(heads) < set(why.names)
        assert {"token", "bias", *(f"mlp {n}" for n in range(layer))} < {*why.names, "-"}
        assert why.strongest(1)[0][2] == pytest.approx(float(why.table.flatten()[why.table.abs().argmax()]))


def test_a_part_that_writes_nothing_gives_nothing():
    torch.manual_seed(0)
    model = MODELS["llama"]().double().eval()
    model.model.layers[0].self_attn.o_proj.weight.data[:, 6:12] = 0  # head 1 of layer 0
    model.model.layers[1].mlp.down_proj.weight.data.zero_()
    with torch.no_grad(), observe(model) as record:
        model(ids())
    parts = record["model.layers.2.self_attn"].why(9, 4).query_parts
    assert parts["0.1"] == parts["mlp 1"] == parts["bias"] == 0
    assert all(parts[name] != 0 for name in ("token", "0.0", "1.3", "mlp 0"))


def test_what_it_cannot_split_is_refused_in_words():
    with pytest.raises(OptionError, match="needs the model"):
        AttentionMatrix(torch.randn(1, 2, 5, 3), torch.randn(1, 2, 5, 3)).why(1, 0)
    _, record = recorded(lambda: hf.Qwen3Model(hf.Qwen3Config(**GROUPED, head_dim=8)))
    with pytest.raises(CaptureError, match="not built as Llama, GPT-2 or BERT"):
        record["layers.1.self_attn"].why(1, 0)
    model, record = recorded(MODELS["llama"])
    with pytest.raises(PlaceError, match="key=11"):
        record["model.layers.1.self_attn"].why(1, 11)
    model.model.layers[0].self_attn.o_proj.weight.data *= 3
    with pytest.raises(CaptureError, match="model or its input has changed"):
        record["model.layers.2.self_attn"].why(5, 2)


@pytest.mark.parametrize(
    "place", ["x", None, 1.0, True, [3], torch.tensor(2.0), torch.tensor(True), torch.tensor([1, 2])]
)
def test_what_is_not_a_position_is_refused_by_its_name(place):
    _, record = recorded(MODELS["gpt2"])
    matrix = next(iter(record.values()))
    for name in ("query", "key", "head", "batch"):
        with pytest.raises(PlaceError, match=rf"^{name}=.* is not an integer\. Use 0\.\.\d+, or -1 for the last\.$"):
            matrix.why(**{"query": 3, "key": 1, name: place})


def test_a_position_may_count_from_the_end_or_be_an_integer_of_torch_or_numpy():
    _, record = recorded(MODELS["gpt2"])
    matrix = list(record.values())[1]
    expected = matrix.why(10, 9, head=3, batch=1).logit
    for whole in (torch.tensor, np.int64, np.uint8):
        assert matrix.why(whole(10), whole(9), head=whole(3), batch=whole(1)).logit == expected
    assert matrix.why(-1, -2, head=-1, batch=-1).logit == expected


@pytest.mark.parametrize(
    ("family", "mask", "query", "key", "free"),
    [
        ("gpt2", None, 3, 9, "the 4 keys it may attend, between 0 and 3"),
        ("llama", "left", 7, 1, "the 5 keys it may attend, between 3 and 7"),
        ("llama", "left", 1, 0, "may attend no key"),
        ("bert", "right", 4, 10, "the 8 keys it may attend, between 0 and 7"),
    ],
)
def test_a_pair_that_the_mask_forbids_is_refused_and_the_allowed_keys_are_said(family, mask, query, key, free):
    torch.manual_seed(0)
    model = MODELS[family]().eval()
    padded = torch.ones_like(ids())
    if mask:
        padded[1, {"left": slice(3), "right": slice(8, None)}[mask]] = 0
    with torch.no_grad(), observe(model) as record:
        model(ids(), attention_mask=padded)
    matrix = list(record.values())[1]
    with pytest.raises(PlaceError, match=f"query {query} may not attend key {key} .*{free}"):
        matrix.why(query, key, head=2, batch=1)

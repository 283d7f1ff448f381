"""What heads add to the residual stream, against the module's output and a dense float64 product; computed lazily."""

import copy

import pytest
import torch
import transformers as hf
from torch import nn

import clearhead
from clearhead.capture import observe
from clearhead.capture.head_outputs.contributions import Contributions
from clearhead.errors import CaptureError, DtypeError, OptionError, ShapeError

from ..conftest import SENTENCE
from ..families import GPT, GROUPED, SIZE, ids

EPS = torch.finfo(torch.float32).eps


def bert():
    model = hf.BertModel(hf.BertConfig(**SIZE))
    return model, [layer.attention.output.dense for layer in model.encoder.layer]


def llama():
    model = hf.LlamaModel(hf.LlamaConfig(**GROUPED))
    return model, [layer.self_attn.o_proj for layer in model.layers]


def qwen3():
    model = hf.Qwen3Model(hf.Qwen3Config(**GROUPED, head_dim=8))  # H·D_v is not the width of the model
    return model, [layer.self_attn.o_proj for layer in model.layers]


def gpt2():
    model = hf.GPT2Model(hf.GPT2Config(**GPT))
    return model, [layer.attn.c_proj for layer in model.h]


def t5():
    model = hf.T5EncoderModel(hf.T5Config(vocab_size=23, d_model=24, d_kv=5, d_ff=17, num_layers=2, num_heads=4))
    return model, [block.layer[0].SelfAttention.o for block in model.encoder.block]


def run(model, projections, tokens, **options):
    """(record, the input and the output of each projection), of one pass."""
    seen = {}
    hooks = [
        layer.register_forward_hook(lambda _, args, out, n=n: seen.__setitem__(n, (args[0].detach(), out.detach())))
        for n, layer in enumerate(projections)
    ]
    with torch.no_grad(), observe(model.eval(), values=True, **options) as record:
        model(tokens)
    for hook in hooks:
        hook.remove()
    return record, [seen[n] for n in range(len(projections))]


def parts(layer, heads):
    weight = layer.weight.detach().double()
    weight = weight if type(layer).__name__ == "Conv1D" else weight.T
    return weight.reshape(heads, -1, weight.shape[-1])


def check(C, layer, merged, out):
    """Compare contributions with those from the projection's input, in float64, and their sum with its output."""
    batch, heads, length, width = C.shape
    z = merged.double().reshape(batch, length, heads, -1).transpose(1, 2)
    expected = z @ parts(layer, heads)
    bound = 32 * EPS * float(z.abs().max() * parts(layer, heads).abs().sum(1).max())
    assert float((C.to_dense().double() - expected).abs().max()) <= bound
    assert float((C.norms().double() - expected.norm(dim=-1)).abs().max()) <= bound * width**0.5
    whole = C.sum().double() if layer.bias is None else C.sum().double() + layer.bias.detach().double()
    assert float((whole - out.double()).abs().max()) <= heads * bound


@pytest.mark.parametrize("family", [bert, llama, qwen3, gpt2, t5])
def test_they_are_the_projected_outputs_of_heads(family):
    torch.manual_seed(3)
    model, projections = family()
    record, seen = run(model, projections, ids())
    for n, layer in enumerate(projections):
        check(record.contributions(n), layer, *seen[n])


def value_of(projection_name, model):
    """The layer that makes a layer's values, and which of its outputs they are: by itself, or fused with the others."""
    names = {"attention.output.dense": "attention.self.value", "o_proj": "v_proj", "c_proj": "c_attn", "o": "v"}
    end = next(end for end in names if projection_name.endswith(end))
    layer = model.get_submodule(projection_name.removesuffix(end) + names[end])
    return layer, (2, 3) if end == "c_proj" else (0, 1)


@pytest.mark.parametrize("family", [bert, llama, qwen3, gpt2, t5])
def test_norms_of_edges_are_those_of_weights_values_and_projection(family):
    """‖aᵢⱼ·W_O vⱼ‖ from the model's own eager weights and its values with their bias, in float64."""
    torch.manual_seed(3)
    model, projections = family()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)  # biases count
    model.eval().set_attn_implementation("eager")
    names = {id(module): name for name, module in model.named_modules()}
    made = {}
    for n, projection in enumerate(projections):
        layer, (part, of) = value_of(names[id(projection)], model)
        layer.register_forward_hook(lambda _, __, out, n=n, part=part, of=of: made.update({n: out.chunk(of, -1)[part]}))
    with torch.no_grad():
        exact = model(ids(), output_attentions=True).attentions
        with observe(model, values=True) as record:
            model(ids())
    for n, projection in enumerate(projections):
        heads = exact[n].shape[1]
        weight = parts(projection, heads)
        value = made[n].double().unflatten(-1, (-1, weight.shape[1])).transpose(1, 2)
        value = value.repeat_interleave(heads // value.shape[1], 1)
        edges = (exact[n].double()[..., None] * (value @ weight)[:, :, None]).norm(dim=-1)
        bound = 32 * EPS * float(edges.max()) + 8 * EPS
        assert float((record.value_weighted(n).to_dense().double() - edges).abs().max()) <= bound


def test_a_quantised_projection_is_refused_in_words():
    class Codes(nn.Linear):
        def __init__(self) -> None:
            super().__init__(24, 24, bias=False)
            self.weight = nn.Parameter(torch.randint(-9, 9, (24, 24), dtype=torch.int8), requires_grad=False)

        def forward(self, x):
            return x @ self.weight.T.to(x.dtype) / 9

    model, _ = llama()
    for layer in model.layers:
        layer.self_attn.o_proj = Codes()
    record, _ = run(model, [], ids())
    for asked in (record.value_weighted, record.contributions):
        with pytest.raises(CaptureError, match=r"Codes keeps its weight as torch\.int8"):
            asked(0)


def test_on_every_layer_of_the_demo_model(demo):
    tokens = demo.tokenizer(SENTENCE, return_tensors="pt").input_ids
    projections = [layer.attention.output.dense for layer in demo.model.encoder.layer]
    record, seen = run(demo.model, projections, tokens)
    for n, name in enumerate(record):
        check(record.contributions(name), projections[n], *seen[n])


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, clearhead.MultiheadAttention])
def test_of_multihead_attention(kind):
    torch.manual_seed(3)
    layer, x = kind(24, 4, batch_first=True).eval(), torch.randn(2, 7, 24)
    with torch.no_grad(), observe(layer, values=True) as record:
        out = layer(x, x, x, need_weights=False)[0]
    whole = record.contributions(0).sum() + layer.out_proj.bias.detach()
    assert float((whole - out).abs().max()) <= 32 * EPS * float(out.abs().max() + 1)


def test_of_some_heads():
    torch.manual_seed(3)
    model, projections = llama()
    record, _ = run(model, projections, ids())
    few, _ = run(model, projections, ids(), heads=[3, 0])
    torch.testing.assert_close(few.contributions(1).to_dense(), record.contributions(1).to_dense()[:, [3, 0]])


def test_along_a_direction_is_what_a_head_adds_to_a_logit():
    torch.manual_seed(3)
    model, projections = llama()
    record, _ = run(model, projections, ids())
    C, unembedding = record.contributions(0), torch.randn(24, 23)
    expected = C.to_dense().double() @ unembedding.double()
    bound = 64 * EPS * float(expected.abs().max())
    assert float((C.along(unembedding) - expected).abs().max()) <= bound
    assert float((C.along(unembedding[:, 5]) - expected[..., 5]).abs().max()) <= bound
    with pytest.raises(ShapeError, match=r"expected \(24,\) or \(24, n\), axis E first"):
        C.along(unembedding.T)
    for token in ("x", 5, None, [0.5] * 24, torch.tensor([5])):
        with pytest.raises(DtypeError, match=r"^direction is .*expected a tensor of floating point: a row of"):
            C.along(token)


KEYS = (0, -1, (1, 2), (slice(None), 3, slice(2, 5)), (0, 1, 2, 3), (0, slice(1, 3), -1, slice(None, 4)), ..., [1, 0])


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_they_are_indexed_as_a_tensor(key):
    make = torch.Generator().manual_seed(0)
    C = Contributions(torch.randn(2, 5, 7, 3, generator=make), torch.randn(5, 3, 11, generator=make))
    torch.testing.assert_close(C[key], C.to_dense()[key])


@pytest.mark.parametrize("key", [2, (0, 5), (0, 0, -8), (0, 0, 0, 11)])
def test_an_index_that_is_not_there_is_refused(key):
    with pytest.raises(IndexError):
        Contributions(torch.zeros(2, 5, 7, 3), torch.zeros(5, 3, 11))[key]


def test_only_what_is_asked_for_is_computed():
    wide = torch.ones(1, 1, 1).expand(5, 3, 10**9)  # 28 GB for one position of one head alone
    C = Contributions(torch.ones(2, 5, 7, 3), wide)
    assert C.shape == (2, 5, 7, 10**9)
    assert C[1, 4, 6, 10**8].item() == 3
    assert C[:, :, :, :2].shape == (2, 5, 7, 2)


def test_of_a_generation():
    torch.manual_seed(3)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)).eval()
    with torch.no_grad(), observe(model, values=True) as record:
        text = model.generate(ids(5), max_new_tokens=4, do_sample=False, eos_token_id=None)
    with torch.no_grad(), observe(model, values=True) as at_once:
        model(text[:, :-1])
    ours, theirs = record.joined().contributions(1), at_once.contributions(1)
    assert ours.shape == theirs.shape == (2, 4, 8, 24)
    torch.testing.assert_close(ours.to_dense(), theirs.to_dense(), rtol=1e-4, atol=1e-5)


class Gated(nn.Module):
    """Attention whose heads' outputs are gated before the projection."""

    def __init__(self):
        super().__init__()
        self.attn = GatedAttention()

    def forward(self, x):
        return self.attn(x)


class GatedAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(24, 24)

    def forward(self, x):
        heads = x.unflatten(-1, (4, 6)).transpose(1, 2)
        z = nn.functional.scaled_dot_product_attention(heads, heads, heads)
        return self.out(z.transpose(1, 2).flatten(2) * x.sigmoid())


def test_a_projection_of_something_else_is_not_taken_for_one():
    model = Gated()
    with torch.no_grad(), observe(model, values=True) as record:
        model(torch.randn(2, 7, 24))
    assert record.z(0).shape == (2, 4, 7, 6)
    with pytest.raises(CaptureError, match="output projection of 'attn' is not known"):
        record.contributions(0)


class LowRankAdded(nn.Module):
    """A linear layer with a low-rank update beside it, as PEFT wraps one."""

    def __init__(self, layer):
        super().__init__()
        self.base_layer = layer
        self.lora_A = nn.Linear(layer.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, layer.out_features, bias=False)

    def forward(self, x):
        return self.base_layer(x) + self.lora_B(self.lora_A(x))


def test_a_part_of_a_projection_is_not_taken_for_all_of_it():
    model, _ = llama()
    model.layers[1].self_attn.o_proj = LowRankAdded(model.layers[1].self_attn.o_proj)
    with torch.no_grad(), observe(model.eval(), values=True) as record:
        model(ids())
    assert record.contributions(0).shape == (2, 4, 11, 24)
    with pytest.raises(CaptureError, match=r"output projection of 'layers\.1\.self_attn' is not known"):
        record.contributions(1)


def test_without_values_and_of_layers_that_are_not_there():
    model, _ = llama()
    with torch.no_grad(), observe(model.eval()) as record:
        model(ids())
    with pytest.raises(OptionError, match="values=True"):
        record.contributions(0)
    for layer in (2, -3, True):
        with pytest.raises(OptionError, match=r"no layer .*0\.\.1, or a name: layers\.0\.self_attn"):
            record.contributions(layer)
    with pytest.raises(KeyError, match="recorded: layers"):
        record.contributions("layers.7")


def test_q_k_v_and_z_of_a_record():
    torch.manual_seed(3)
    model, projections = llama()
    record, seen = run(model, projections, ids())
    A = record["layers.1.self_attn"]
    assert torch.equal(record.q(1), A.q)
    assert torch.equal(record.k("layers.1.self_attn"), A.k)
    assert record.k(1).shape == record.v(1).shape == (2, 2, 11, 6)
    expected = seen[1][0].unflatten(-1, (4, 6)).transpose(1, 2)
    torch.testing.assert_close(record.z(-1), expected, rtol=1e-5, atol=1e-6)


def test_every_hook_is_gone_and_a_copy_made_inside_runs():
    model, _ = llama()
    with torch.no_grad(), observe(model.eval(), values=True) as record:
        copied = copy.deepcopy(model)
        copied(ids())
        model(ids())
    assert len(record) == 2
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())

"""observe() in unusual surroundings: copies, pickles, autocast, transforms, observers that exit out of order."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaModel

import clearhead
from clearhead.capture import observe
from clearhead.capture.adapters import transformers_interface
from clearhead.capture.attention_modules import modules_by_name

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
WIDTH = 12


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": WIDTH, "intermediate_size": 7, "num_attention_heads": 3, "num_key_value_heads": 1}
    return LlamaModel(LlamaConfig(vocab_size=11, num_hidden_layers=2, **sizes)).eval()


def encoder(ours: bool = False):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 3, 7, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    if ours:
        clearhead.replace_attention(model)
    return model


MODELS = {
    "llama": (llama, IDS),
    "torch's": (encoder, torch.randn(2, 5, WIDTH)),
    "ours": (lambda: encoder(ours=True), torch.randn(2, 5, WIDTH)),
}


def answer(output):
    return getattr(output, "last_hidden_state", output)


@pytest.fixture(params=MODELS)
def run(request):
    """(model, what to call it with)."""
    make, given = MODELS[request.param]
    return make(), given


@torch.no_grad()
def test_a_copy_made_while_somebody_observes_runs_and_is_not_observed(run):
    model, given = run
    wanted = answer(model(given))
    file = io.BytesIO()
    with observe(model) as record:
        copied = copy.deepcopy(model)
        torch.save(model, file)
        file.seek(0)
        copies = [copied, torch.load(file, weights_only=False)]
        inside = [answer(other(given)) for other in copies]
        model(given)
    assert [len(record.calls(name)) for name in record] == [1, 1]
    assert record.missed == []
    for found in (*inside, *(answer(other(given)) for other in copies)):
        torch.testing.assert_close(found, wanted)


@torch.no_grad()
def test_a_record_may_be_pickled(run):
    model, given = run
    with observe(model) as record:
        model(given)
    again = pickle.loads(pickle.dumps(record))  # noqa: S301 (our own)
    assert list(again) == list(record)
    for name, matrix in record.items():
        assert torch.equal(again[name].to_dense(), matrix.to_dense())


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch's own, of its flash operator under vmap
def test_a_model_without_numbers_runs_on_and_is_named(run):
    model, given = run
    names = [f"layers.{n}.self_attn" for n in range(2)]
    with observe(model) as record:
        torch.func.vmap(lambda one: answer(model(one[None])), randomness="different")(given)
    assert [item.name for item in record.missed] == names
    with observe(model.to("meta")) as record:
        assert answer(model(given.to("meta"))).is_meta
    assert [item.name for item in record.missed] == names
    assert "hold no numbers" in record.missed[0].reason


def test_gradients_by_torch_func_are_observed(run):
    model, given = run

    def loss(parameters):
        return answer(torch.func.functional_call(model, parameters, (given,))).square().sum()

    with observe(model) as record:
        found = torch.func.grad(loss)(dict(model.named_parameters()))
    assert len(record) == 2
    rows = next(iter(record.values())).to_dense().sum(-1)
    torch.testing.assert_close(rows, torch.ones_like(rows))
    assert all(gradient.isfinite().all() for gradient in found.values())


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_autocast_is_what_the_products_saw(implementation):
    """Llama's queries and keys are float32 behind their rotation, and bfloat16 in the products."""
    model = llama()
    model.set_attn_implementation(implementation)
    with torch.autocast("cpu", torch.bfloat16), observe(model) as record:
        model(IDS)
    assert record.missed == []
    assert [matrix.dtype for matrix in record.values()] == [torch.bfloat16] * 2
    with torch.autocast("cpu", torch.bfloat16):
        model.set_attn_implementation("eager")
        weights = model(IDS, output_attentions=True).attentions
    for matrix, wanted in zip(record.values(), weights, strict=True):
        torch.testing.assert_close(matrix.to_dense().float(), wanted.float(), atol=0.02, rtol=0.02)


@torch.no_grad()
def test_observers_may_leave_in_another_order():
    """Generators and exit stacks exit in any order: the remaining observer keeps recording, and no hook stays."""
    model = llama()
    first, second = observe(model), observe(model)
    earlier, later = first.__enter__(), second.__enter__()
    model(IDS)
    first.__exit__(None, None, None)
    model(IDS)
    second.__exit__(None, None, None)
    model(IDS)
    assert [len(earlier.calls(name)) for name in earlier] == [1, 1]
    assert [len(later.calls(name)) for name in later] == [2, 2]
    assert transformers_interface._listeners.get() == ()


def test_modules_by_name_are_those_of_named_modules() -> None:
    """Also where one module has two names, a name has no module, and a module holds itself."""
    shared = nn.Linear(2, 3)
    model = nn.Sequential(nn.ModuleList([shared, nn.Sequential(shared, nn.ReLU())]), shared)
    model.register_module("none", None)
    model.add_module("itself", model)
    assert list(modules_by_name(model).items()) == list(model.named_modules())

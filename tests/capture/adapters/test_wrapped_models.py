"""Models as people run them: quantised, spread by a device map, sharded, compiled, in a pipeline. Needs the packages."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from torch import Tensor, nn

from clearhead.capture import Record, intervene, observe

from .test_packages import package

pytestmark = [
    pytest.mark.stress,
    pytest.mark.filterwarnings("ignore"),  # warnings of other packages are not ours to fix
]

SIZE = {"vocab_size": 37, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
SIZE |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "eos_token_id": None}
IDS = torch.randint(3, 37, (2, 11), generator=torch.Generator().manual_seed(1))


def llama() -> hf.LlamaForCausalLM:
    torch.manual_seed(0)
    return hf.LlamaForCausalLM(hf.LlamaConfig(**SIZE)).eval()


def inner(model: nn.Module) -> nn.Module:
    return getattr(model, "_orig_mod", model)


def check(model: Any, *, atol: float = 1e-6, rounds: float = 0) -> Record:
    """Observe the model; compare its output with the plain run, and each head with the model's own eager weights."""
    plain = model(IDS).logits
    with observe(model) as record:
        out = model(IDS).logits
    torch.testing.assert_close(out, plain, rtol=0, atol=rounds)
    assert record.missed == []
    own = inner(model)
    own.set_attn_implementation("eager")
    exact = own(IDS, output_attentions=True).attentions
    own.set_attn_implementation("sdpa")
    assert len(record) == len(exact) == 2
    for matrix, table in zip(record.values(), exact, strict=True):
        torch.testing.assert_close(matrix.to_dense(), table.to(matrix.dtype), rtol=0, atol=atol)
    return record


def check_off(model: Any) -> None:
    """Switching off a head works as in any model: the output changes, and is restored."""
    before = model(IDS).logits
    with intervene(model, {(1, 2): "zero"}):
        without = model(IDS).logits
    assert not torch.equal(without, before)
    assert torch.equal(model(IDS).logits, before)


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def by_torchao(name: str) -> Callable[[nn.Module], nn.Module]:
    def quantise(model: nn.Module) -> nn.Module:
        package("torchao")
        import torchao.quantization as quantization

        quantization.quantize_(model, getattr(quantization, name)())
        return model

    return quantise


def by_bitsandbytes(kind: str) -> Callable[[nn.Module], nn.Module]:
    def quantise(model: nn.Module) -> nn.Module:
        layers = package("bitsandbytes").nn
        for parent in list(model.modules()):
            for name, layer in list(parent.named_children()):
                if type(layer) is not nn.Linear or name == "lm_head":
                    continue
                size = layer.in_features, layer.out_features
                if kind == "int8":
                    small = layers.Linear8bitLt(*size, bias=False, has_fp16_weights=False)
                else:
                    small = layers.Linear4bit(*size, bias=False, quant_type=kind, compute_dtype=torch.float32)
                small.load_state_dict(layer.state_dict())
                setattr(parent, name, small.to("cpu"))
        return model

    return quantise


def by_torch(model: nn.Module) -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


QUANTISED = {
    "torchao, int8 weights": by_torchao("Int8WeightOnlyConfig"),
    "torchao, int8": by_torchao("Int8DynamicActivationInt8WeightConfig"),
    "torchao, int4 weights": by_torchao("Int8DynamicActivationIntxWeightConfig"),
    "bitsandbytes, int8": by_bitsandbytes("int8"),
    "bitsandbytes, nf4": by_bitsandbytes("nf4"),
    "torch, int8": by_torch,
}


@pytest.mark.parametrize("how", QUANTISED)
def test_quantised(how: str) -> None:
    model = QUANTISED[how](llama())
    # If inputs are quantised too, eager weights that differ in the last bit may round to another step.
    record = check(model, atol=1e-3 if how == "torchao, int8" else 1e-6)
    check_off(model)
    exact = llama()(IDS).logits
    assert not torch.equal(model(IDS).logits, exact)  # it is quantised
    assert [A.shape for A in record.values()] == [(2, 4, 11, 11)] * 2


@pytest.mark.parametrize("where", ["memory", "disk"])
def test_a_device_map_whose_hooks_bring_weights_as_they_are_used(where: str, tmp_path: Path) -> None:
    accelerate = package("accelerate")
    model, plain = llama(), llama()
    if where == "memory":
        model = accelerate.cpu_offload(model, torch.device("cpu"))
    else:
        model = accelerate.disk_offload(model, str(tmp_path), execution_device=torch.device("cpu"))
    assert any(parameter.is_meta for parameter in model.parameters())
    record = check(model)
    assert torch.equal(model(IDS).logits, plain(IDS).logits)
    check_off(model)
    assert [re.sub(r"\d", "#", name) for name in record] == ["model.layers.#.self_attn"] * 2


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_sharded_by_fsdp2(one_rank: None) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (1,))
    model = llama()
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    check(model)
    check_off(model)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled(backend: str) -> None:
    model = torch.compile(llama(), backend=backend)
    check(model, rounds=1e-6)


def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<unk>": 0, "<s>": 1, "</s>": 2} | {letter: 3 + i for i, letter in enumerate("abcdefghijklmnop")}
    own = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    return hf.PreTrainedTokenizerFast(tokenizer_object=own, unk_token="<unk>", pad_token="<unk>", eos_token="</s>")


def test_a_pipeline_that_writes() -> None:
    model = llama()
    pipeline = hf.pipeline("text-generation", model=model, tokenizer=tokenizer(), device="cpu")
    options = {"max_new_tokens": 5, "do_sample": False, "return_tensors": True}
    with observe(pipeline.model) as record:
        (text,) = pipeline("a b c d e", **options)
    assert text == pipeline("a b c d e", **options)[0]
    assert record.missed == []
    ids = torch.tensor([text["generated_token_ids"][:-1]])
    model.set_attn_implementation("eager")
    exact = model(ids, output_attentions=True).attentions
    for matrix, table in zip(record.generated(), exact, strict=True):
        torch.testing.assert_close(matrix.to_dense(), table, rtol=0, atol=1e-6)


def test_a_pipeline_that_reads_a_batch() -> None:
    torch.manual_seed(0)
    config = hf.BertConfig(
        vocab_size=37, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=17
    )
    model = hf.BertForMaskedLM(config).eval()
    own = tokenizer()
    own.add_special_tokens({"mask_token": "m"})
    pipeline = hf.pipeline("fill-mask", model=model, tokenizer=own, device="cpu")
    with observe(pipeline.model) as record:
        pipeline(["a b m d", "m p o"])
    assert record.missed == []
    name = list(record)[1]
    exact: list[Tensor] = []
    model.set_attn_implementation("eager")
    for text in ("a b m d", "m p o"):
        exact.append(model(own(text, return_tensors="pt")["input_ids"], output_attentions=True).attentions[1])
    for matrix, table in zip(record.calls(name), exact, strict=True):
        torch.testing.assert_close(matrix.to_dense(), table, rtol=0, atol=1e-6)

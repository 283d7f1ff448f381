"""Models of other packages: a recorded matrix is a softmax of the model; everything else is missed with a reason."""

import importlib
import re
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from clearhead.capture import observe

pytestmark = [
    pytest.mark.stress,
    pytest.mark.filterwarnings("ignore"),  # warnings of other packages are not ours to fix
]


def package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision built for another torch raises RuntimeError
        pytest.skip(f"{name} cannot be imported: {error}")


class Softmaxes(TorchFunctionMode):
    """Keeps the weights of each softmax, and of each call of scaled_dot_product_attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Tensor] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.softmax, Tensor.softmax, F.softmax):
            self.tables.append(out.detach().clone())
        elif func is F.scaled_dot_product_attention:
            self.tables.append(self.weights(*args, **(kwargs or {})))
        return out

    def weights(self, q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, **_):
        logits = q @ k.mT * (q.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool).tril()
        if attn_mask is not None:
            logits = logits.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else logits + attn_mask
        return logits.softmax(-1).detach()


@torch.no_grad()
def check(model: nn.Module, *inputs: Tensor, recorded: int, missed: int = 0, reason: str = "") -> None:
    """Observe a model whose parameters are not those of its start, where mixes of heads are the identity."""
    torch.manual_seed(0)
    for parameter in model.eval().parameters():
        parameter.add_(0.02 * torch.randn_like(parameter))
    with Softmaxes() as softmaxes:
        plain = model(*inputs)
    with observe(model) as record:
        out = model(*inputs)
    torch.testing.assert_close(out, plain, rtol=0, atol=0)
    assert (len(record), len(record.missed)) == (recorded, missed)
    assert all(re.search(reason, item.reason) for item in record.missed)
    for name, matrix in record.items():
        table = matrix.to_dense()
        batch, heads, *rest = table.shape
        shapes = (table.shape, (batch * heads, *rest))
        same = (t.reshape(table.shape) for t in softmaxes.tables if tuple(t.shape) in map(tuple, shapes))
        assert any(torch.allclose(t, table, rtol=0, atol=2e-5) for t in same), name


SMALL = {"image_size": 32, "patch_size": 8, "num_classes": 5, "dim": 24, "depth": 2, "heads": 3, "mlp_dim": 16}
VIT_PYTORCH = {
    "vit.ViT": (SMALL | {"dim_head": 7}, 2, 0, ""),
    "simple_vit.SimpleViT": (SMALL, 2, 0, ""),
    "parallel_vit.ViT": (SMALL | {"dim_head": 7}, 4, 0, ""),
    "vit_for_small_dataset.ViT": (SMALL | {"dim_head": 7}, 2, 0, ""),
    "learnable_memory_vit.ViT": (SMALL | {"dim_head": 7}, 2, 0, ""),
    "rvt.RvT": (SMALL, 2, 0, ""),  # merges batch and heads
    "deepvit.DeepViT": (SMALL | {"dim_head": 7}, 0, 2, "between the softmax and the values"),
    "cait.CaiT": (SMALL | {"dim_head": 7, "cls_depth": 1}, 0, 3, "between the softmax and the values"),
    "max_vit.MaxViT": (
        {"num_classes": 5, "dim": 32, "dim_head": 8, "depth": (1,), "window_size": 4},
        0,
        2,
        "in blocks of 16 queries",
    ),
}


@pytest.mark.parametrize("kind", VIT_PYTORCH)
def test_vit_pytorch(kind):
    package("vit_pytorch")
    options, recorded, missed, reason = VIT_PYTORCH[kind]
    file, name = kind.split(".")
    model = getattr(importlib.import_module(f"vit_pytorch.{file}"), name)(**options)
    size = options.get("image_size", 64)
    check(model, torch.randn(2, 3, size, size), recorded=recorded, missed=missed, reason=reason)


TIMM = {
    "vit_tiny_patch16_224": ({"img_size": 32, "depth": 2}, 2, 0, ""),
    "swin_tiny_patch4_window7_224": (
        {"img_size": 56, "depths": (1, 1, 1, 1), "embed_dim": 24, "num_heads": (3, 3, 3, 3)},
        4,
        0,
        "",
    ),
    "cait_xxs24_224": ({"img_size": 32, "depth": 2}, 2, 2, "between the softmax and the values"),
    "beit_base_patch16_224": ({"img_size": 32, "depth": 1}, 1, 0, ""),
    "xcit_nano_12_p8_224": ({"img_size": 32, "depth": 1}, 3, 0, ""),
    "twins_pcpvt_small": ({"img_size": 64, "depths": (1, 1, 1, 1)}, 4, 0, ""),
    "samvit_base_patch16_224": ({"depth": 2}, 2, 0, ""),
    "mobilevitv2_050": ({}, 0, 9, "not a product of queries and keys"),
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", TIMM)
def test_timm(name, fused):
    timm = package("timm")
    options, recorded, missed, reason = TIMM[name]
    before = timm.layers.use_fused_attn()
    timm.layers.set_fused_attn(fused)
    try:
        model = timm.create_model(name, num_classes=5, **options)
    finally:
        timm.layers.set_fused_attn(bool(before))
    size = options.get("img_size", 224 if "sam" in name else 64)
    check(model, torch.randn(2, 3, size, size), recorded=recorded, missed=missed, reason=reason)


X_TRANSFORMERS = {
    "plain": ({}, 2, 0, ""),
    "flash": ({"attn_flash": True}, 2, 0, ""),
    "heads mixed before": ({"attn_pre_talking_heads": True}, 2, 0, ""),
    "heads mixed after": ({"attn_post_talking_heads": True}, 0, 2, "between the softmax and the values"),
    "one key head": ({"attn_one_kv_head": True}, 2, 0, ""),
    "rotary": ({"rotary_pos_emb": True}, 2, 0, ""),
    "alibi": ({"alibi_pos_bias": True}, 2, 0, ""),
    "top keys": ({"attn_sparse_topk": 3}, 2, 0, ""),
    "memory": ({"attn_num_mem_kv": 2}, 2, 0, ""),
    "gates": ({"attn_gate_values": True}, 2, 0, ""),
    "capped": ({"attn_softclamp_logits": True}, 2, 0, ""),
    "selective": ({"attn_selective": True}, 2, 0, ""),
    "sigmoid": ({"attn_sigmoid": True}, 0, 2, r"not a softmax \(sigmoid\)"),
    "signed": ({"attn_cog_signed": True}, 0, 2, "between the softmax and the values"),
}


@pytest.mark.parametrize("kind", X_TRANSFORMERS)
def test_x_transformers(kind):
    parts = package("x_transformers")
    options, recorded, missed, reason = X_TRANSFORMERS[kind]
    layers = parts.Decoder(dim=24, depth=2, heads=3, attn_dim_head=8, **options)
    model = parts.TransformerWrapper(num_tokens=19, max_seq_len=13, attn_layers=layers)
    check(model, torch.randint(0, 19, (2, 11)), recorded=recorded, missed=missed, reason=reason)


def test_peft():
    peft, transformers = package("peft"), package("transformers")
    config = transformers.LlamaConfig(
        vocab_size=19, hidden_size=24, intermediate_size=16, num_hidden_layers=2, num_attention_heads=3,
        num_key_value_heads=1,
    )  # fmt: skip
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), peft.LoraConfig(target_modules="all-linear"))
    with torch.no_grad():
        for name, parameter in model.eval().named_parameters():
            if "lora" in name:
                parameter.normal_()
        ids = torch.randint(0, 19, (2, 11))
        with observe(model) as record:
            model(ids)
        model.merge_adapter()
        with observe(model) as merged:
            model(ids)
    assert record.missed == []
    assert list(record) == [f"base_model.model.model.layers.{layer}.self_attn" for layer in range(2)]
    for name, matrix in record.items():
        torch.testing.assert_close(matrix.to_dense(), merged[name].to_dense(), rtol=0, atol=1e-4)


def test_sentence_transformers(tmp_path):
    sentences, transformers = package("sentence_transformers"), package("transformers")
    parts = package("sentence_transformers.models")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefg"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=24, intermediate_size=16, num_hidden_layers=2, num_attention_heads=3
    )
    transformers.BertModel(config).save_pretrained(tmp_path)
    model = sentences.SentenceTransformer(
        modules=[word := parts.Transformer(str(tmp_path)), parts.Pooling(24)], device="cpu"
    )
    with observe(model) as record:
        model.encode(["a b c", "d e f g a"])
    assert record.missed == []
    assert len(record) == 2
    tokens = word.tokenizer(["d e f g a", "a b c"], padding=True, return_tensors="pt")
    bert = transformers.BertModel.from_pretrained(tmp_path, attn_implementation="eager").eval()
    with torch.no_grad():
        expected = bert(**tokens, output_attentions=True).attentions
    for matrix, table in zip(record.values(), expected, strict=True):
        assert any(
            torch.allclose(matrix.to_dense(), t, rtol=0, atol=1e-5) for t in (table, table.flip(0))
        )  # encode sorts by length

"""Model families whose attention is not one matrix of queries and keys: each is listed with the true reason."""

import pytest
import torch
import transformers as hf

import clearhead
from clearhead.capture import observe

from .families import SIZE, ids

TIME = {"prediction_length": 4, "context_length": 12, "lags_sequence": [1, 2], "num_time_features": 1, "d_model": 24}
TIME |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
TIME |= {"encoder_ffn_dim": 17, "decoder_ffn_dim": 17}


def series() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    sizes = {"past_values": (2, 14), "past_time_features": (2, 14, 1), "future_values": (2, 4)}
    sizes["future_time_features"] = (2, 4, 1)
    given = {name: torch.randn(size, generator=draw) for name, size in sizes.items()}
    return given | {"past_observed_mask": torch.ones(2, 14)}


def reformer() -> hf.ReformerModel:
    options = {"axial_pos_embds": False, "attn_layers": ["local", "lsh"], "num_buckets": 2, "num_hashes": 1}
    options |= {"local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "is_decoder": False, "hash_seed": 1}
    sizes = {"vocab_size": 23, "hidden_size": 24, "num_attention_heads": 4, "attention_head_size": 6}
    return hf.ReformerModel(hf.ReformerConfig(**sizes, feed_forward_size=17, max_position_embeddings=64, **options))


def luke() -> hf.LukeModel:
    return hf.LukeModel(hf.LukeConfig(**SIZE, entity_vocab_size=11, entity_emb_size=24))


def entities() -> dict[str, torch.Tensor]:
    places = torch.zeros(2, 2, 30, dtype=torch.long)
    return {"input_ids": ids(), "entity_ids": torch.tensor([[1, 2], [3, 4]]), "entity_position_ids": places}


def long_t5(kind: str) -> hf.LongT5EncoderModel:
    sizes = {"vocab_size": 23, "d_model": 24, "d_kv": 6, "num_layers": 2, "num_heads": 4, "d_ff": 17}
    kinds = {"local_radius": 2, "global_block_size": 3, "encoder_attention_type": kind}
    return hf.LongT5EncoderModel(hf.LongT5Config(**sizes, **kinds))


def text(length: int = 11) -> dict[str, torch.Tensor]:
    return {"input_ids": ids(length)}


CASES = {
    "luke with entities": (luke, entities, 2, "puts its logits together from 4 products"),
    "long-t5, local": (lambda: long_t5("local"), text, 2, "attends in blocks of 3 queries and 9 keys"),
    "long-t5, global": (lambda: long_t5("transient-global"), text, 2, "attends in blocks"),
    "reformer": (reformer, lambda: text(16), 2, "attends in blocks of 4 queries and 8 keys"),
    "informer": (
        lambda: hf.InformerModel(hf.InformerConfig(**TIME, attention_type="prob", sampling_factor=1, distil=False)),
        series,
        1,
        "attends from 3 queries alone",
    ),
    "autoformer": (
        lambda: hf.AutoformerModel(hf.AutoformerConfig(**TIME)),
        series,
        3,
        "its softmax are not a product of queries and keys",
    ),
    "yoso": (lambda: hf.YosoModel(hf.YosoConfig(**SIZE)), text, 2, "computes its attention by itself"),
    "rwkv": (
        lambda: hf.RwkvModel(
            hf.RwkvConfig(vocab_size=23, hidden_size=24, num_hidden_layers=2, attention_hidden_size=24)
        ),
        text,
        2,
        "RwkvSelfAttention computes its attention by itself",
    ),
}


@pytest.mark.parametrize("length", [2, 3, 4, 17])
@pytest.mark.parametrize("kind", ["local", "transient-global"])
def test_blocks_are_named_whatever_the_length(kind: str, length: int):
    """Of up to three tokens there is one block, which has the batch of the input; two layers share one bias."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 23, "d_model": 24, "d_kv": 6, "num_layers": 2, "num_heads": 4, "d_ff": 17}
    kinds = {"local_radius": 2, "global_block_size": 3, "encoder_attention_type": kind}
    model = hf.LongT5Model(hf.LongT5Config(**sizes, **kinds)).eval()
    with torch.no_grad(), observe(model) as record:
        model(input_ids=ids(length), decoder_input_ids=ids(5))
    assert [item.name.split(".")[0] for item in record.missed] == ["encoder", "encoder"]
    assert all("attends in blocks of 3 queries" in item.reason for item in record.missed)
    assert {name.split(".")[0] for name in record} == {"decoder"}


def test_a_null_key_of_zeros_is_no_block():
    class NullKeyAttention(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            keys = torch.cat((torch.zeros_like(x[:, :1]), x), 1)
            return torch.softmax(x @ keys.mT, -1) @ keys

    model = NullKeyAttention()
    with torch.no_grad(), observe(model) as record:
        model(torch.randn(2, 5, 7))
    assert [tuple(matrix.shape) for matrix in record.values()] == [(2, 1, 5, 6)]


@pytest.mark.parametrize("side", [32, 64])
def test_a_map_of_one_pixel_keeps_its_batch_and_heads(side: int):
    """MobileViT enlarges a map of 1×1 to its patches of 2×2; they are four sequences of one patch, not four heads."""
    torch.manual_seed(0)
    sizes = {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 16, 16, 16, 32], "num_attention_heads": 2}
    model = hf.MobileViTModel(hf.MobileViTConfig(image_size=side, patch_size=2, **sizes)).eval()
    with torch.no_grad(), observe(model) as record:
        model(torch.randn(1, 3, side, side))
    assert record.missed == []
    assert {tuple(matrix.shape[:2]) for matrix in record.values()} == {(4, 2)}


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_matrix_of_queries_and_keys_is_named(name: str):
    make, given, count, reason = CASES[name]
    torch.manual_seed(0)
    model = make().eval()
    with torch.no_grad(), observe(model) as record:
        model(**given())
    named = [item for item in record.missed if reason in item.reason]
    assert len(named) == len(record.missed) == count
    assert not {item.name for item in named} & set(record)


CTRL = {"vocab_size": 23, "n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 64, "dff": 17}


@pytest.mark.parametrize(
    "make", [luke, lambda: hf.IBertModel(hf.IBertConfig(**SIZE)), lambda: hf.CTRLModel(hf.CTRLConfig(**CTRL))]
)
def test_the_same_kinds_are_recorded_where_they_are_one_matrix(make):
    """LUKE without entities; I-BERT, whose softmax is a module with parts of its own; CTRL."""
    model = make().eval()
    with torch.no_grad(), observe(model) as record:
        model(**text())
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = model(**text(), output_attentions=True).attentions
    assert record.missed == []
    for matrix, exact in zip(record.values(), weights, strict=True):
        torch.testing.assert_close(matrix.to_dense(), exact, rtol=0, atol=1e-6)


def test_nan_in_a_models_own_output_is_named():
    model = hf.LlamaModel(hf.LlamaConfig(**SIZE)).eval()
    with torch.no_grad():
        model.layers[0].self_attn.v_proj.weight.fill_(torch.nan)
        with observe(model) as record:
            model(**text())
    assert len(record) == 0
    assert all("its own output has NaN in it" in item.reason for item in record.missed)


class OnSomeTokens(torch.nn.Module):
    """One layer of attention that may get no tokens, as the experts of a mixture do."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.own = how, torch.nn.MultiheadAttention(6, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (x.unflatten(-1, (2, 3)).transpose(1, 2) * scale for scale in (1, 2, 3))
        if self.how == "own code":
            return (q @ k.mT).softmax(-1) @ v
        if self.how == "a module":
            return self.own(x, x, x)[0]
        function = clearhead.attention if self.how == "ours" else torch.nn.functional.scaled_dot_product_attention
        return function(q, k, v)


@pytest.mark.parametrize("shape", [(0, 5, 6), (3, 0, 6)])
@pytest.mark.parametrize("how", ["own code", "a module", "torch's function", "ours"])
@torch.no_grad()
def test_a_model_without_tokens_keeps_running(how: str, shape: tuple[int, ...]):
    model = OnSomeTokens(how).eval()
    if how == "a module" and shape[1] == 0:
        pytest.skip("torch's module refuses texts of length 0")
    plain = model(torch.zeros(shape))
    with observe(model) as record:
        assert model(torch.zeros(shape)).shape == plain.shape
    assert len(record) == 0
    assert all("ran on a batch of 0 texts" in item.reason for item in record.missed)
    with clearhead.intervene(model, {("own" if how == "a module" else "", 1): "zero"}):
        assert model(torch.zeros(shape)).shape == plain.shape

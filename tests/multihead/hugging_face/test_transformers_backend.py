"""attn_implementation="clearhead" on small random models, compared with their eager attention."""

import copy

import pytest
import torch

import clearhead

transformers = pytest.importorskip("transformers", reason="the models extra is not installed")

SMALL = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
GQA = SMALL | {"num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64}
NO_DROP = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
DECODERS = {
    "gpt2": ("GPT2", {"n_embd": 24, "n_layer": 2, "n_head": 4, "vocab_size": 61, "n_positions": 64}),
    "llama": ("Llama", GQA),
    "mistral, window": ("Mistral", GQA | {"sliding_window": 4}),
    "gemma2, soft cap and window": ("Gemma2", GQA | {"sliding_window": 4, "query_pre_attn_scalar": 6, "attn_logit_softcapping": 0.5, "initializer_range": 0.3}),
    "gpt-oss, sinks": (
        "GptOss",
        GQA | {"num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    ),
    "deepseek-v3, narrow values": (
        "DeepseekV3",
        SMALL | {"num_key_value_heads": 4, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 6,
                 "qk_rope_head_dim": 4, "v_head_dim": 5, "first_k_dense_replace": 2, "max_position_embeddings": 64},
    ),
}  # fmt: skip
ENCODERS = {
    "bert": ("BertModel", "BertConfig", SMALL | NO_DROP),
    "roberta": ("RobertaModel", "RobertaConfig", SMALL | NO_DROP | {"max_position_embeddings": 66}),
    "distilbert": ("DistilBertModel", "DistilBertConfig", {"dim": 24, "hidden_dim": 32, "n_layers": 2, "n_heads": 4}),
    "modernbert": ("ModernBertModel", "ModernBertConfig", SMALL | {"pad_token_id": 0, "local_attention": 4}),
}  # fmt: skip

IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11, 12, 13], [14, 15, 16, 17, 18, 19, 20, 21, 22]])
PADDED = torch.tensor([[1] * 9, [0, 0, 0] + [1] * 6])


@pytest.fixture(autouse=True, scope="module")
def registered():
    clearhead.register_with_transformers()
    clearhead.register_with_transformers()


def twins(model_class, config):
    """Return the same model twice: with eager attention and with ours."""
    models = []
    for implementation in ("eager", "clearhead"):
        torch.manual_seed(0)
        own = copy.deepcopy(config)
        own._attn_implementation = implementation
        models.append(model_class(own).eval())
        models[-1].load_state_dict(models[0].state_dict())
    assert [model.config._attn_implementation for model in models] == ["eager", "clearhead"]
    return models


def decoder(name):
    family, options = DECODERS[name]
    config = getattr(transformers, f"{family}Config")(**options, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    return twins(getattr(transformers, f"{family}{'LMHeadModel' if family == 'GPT2' else 'ForCausalLM'}"), config)


@pytest.mark.parametrize("name", DECODERS)
def test_decoders_forward_backward_and_generate(name):
    eager, ours = decoder(name)
    for mask in (None, PADDED):
        kept = torch.ones_like(PADDED) if mask is None else mask
        expected, actual = (model(IDS, attention_mask=mask).logits[kept.bool()] for model in (eager, ours))
        torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)
    expected.square().mean().backward()
    actual.square().mean().backward()
    for (parameter_name, a), b in zip(ours.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-5, rtol=1e-3, msg=parameter_name)
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": PADDED, "eos_token_id": None}
    assert torch.equal(ours.generate(IDS, **options), eager.generate(IDS, **options))


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_equal_eager(name):
    model_class, config_class, options = ENCODERS[name]
    eager, ours = twins(getattr(transformers, model_class), getattr(transformers, config_class)(**options))
    mask = PADDED.flip(1)
    expected, actual = (m(IDS, attention_mask=mask).last_hidden_state[mask.bool()] for m in (eager, ours))
    torch.testing.assert_close(actual, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("T5", {"d_model": 24, "d_kv": 6, "d_ff": 32, "num_layers": 2, "num_heads": 4, "vocab_size": 61}),
        (
            "Bart",
            {"d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "vocab_size": 61,
             "decoder_attention_heads": 4, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64},
        ),
    ],
)  # fmt: skip
def test_encoder_decoders_equal_eager(family, options):
    config = getattr(transformers, f"{family}Config")(**options, pad_token_id=0, decoder_start_token_id=1)
    eager, ours = twins(getattr(transformers, f"{family}ForConditionalGeneration"), config)
    mask = PADDED.flip(1)
    call = {"input_ids": IDS, "attention_mask": mask, "decoder_input_ids": IDS[:, :5]}
    torch.testing.assert_close(ours(**call).logits, eager(**call).logits, atol=2e-5, rtol=1e-4)
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": mask}
    assert torch.equal(ours.generate(IDS, **options), eager.generate(IDS, **options))


def test_a_static_cache_and_a_vision_model_equal_eager():
    eager, ours = decoder("llama")
    options = {
        "max_new_tokens": 6,
        "do_sample": False,
        "cache_implementation": "static",
        "eos_token_id": None,
        "disable_compile": True,
    }
    assert torch.equal(ours.generate(IDS, **options), eager.generate(IDS, **options))
    config = transformers.ViTConfig(**{k: v for k, v in SMALL.items() if k != "vocab_size"}, image_size=8, patch_size=4)
    eager, ours = twins(transformers.ViTModel, config)
    image = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(ours(image)[0], eager(image)[0], atol=2e-5, rtol=1e-4)


def test_a_model_outside_the_interface_is_refused():
    for family in ("Bloom", "Falcon", "GPTJ"):
        if getattr(getattr(transformers, f"{family}PreTrainedModel"), "_supports_attention_backend", False):
            continue  # GPT-J uses the interface since transformers 5.24
        config = getattr(transformers, f"{family}Config")(n_embd=24, hidden_size=24, n_layer=1, n_head=4, vocab_size=61)
        config._attn_implementation = "clearhead"
        with pytest.raises(clearhead.errors.OptionError, match="computes its own attention"):
            getattr(transformers, f"{family}ForCausalLM")(config)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cu_seq_lens_q": torch.tensor([0, 5])}, "cu_seq_lens"),
        ({"cache": object()}, "paged cache"),
        ({"attention_mask": object()}, "as a mask"),
    ],
    ids=["packed", "paged", "mask"],
)
def test_unsupported_arguments_are_refused(options, message):
    from clearhead.multihead.transformers_backend import forward

    q = torch.randn(1, 2, 5, 4)
    with pytest.raises(clearhead.errors.OptionError, match=message):
        forward(torch.nn.Identity(), q, q, q, **({"attention_mask": None} | options))


def test_output_attentions_gives_matrices():
    eager, ours = twins(transformers.BertModel, transformers.BertConfig(**SMALL, **NO_DROP))
    expected = eager(IDS, output_attentions=True).attentions
    actual = ours(IDS, output_attentions=True).attentions
    assert all(isinstance(matrix, clearhead.AttentionMatrix) for matrix in actual)
    for matrix, dense in zip(actual, expected, strict=True):
        torch.testing.assert_close(matrix.to_dense(), dense, atol=1e-5, rtol=1e-4)


GPT = {
    "vocab_size": 61,
    "n_embd": 24,
    "n_layer": 3,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OPT = {**SMALL, "ffn_dim": 17, "word_embed_proj_dim": SMALL["hidden_size"]}
VISION = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 17}


@pytest.mark.parametrize(
    ("model", "config", "options"),
    [
        (transformers.GPT2Model, transformers.GPT2Config, GPT),
        (transformers.GPTBigCodeModel, transformers.GPTBigCodeConfig, GPT),
        (transformers.OPTModel, transformers.OPTConfig, OPT),
        (transformers.SiglipVisionModel, transformers.SiglipVisionConfig, VISION | {"image_size": 12, "patch_size": 4}),
    ],
    ids=["gpt2", "gpt-bigcode", "opt", "siglip"],
)
def test_output_attentions_gives_one_entry_per_layer(model, config, options):
    eager, ours = twins(model, config(**options))
    given = (torch.randn(2, 3, 12, 12),) if "Siglip" in model.__name__ else (IDS,)
    expected, actual = (net(*given, output_attentions=True).attentions for net in (eager, ours))
    assert len(actual) == len(expected) > 1
    for matrix, dense in zip(actual, expected, strict=True):
        torch.testing.assert_close(matrix.to_dense(), dense, atol=1e-5, rtol=1e-4)
    assert not ours(*given).attentions

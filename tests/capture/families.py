"""Small random models, one per family: a constructor, inputs. Widths differ from layer counts, lengths are primes."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
import transformers as hf

SIZE = {
    "vocab_size": 23,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 17,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED = {**SIZE, "num_key_value_heads": 2}
TINY_VIT = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 17}
TINY_VIT |= {"image_size": 12, "patch_size": 4}
ENCODER_DECODER = {"vocab_size": 23, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "pad_token_id": 0}
ENCODER_DECODER |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 17}
ENCODER_DECODER |= {"decoder_ffn_dim": 17, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
GPT = {
    "vocab_size": 23,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def cache_name(model: Any) -> str:
    """The name of the cache, as an argument and in the output: transformers 5.24 changed it."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"


def ids(length: int = 11) -> torch.Tensor:
    return torch.randint(3, 23, (2, length), generator=torch.Generator().manual_seed(1))


def padded(side: str) -> torch.Tensor:
    mask = torch.ones(2, 11, dtype=torch.long)
    mask[1, :4] = 0
    return mask if side == "left" else mask.flip(1)


def left() -> dict[str, Any]:
    return {"input_ids": ids(), "attention_mask": padded("left")}


def right() -> dict[str, Any]:
    return {"input_ids": ids(), "attention_mask": padded("right")}


def seq2seq() -> dict[str, Any]:
    return {**right(), "decoder_input_ids": ids(7)}


def image() -> dict[str, Any]:
    return {"pixel_values": torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))}


# Name -> (model, inputs, modules recorded). All go through the attention interface.
FAMILIES: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]], int]] = {
    "gpt2": (lambda: hf.GPT2Model(hf.GPT2Config(**GPT)), left, 2),
    "llama": (lambda: hf.LlamaModel(hf.LlamaConfig(**GROUPED)), left, 2),
    "mistral, window": (lambda: hf.MistralModel(hf.MistralConfig(**GROUPED, sliding_window=3)), right, 2),
    "qwen3": (lambda: hf.Qwen3Model(hf.Qwen3Config(**GROUPED, head_dim=8)), right, 2),
    "gemma2, softcap, window": (
        lambda: hf.Gemma2Model(
            hf.Gemma2Config(
                **GROUPED,
                head_dim=8,
                sliding_window=3,
                attn_logit_softcapping=0.5,
                attn_implementation="eager",  # transformers 5.20 takes "sdpa", which drops the soft cap
            )
        ),
        right,
        2,
    ),
    "gpt-oss, sinks, window": (
        lambda: with_sinks(
            hf.GptOssModel(
                hf.GptOssConfig(
                    **{**GROUPED, "hidden_size": 32, "intermediate_size": 16, "max_position_embeddings": 131072},
                    head_dim=8,
                    num_local_experts=2,
                    num_experts_per_tok=1,
                    sliding_window=3,
                )
            )
        ),
        right,
        2,
    ),
    "deepseek-v3, narrow values": (
        lambda: hf.DeepseekV3Model(
            hf.DeepseekV3Config(
                **SIZE,
                num_key_value_heads=4,
                moe_intermediate_size=8,
                n_routed_experts=2,
                n_group=1,
                topk_group=1,
                num_experts_per_tok=1,
                kv_lora_rank=8,
                q_lora_rank=8,
                qk_rope_head_dim=4,
                qk_nope_head_dim=4,
                v_head_dim=6,
                first_k_dense_replace=2,
            )
        ),
        right,
        2,
    ),
    "opt": (
        lambda: hf.OPTModel(hf.OPTConfig(**SIZE, ffn_dim=17, word_embed_proj_dim=24)),
        left,
        2,
    ),
    "gpt-neox": (lambda: hf.GPTNeoXModel(hf.GPTNeoXConfig(**SIZE)), left, 2),
    "bert": (lambda: hf.BertModel(hf.BertConfig(**SIZE)), right, 2),
    "roberta": (lambda: hf.RobertaModel(hf.RobertaConfig(**SIZE)), right, 2),
    "albert, one layer shared": (lambda: hf.AlbertModel(hf.AlbertConfig(**SIZE, embedding_size=24)), right, 1),
    "distilbert": (
        lambda: hf.DistilBertModel(hf.DistilBertConfig(vocab_size=23, dim=24, n_layers=2, n_heads=4, hidden_dim=17)),
        right,
        2,
    ),
    "modernbert, windows": (
        lambda: hf.ModernBertModel(
            hf.ModernBertConfig(**SIZE, local_attention=4, global_attn_every_n_layers=2, cls_token_id=1, sep_token_id=2)
        ),
        right,
        2,
    ),
    "t5, position bias": (
        lambda: hf.T5Model(hf.T5Config(vocab_size=23, d_model=24, d_kv=6, num_layers=2, num_heads=4, d_ff=17)),
        seq2seq,
        6,
    ),
    "bart, cross-attention": (
        lambda: hf.BartModel(hf.BartConfig(**ENCODER_DECODER, max_position_embeddings=64)),
        seq2seq,
        6,
    ),
    "vit": (lambda: hf.ViTModel(hf.ViTConfig(**TINY_VIT)), image, 2),
    "swin, windows": (
        lambda: hf.SwinModel(
            hf.SwinConfig(image_size=12, patch_size=1, embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=3)
        ),
        image,
        2,
    ),
}


# Models that multiply, mask and call softmax themselves, or call torch's function directly.
BY_HAND: dict[str, tuple[Callable[[], Any], Callable[[], dict[str, Any]], int]] = {
    "gpt-j": (lambda: hf.GPTJModel(hf.GPTJConfig(**GPT, rotary_dim=4)), left, 2),
    "codegen": (lambda: hf.CodeGenModel(hf.CodeGenConfig(**{**GPT, "n_embd": 32}, rotary_dim=4)), left, 2),
    "gpt-neo, window, no scale": (
        lambda: hf.GPTNeoModel(
            hf.GPTNeoConfig(
                vocab_size=23,
                hidden_size=24,
                num_layers=2,
                num_heads=4,
                attention_types=[[["global", "local"], 1]],
                window_size=3,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        left,
        2,
    ),
    "bloom, alibi": (
        lambda: hf.BloomModel(hf.BloomConfig(vocab_size=23, hidden_size=24, n_layer=2, n_head=4)),
        left,
        2,
    ),
    "mpt, alibi": (lambda: hf.MptModel(hf.MptConfig(d_model=24, n_heads=4, n_layers=2, vocab_size=23)), right, 2),
    "falcon": (
        lambda: hf.FalconModel(
            hf.FalconConfig(
                vocab_size=23,
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_kv_heads=2,
                new_decoder_architecture=True,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        right,
        2,
    ),
}

# Models whose logits hold more than products, masks and a number a key: position terms that differ from query to query,
# shapes of their own (B·H, L, S), sums by einsum, a scale for each head.
BY_HAND |= {
    "deberta, positions": (
        lambda: hf.DebertaModel(hf.DebertaConfig(**SIZE, relative_attention=True, pos_att_type=["p2c", "c2p"])),
        right,
        2,
    ),
    "deberta-v2, buckets": (
        lambda: hf.DebertaV2Model(
            hf.DebertaV2Config(
                **SIZE, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=4, share_att_key=True
            )
        ),
        right,
        2,
    ),
    "xlnet, einsum": (
        lambda: hf.XLNetModel(hf.XLNetConfig(vocab_size=23, d_model=24, n_layer=2, n_head=4, d_inner=17)),
        right,
        2,
    ),
    "bigbird, full": (lambda: hf.BigBirdModel(hf.BigBirdConfig(**SIZE, attention_type="original_full")), right, 2),
    "convbert": (lambda: hf.ConvBertModel(hf.ConvBertConfig(**SIZE)), right, 2),
    "xlm": (lambda: hf.XLMModel(hf.XLMConfig(vocab_size=23, emb_dim=24, n_layers=2, n_heads=4)), right, 2),
    "funnel, pooled queries": (
        lambda: hf.FunnelModel(
            hf.FunnelConfig(
                vocab_size=23, d_model=24, n_head=4, d_head=6, d_inner=17, block_sizes=[1, 1], num_decoder_layers=1
            )
        ),
        right,
        3,
    ),
    "mpnet": (lambda: hf.MPNetModel(hf.MPNetConfig(**SIZE)), right, 2),
    "roformer": (lambda: hf.RoFormerModel(hf.RoFormerConfig(**SIZE)), right, 2),
    "openai-gpt": (lambda: hf.OpenAIGPTModel(hf.OpenAIGPTConfig(**GPT)), right, 2),
    "swin-v2, a scale a head": (
        lambda: unlike_scales(
            hf.Swinv2Model(
                hf.Swinv2Config(
                    image_size=12, patch_size=1, embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=3
                )
            )
        ),
        image,
        2,
    ),
    "xglm, three axes": (
        lambda: hf.XGLMModel(
            hf.XGLMConfig(
                vocab_size=23, d_model=24, ffn_dim=17, num_layers=2, attention_heads=4, max_position_embeddings=64
            )
        ),
        right,
        2,
    ),
    "mvp, cross-attention": (
        lambda: hf.MvpModel(hf.MvpConfig(**ENCODER_DECODER, max_position_embeddings=64)),
        seq2seq,
        6,
    ),
    "pvt, fewer keys": (
        lambda: hf.PvtModel(
            hf.PvtConfig(
                image_size=32, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]
            )
        ),
        lambda: {"pixel_values": torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))},
        4,
    ),
}

# Models that compute no single softmax: named in `missed`, not recorded.
NOT_CAPTURED: dict[str, tuple[Callable[[], Any], str]] = {
    "nystromformer": (
        lambda: hf.NystromformerModel(
            hf.NystromformerConfig(
                **{**SIZE, "max_position_embeddings": 128}, segment_means_seq_len=88, num_landmarks=4
            )
        ),
        "takes 3 softmaxes in one pass",
    ),
}


def unlike_scales(model: Any) -> Any:
    """Give each head another temperature, because equal initial values would prove little."""
    for name, parameter in model.named_parameters():
        if name.endswith("logit_scale"):
            with torch.no_grad():
                parameter.copy_(torch.tensor([0.3, 1.1])[:, None, None])
    return model


def with_sinks(model: Any) -> Any:
    """Set random sinks, because their initial zeros would prove little."""
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    return model

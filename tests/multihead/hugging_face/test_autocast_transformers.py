"""attn_implementation="clearhead" under torch.autocast, trained as by Trainer with bf16=True."""

import pytest
import torch

import clearhead

transformers = pytest.importorskip("transformers", reason="the models extra is not installed")

SMALL = {"hidden_size": 24, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 61}
GQA = SMALL | {"num_key_value_heads": 2, "head_dim": 6, "max_position_embeddings": 64}
LATENT = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5}
EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
PLAIN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
# Family -> (class prefix, configuration, the attn_implementation to compare with).
FAMILIES = {
    "llama": ("Llama", GQA, "sdpa"),
    "qwen3": ("Qwen3", GQA, "sdpa"),
    "mistral": ("Mistral", GQA | {"sliding_window": 4}, "sdpa"),
    "gemma3": ("Gemma3", GQA | {"sliding_window": 4, "query_pre_attn_scalar": 6}, "sdpa"),
    "gpt-neox": ("GPTNeoX", SMALL | {"max_position_embeddings": 64}, "sdpa"),
    "phi": ("Phi", SMALL | {"hidden_size": 32, "max_position_embeddings": 64}, "sdpa"),
    "deepseek-v3": ("DeepseekV3", SMALL | LATENT | {"num_key_value_heads": 4, "first_k_dense_replace": 2}, "sdpa"),
    "gpt-oss": ("GptOss", GQA | EXPERTS | PLAIN_ROPE | {"sliding_window": 4}, "eager"),
}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [14, 15, 16, 17, 18, 19, 20]])
PADDED = torch.tensor([[1] * 7, [0, 0, 0] + [1] * 4])


def model(family: str, implementation: str):
    prefix, options, _ = FAMILIES[family]
    name = {"Gemma3": "Gemma3TextConfig"}.get(prefix, f"{prefix}Config")
    config = getattr(transformers, name)(**options, pad_token_id=0)
    config._attn_implementation = implementation
    torch.manual_seed(0)
    return getattr(transformers, f"{prefix}ForCausalLM")(config)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_of_training_in_bfloat16(family: str, checkpointing: bool) -> None:
    clearhead.register_with_transformers()
    losses, gradients = [], []
    for implementation in (FAMILIES[family][2], "clearhead"):
        net = model(family, implementation).train()
        if checkpointing:
            enable = getattr(net, "activation_checkpointing_enable", None) or net.gradient_checkpointing_enable  # 5.20
            enable({"use_reentrant": False})
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(IDS, attention_mask=PADDED, labels=IDS, use_cache=False).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=2**-8)
    difference = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert difference < 2**-4

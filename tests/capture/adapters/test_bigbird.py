"""BigBird's sparse blocks as one matrix, equal to the model's own weights, with repeated blocks counted."""

import numpy as np
import pytest
import torch
import transformers as hf

from clearhead.capture import observe

from ..families import ENCODER_DECODER, SIZE

BLOCK, LENGTH = 3, 31  # padded by the model to 33: eleven blocks
DRAWN = 2


def bigbird():
    torch.manual_seed(0)
    config = {**SIZE, "max_position_embeddings": 64, "attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0}
    return hf.BigBirdModel(hf.BigBirdConfig(**config, block_size=BLOCK, num_random_blocks=DRAWN)).eval()


def inputs(padded: int = 0, length: int = LENGTH):
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length - padded :] = 0
    made = torch.Generator().manual_seed(1)
    return {"input_ids": torch.randint(3, 23, (2, length), generator=made), "attention_mask": mask}


def exact(module, hidden, copies, real):
    """(B, H, L, L) in float64: softmax over keys, each counted as often as its block is there."""
    heads, width = module.num_attention_heads, module.attention_head_size
    query, key = (
        layer(hidden).unflatten(-1, (heads, width)).transpose(1, 2).double() for layer in (module.query, module.key)
    )
    times = copies.double().repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2) * real[:, None, None, :]
    weights = times * torch.exp(query @ key.mT / width**0.5)
    return weights / weights.sum(-1, keepdim=True)


def rows_without(copies):
    """How often each block of queries has each block of keys, the blocks drawn at random left out."""
    near = (np.arange(11)[:, None] - np.arange(11)).__abs__() <= 1
    near[[0, -1]] = near[:, [0, -1]] = True
    return torch.from_numpy(near).long().expand(copies, -1, -1).clone()


@pytest.mark.parametrize("padded", [0, 7])
def test_equals_the_models_own_weights(padded: int):
    model = bigbird()
    with torch.no_grad():
        plain = model(**inputs(padded)).last_hidden_state
        with observe(model) as record:
            output = model(**inputs(padded), output_attentions=True, output_hidden_states=True)
    assert torch.equal(output.last_hidden_state, plain)
    assert record.missed == []
    assert list(record) == ["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"]
    for number, (name, matrix) in enumerate(record.items()):
        dense = matrix.to_dense()
        assert dense.shape == (2, 4, 33, 33)
        real = torch.nn.functional.pad(inputs(padded)["attention_mask"], (0, 2)).bool()
        copies = rows_without(1)
        copies[:, 1:-1, 0] += DRAWN  # outside training the model draws the first block always
        with torch.no_grad():
            ours = exact(model.get_submodule(name), output.hidden_states[number], copies, real)
        for one in range(2):
            rows = real[one]
            torch.testing.assert_close(dense[one][:, rows].double(), ours[one][:, rows], rtol=0, atol=1e-6)
            assert not dense[one][:, ~rows].any()
            # What the model itself reports counts a block that it has three times only once.
            once = output.attentions[number][one]
            seen = (copies[0] == 1).repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1) & rows[:, None]
            torch.testing.assert_close(dense[one][:, seen], once[:, seen], rtol=0, atol=1e-6)


def test_blocks_drawn_in_training_are_the_models_own():
    model = bigbird().train()
    with torch.no_grad():
        model(**inputs())
        alone = np.random.get_state()[1].copy()  # the model seeds numpy's generator itself
        with observe(model) as record:
            output = model(**inputs(), output_attentions=True)
    assert (np.random.get_state()[1] == alone).all()
    assert record.missed == []
    unlike = 0
    for number, matrix in enumerate(record.values()):
        once = output.attentions[number]
        dense = matrix.to_dense()[:, :, :31]
        torch.testing.assert_close(dense.sum(-1), torch.ones(2, 4, 31), rtol=0, atol=1e-5)
        torch.testing.assert_close(dense[once[:, :, :31] > 0], once[:, :, :31][once[:, :, :31] > 0], rtol=0, atol=1e-6)
        unlike += int((dense[:, 0] > 0).ne(dense[:, 1] > 0).any())
    assert unlike  # each head draws its own blocks


def test_a_short_text_runs_whole_and_is_seen():
    """The model then exchanges its attention modules while it runs."""
    model = bigbird()
    with torch.no_grad():
        with observe(model) as record:
            model(**inputs(length=17))
        output = model(**inputs(length=17), output_attentions=True)
    left = [module._forward_hooks or module._forward_pre_hooks for module in model.encoder.layer.modules()]
    assert record.missed == []
    assert list(record) == ["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"]
    for matrix, own in zip(record.values(), output.attentions, strict=True):
        torch.testing.assert_close(matrix.to_dense(), own, rtol=0, atol=1e-6)
    assert not any("clearhead" in str(hook) for hooks in left for hook in hooks.values())


def test_the_encoder_of_pegasus():
    torch.manual_seed(0)
    config = hf.BigBirdPegasusConfig(
        **ENCODER_DECODER, max_position_embeddings=64, block_size=BLOCK, num_random_blocks=1
    )
    model = hf.BigBirdPegasusModel(config).eval()
    with torch.no_grad(), observe(model) as record:
        model(**inputs(), decoder_input_ids=inputs()["input_ids"][:, :7])
    assert record.missed == []
    assert len(record) == 6
    assert record["encoder.layers.1.self_attn.self"].shape == (2, 4, 33, 33)


def test_a_term_of_its_own_is_noticed():
    model = bigbird()
    for layer in model.encoder.layer:
        own = layer.attention.self.torch_gather_b2
        layer.attention.self.torch_gather_b2 = lambda params, blocks, own=own: 1.5 * own(params, blocks)
    with torch.no_grad(), observe(model) as record:
        model(**inputs())
    assert len(record) == 0
    assert record.missed
    assert all("a term Clearhead does not know" in item.reason for item in record.missed)

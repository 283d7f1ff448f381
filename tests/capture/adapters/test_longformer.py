"""Longformer and LED: windows and global tokens as one matrix, equal to the weights that the model gives in pieces."""

import pytest
import torch
import transformers as hf

from clearhead.capture import observe

from ..families import ENCODER_DECODER, SIZE, ids

REACH = 2  # keys seen on either side
L = 12  # 11 tokens, padded by the model to a multiple of its window


def longformer():
    torch.manual_seed(0)
    return hf.LongformerModel(hf.LongformerConfig(**SIZE, attention_window=2 * REACH)).eval()


def whole(windows: torch.Tensor, few: torch.Tensor | None, everywhere: torch.Tensor, length: int) -> torch.Tensor:
    """Return the L×L weights of one sequence from the model's two outputs.

    Args:
        windows: (H, L, x + 2·REACH + 1): for each query first the x global keys, then its window.
        few: (H, L, x): for each global query all its keys; None if there is none.
        everywhere: the positions of the global tokens.
    """
    dense = torch.zeros(windows.shape[0], length, length)
    extra = windows.shape[-1] - (2 * REACH + 1)
    for row in range(windows.shape[1]):
        for place in range(2 * REACH + 1):
            key = row + place - REACH
            if 0 <= key < length:
                dense[:, row, key] += windows[:, row, extra + place]
        for number, key in enumerate(everywhere.tolist()):
            dense[:, row, key] += windows[:, row, number]
    for number, row in enumerate(everywhere.tolist()):
        dense[:, row] = 0
        dense[:, row, : few.shape[1]] = few[:, :, number]
    return dense


@pytest.mark.parametrize("with_global", [False, True])
@pytest.mark.parametrize("padded", [False, True])
def test_equals_the_models_own_weights(with_global: bool, padded: bool):
    model = longformer()
    mask = torch.ones(2, 11, dtype=torch.long)
    if padded:
        mask[1, 8:] = 0
    everywhere = torch.zeros(2, 11, dtype=torch.long)
    if with_global:
        everywhere[0, [0, 7]] = 1
        everywhere[1, [3, 4]] = 1
    given = {"input_ids": ids(), "attention_mask": mask, "global_attention_mask": everywhere}
    with torch.no_grad():
        plain = model(**given).last_hidden_state
        with observe(model) as record:
            assert torch.equal(model(**given).last_hidden_state, plain)
        exact = model(**given, output_attentions=True)
    assert record.missed == []
    assert list(record) == ["encoder.layer.0.attention.self", "encoder.layer.1.attention.self"]
    for number, matrix in enumerate(record.values()):
        dense = matrix.to_dense()
        assert dense.shape == (2, 4, L, L)
        for one in range(2):
            few = exact.global_attentions[number][one] if with_global else None
            own = whole(exact.attentions[number][one], few, everywhere[one].nonzero().flatten(), L)
            rows = int(mask[one].sum())
            torch.testing.assert_close(dense[one, :, :rows], own[:, :rows], rtol=0, atol=1e-6)
            assert not dense[one, :, rows:].any()


def test_a_term_of_its_own_is_noticed():
    """The record is checked against the module's output, with and without global tokens."""
    model = longformer()
    for layer in model.encoder.layer:
        attention = layer.attention.self
        attention._sliding_chunks_query_key_matmul = lambda q, k, w, own=attention: type(
            own
        )._sliding_chunks_query_key_matmul(own, q + 0.5 * (q.shape[-1] > 1), k, w)
    with torch.no_grad(), observe(model) as record:
        model(ids())
    assert len(record) == 0
    assert record.missed
    assert all("a term Clearhead does not know" in item.reason for item in record.missed)


def test_the_encoder_of_led():
    torch.manual_seed(0)
    config = hf.LEDConfig(
        **ENCODER_DECODER, attention_window=4, max_encoder_position_embeddings=64, max_decoder_position_embeddings=64
    )
    model = hf.LEDModel(config).eval()
    with torch.no_grad(), observe(model) as record:
        model(input_ids=ids(), decoder_input_ids=ids(7))
    assert record.missed == []
    assert len(record) == 6
    band = record["encoder.layers.1.self_attn.longformer_self_attn"].to_dense()
    distance = (torch.arange(L) - torch.arange(L)[:, None]).abs()
    assert not band[:, :, distance > REACH].any()


@torch.no_grad()
def test_global_rows_read_values_of_their_own():
    model = longformer()
    everywhere = torch.zeros(2, 12, dtype=torch.long)
    everywhere[0, [0, 7]] = everywhere[1, 3] = 1
    outputs = []
    module = model.encoder.layer[1].attention.self
    handle = module.register_forward_hook(lambda _, __, output: outputs.append(output[0]))
    with observe(model, values=True) as record:
        model(ids(12), global_attention_mask=everywhere)
    handle.remove()
    matrix = record["encoder.layer.1.attention.self"]
    own = outputs[0].unflatten(-1, (4, 6)).transpose(1, 2)  # what the module itself answers, in every row
    torch.testing.assert_close(matrix.z, own, rtol=0, atol=1e-6)
    torch.testing.assert_close(matrix.heads([2, 0]).rows(2, 9).z, own[:, [2, 0], 2:9], rtol=0, atol=1e-6)
    weight = torch.randn(10, 24, generator=torch.Generator().manual_seed(0))
    project = weight.T.view(4, 6, 10)
    ordinary, global_ = ((value @ project).norm(dim=-1)[:, :, None] for value in (matrix.v, matrix._row_values.value))
    norms = matrix.to_dense() * global_.where(everywhere[:, None, :, None] > 0, ordinary)
    torch.testing.assert_close(matrix.value_weighted(out_weight=weight).to_dense(), norms, rtol=1e-5, atol=1e-6)

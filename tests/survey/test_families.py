"""Statistics of families of models are those of the weights that transformers' eager attention returns, text by text."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from clearhead.capture import Loaded
from clearhead.survey.measuring import batches
from clearhead.survey.measuring.layout import Layout
from clearhead.survey.measuring.observing import each_layer
from clearhead.survey.measuring.statistics import Positions, measure
from survey import test_statistics
from survey.made import TEXTS, induction

DECODER = {
    "hidden_size": 36, "intermediate_size": 17, "num_hidden_layers": 2, "num_attention_heads": 6,
    "num_key_value_heads": 2, "max_position_embeddings": 131,
}  # fmt: skip
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "T5": ("T5", {"d_model": 14, "d_kv": 5, "d_ff": 11, "num_layers": 2, "num_heads": 3}),
    "GPT-2": ("GPT2", {"n_embd": 15, "n_layer": 2, "n_head": 3, "n_positions": 131}),
    "DistilBERT": ("DistilBert", {"dim": 15, "hidden_dim": 17, "n_layers": 2, "n_heads": 3}),
    "grouped heads": ("Llama", DECODER),
    "sliding window": ("Mistral", DECODER | {"sliding_window": 7}),
    "soft cap, every second layer a window": ("Gemma2", DECODER | {
        "head_dim": 10, "query_pre_attn_scalar": 10, "sliding_window": 7, "attn_logit_softcapping": 1.5,
    }),
    "every second layer a window": ("Gemma3Text", DECODER | {"head_dim": 10, "sliding_window": 7}),
}  # fmt: skip


def made(family: str) -> Loaded:
    """A model with random weights, large enough that its attention is not even, for the induction model's tokens."""
    kind, sizes = FAMILIES[family]
    config = getattr(transformers, f"{kind}Config")(vocab_size=131, pad_token_id=0, **sizes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{kind}Model")(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5.0 if weight.dim() == 2 else 1.0)
    return replace(induction(), model=model, writer=None)


def eager(model: Any, ids: list[int], layers: int) -> list[Tensor]:
    """The weights (H, L, L) of each layer, as transformers computes them for one text."""
    model.set_attn_implementation("eager")
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    options = {} if encoder is not model or model.config.model_type == "distilbert" else {"use_cache": False}
    with torch.inference_mode():
        weights = encoder(input_ids=torch.tensor([ids]), output_attentions=True, **options).attentions
    assert len(weights) == layers
    return [table[0].double() for table in weights]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_has_the_statistics_of_each_text(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_statistics, "kinds", torch.zeros_like)  # all words
    loaded, names = made(family), test_statistics.NAMES
    layout = Layout.of(loaded)
    rows = batches.tokenize(loaded, TEXTS, loaded.max_length)
    batch = batches.batches([row for row in rows if 11 <= len(row.ids) <= 47], 10**6, 0)[-1]
    assert batch.has_padding
    positions, ours = Positions.of(batch, torch.zeros_like(batch.ids)), {}
    seen: dict[str, Tensor] = {}

    def take(name: str, matrix: Any) -> None:
        ours[name] = measure(matrix, positions, names)
        seen[name] = matrix.visible().expand(-1, matrix.shape[1], -1)

    assert set(each_layer(loaded, batch, take).values()) == {None}
    for place, text in enumerate(batch.texts):
        weights = eager(loaded.model, rows[text].ids, len(layout.layers))
        size = len(rows[text].ids)
        for name, table in zip(layout.layers, weights, strict=True):
            wanted = test_statistics.expected(table, seen[name][place, :, :size], rows[text])
            for statistic in names:
                torch.testing.assert_close(
                    ours[name][statistic][place], wanted[statistic], rtol=0, atol=2**10 * torch.finfo(torch.float32).eps,
                    equal_nan=True, msg=lambda words, which=(name, text, statistic): f"{which}: {words}",
                )  # fmt: skip

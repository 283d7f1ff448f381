"""The causal model that ships with the package: it has induction heads, and the scores find them."""

import runpy
from pathlib import Path

import pytest
import torch

from clearhead import capture

TOOL = Path(__file__).parents[3] / "tools" / "train_induction.py"
LINE = "the lighthouse keeper wrote: "


@pytest.fixture(scope="module")
def small() -> capture.Loaded:
    return capture.load("induction")


def test_the_probe_finds_its_induction_heads(small):
    found = capture.induction_scores(small.model, vocab_size=51, length=41, seed=3)
    assert found.shape == (2, 4)
    assert found[1].min() > 0.7
    assert found[0].max() < 0.1


def test_they_build_on_a_previous_token_head(small):
    """Olsson et al. 2022: a head of the layer before copies the previous token; without it there is no induction."""
    reading = capture.read(small, LINE + LINE)
    rows = {(row.layer, row.head): row for row in capture.scores(reading)}
    best = max(rows.values(), key=lambda row: row.previous_token)
    assert (best.layer, best.head) == ("layers.0.self_attn", 3)
    assert best.previous_token > 0.9
    assert all(rows["layers.1.self_attn", head].induction > 0.8 for head in range(4))
    without = small.model.layers[0].self_attn.o_proj.weight
    kept = without.detach().clone()
    try:
        with torch.no_grad():
            without[:, 3 * 16 : 4 * 16] = 0  # silence that one head
        assert capture.induction_scores(small.model, vocab_size=51, length=41)[1].max() < 0.3
    finally:
        with torch.no_grad():
            without.copy_(kept)


def test_it_repeats_what_it_has_read_once(small):
    tokens = torch.cat([torch.zeros(5, 1, dtype=torch.long), torch.randint(2, 51, (5, 37), generator=seeded())], 1)
    tokens = torch.cat([tokens, tokens[:, 1:]], 1)
    with torch.no_grad():
        hidden = small.model(input_ids=tokens).last_hidden_state
        guess = (hidden @ small.model.embed_tokens.weight.T).argmax(-1)  # its embeddings are tied
    assert (guess[:, 39:-1] == tokens[:, 40:]).float().mean() > 0.9
    assert (guess[:, 2:36] == tokens[:, 3:37]).float().mean() < 0.1  # nobody can know what comes first


def test_it_reads_any_text_as_characters(small):
    reading = capture.read(small, "Ab,\té")
    assert reading.tokens == ["<s>", "a", "b", ",", "<?>", "<?>"]


def test_it_is_small():
    folder = TOOL.parent.parent / "src" / "clearhead" / "capture" / "models" / "induction"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 3_000_000


@pytest.mark.stress
def test_training_it_anew_gives_induction_heads_again(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", [str(TOOL), str(tmp_path)])
    runpy.run_path(str(TOOL), run_name="__main__")
    found = capture.induction_scores(capture.load(tmp_path).model, vocab_size=51, length=41)
    assert found[1].max() > 0.7
    assert found[0].max() < 0.1


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)

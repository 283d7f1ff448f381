"""Two models over one text: likeness by its definition, the pictures, refusals."""

import io

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from clearhead.errors import OptionError, TooLargeError
from clearhead.views import comparison, terminal_comparison
from views.fake import reading


def printed(what, width=80):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(what)
    return out.getvalue()


def weights(given, layer, head):
    return list(given.record.values())[layer].weights[0, head].double().numpy()


def test_likeness_is_the_mean_cosine_of_the_rows():
    first, second = reading(7, layers=2, heads=3, seed=1), reading(7, layers=1, heads=5, seed=2)
    found = comparison.compare(first, second)
    assert found.alike.shape == (6, 5)
    for row, (layer, head) in enumerate(found.heads):
        for column, (other_layer, other) in enumerate(found.others):
            pairs = zip(weights(first, layer, head), weights(second, other_layer, other), strict=True)
            cosines = [a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs]
            assert found.alike[row, column] == pytest.approx(np.mean(cosines), abs=1e-6)


def test_divergence_is_the_mean_kl_of_the_rows():
    first, second = reading(7, layers=2, heads=5, seed=1), reading(7, layers=1, heads=5, seed=2)
    second.record["layer.0.attention"].weights[0, 4, 3] = torch.eye(7)[2]  # nothing for keys that others look at
    found = comparison.compare(first, second)
    for row, (layer, head) in enumerate(found.heads):
        for column, (other_layer, other) in enumerate(found.others[:4]):
            pairs = zip(weights(first, layer, head), weights(second, other_layer, other), strict=True)
            expected = np.mean([kl_of_rows(a, b) for a, b in pairs])
            assert found.nats[row, column] == pytest.approx(expected, rel=1e-6)
        assert found.nats[row, 4] == np.inf
    listed = comparison.listing(comparison.compare(first, reading(7, layers=1, heads=3, seed=2)))["same_place"]
    assert {"layer", "head", "likeness", "kl"} == set(listed[0])
    assert "∞" in printed(terminal_comparison.overview(found))


def kl_of_rows(a, b):
    return sum(x * np.log(x / y) for x, y in zip(a, b, strict=True) if x > 0)


def test_a_model_is_like_itself():
    given = reading(11, layers=2, heads=3)
    found = comparison.compare(given, given)
    assert [likeness for likeness, *_ in found.same_place()] == pytest.approx([1.0] * 6)
    best = found.best()
    assert len(best) == 6
    assert all(head == other for _, head, other in best)
    assert "1.000" in printed(terminal_comparison.overview(found))
    assert np.abs(comparison.between(found, 1, 2, 99)).max() == 0


def test_rounding_is_not_drawn_as_a_difference():
    """A copy whose weights were rounded otherwise: at a scale of 1e-7 nats, noise would fill the map."""
    given, copied = reading(11, layers=2, heads=3), reading(11, layers=2, heads=3)
    for matrix in copied.record.values():
        matrix.weights.mul_(1 + 2e-7 * torch.randn(matrix.weights.shape, generator=torch.Generator().manual_seed(7)))
    found = comparison.compare(given, copied)
    assert found.nats.diagonal().tolist() == [0.0] * 6
    assert comparison.divergences(given, copied) == [[0.0] * 3] * 2
    drawn = printed(terminal_comparison.overview(found))
    assert "0 everywhere: each head attends as the one at its place" in drawn
    assert "▒▒" not in drawn
    same = comparison.compare(given, given)
    assert "no difference anywhere" in printed(terminal_comparison.one_head(same, 1, 2))


def test_only_heads_both_models_have_are_compared_in_place():
    found = comparison.compare(reading(5, layers=2, heads=3), reading(5, layers=1, heads=2, seed=9))
    assert {entry[2:] for entry in found.same_place()} == {(0, 0), (0, 1)}
    with pytest.raises(OptionError, match="only layer 0"):
        comparison.between(found, 1, 0, 9)


def test_the_map_says_which_of_the_two_has_more():
    first, second = reading(3, layers=1, heads=1), reading(3, layers=1, heads=1, seed=5)
    for given, row in ((first, [1.0, 0.0, 0.0]), (second, [0.0, 0.0, 1.0])):
        given.record["layer.0.attention"].weights[:] = given.record["layer.0.attention"].weights.new_tensor(row)
    lines = printed(terminal_comparison.one_head(comparison.compare(first, second), 0, 0)).splitlines()
    assert [line[-6:] for line in lines if line.startswith(" word") or line.startswith("word")] == ["██  ##"] * 3


def test_a_line_end_or_a_wide_letter_in_a_token_keeps_the_map_in_columns():
    tokens = ["\n", "日本", "word"]
    first, second = (reading(list(tokens), layers=1, heads=1, seed=seed) for seed in (0, 5))
    lines = printed(terminal_comparison.one_head(comparison.compare(first, second), 0, 0)).splitlines()
    named = [line for line in lines if any(name in line for name in ("⏎", "日本", "word"))]
    assert [cell_len(line[: line.index(f" {place} ")]) for place, line in enumerate(named)] == [6] * 3


def test_refusals_say_what_to_do(monkeypatch):
    with pytest.raises(OptionError, match="share a tokenizer"):
        comparison.compare(reading(5), reading(7))
    with pytest.raises(OptionError, match="at token 1 a small model reads “cat” and a small model reads “cats”"):
        comparison.compare(reading(["[CLS]", "cat", "s"]), reading(["[CLS]", "cats", "s"]))
    alike = comparison.compare(reading(["[CLS]", "The", "##s"]), reading(["[SEP]", "Ġthe", "s"]))
    assert len(alike.heads) == 15
    monkeypatch.setattr(comparison, "MOST_NUMBERS", 100)
    with pytest.raises(TooLargeError, match="shorter text"):
        comparison.compare(reading(5), reading(5))

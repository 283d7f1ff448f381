"""The terminal pictures: shades that read without colour, 80 columns, refusals that say what there is."""

import io
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from clearhead.errors import OptionError
from clearhead.views import terminal
from views.fake import DenseMatrix, Reading, Record, reading


def printed(given, width=80, **options):
    out = io.StringIO()
    terminal.show(given, Console(file=out, width=width, highlight=False), **options)
    return out.getvalue()


def one(weights, tokens="abcdefgh"):
    return Reading(Record(only=DenseMatrix(weights)), list(tokens[: weights.shape[-1]]))


def test_shades_follow_the_weights():
    weights = torch.tensor([[1.0, 1e-4, 1e-4], [0.5, 0.3, 0.2], [0.05, 0.05, 0.9]]).view(1, 1, 3, 3)
    lines = printed(one(weights), layer=0).splitlines()
    drawn = [line[6:] for line in lines if line[:5] in ("a   0", "b   1", "c   2")]
    assert drawn == ["██", "▓▓▒▒▒▒", "░░░░██"]


@pytest.mark.slow
def test_no_line_is_wider_than_the_terminal():
    for width in (40, 80, 132):
        for given in (reading(15, layers=2, heads=12), reading(97, layers=2, heads=3)):
            for text in (printed(given, width), printed(given, width, layer=1)):
                assert max(len(line) for line in text.splitlines()) <= width


@pytest.mark.parametrize("width", [1, 2, 5, 7, 11])
def test_a_terminal_too_narrow_for_a_map_is_drawn_in(width):
    assert "layersdown,headsacross" in "".join(printed(reading(7), width).split())


def test_nothing_but_plain_text_in_a_pipe():
    assert "\x1b" not in printed(reading(7))


def test_masked_cells_are_marked():
    text = printed(reading(5, is_causal=True), layer=0)
    row = next(line for line in text.splitlines() if "word0" in line)
    assert row.endswith("╱" * 8)


def test_numbers_are_the_weights():
    given = reading(["red", "green", "blue"], layers=1, heads=1)
    weights = given.record["layer.0.attention"].weights[0, 0]
    text = printed(given, layer=0)
    assert f"{float(weights.max()):.3f}" in text
    assert "rows: queries" in text


def test_a_long_text_of_a_decoder_says_how_many_tokens_are_left_out():
    given = replace(reading(5), decoder=SimpleNamespace(tokens=[f"said{place}" for place in range(230)]))
    assert "… and 30 more" in printed(given)


def test_a_long_token_is_cut():
    assert "x" * 30 not in printed(reading(["x" * 300, "b"], layers=1, heads=1))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"layer": 3}, "layers 0 to 2"), ({"layer": -1}, "layers 0 to 2"), ({"head": 5}, "heads 0 to 4")],
)
def test_a_head_that_is_not_there(options, said):
    with pytest.raises(OptionError, match=said):
        printed(reading(5, layers=3, heads=5), **options)


def test_what_was_missed_is_reported():
    class Short(Record):
        missed = (type("Missed", (), {"name": "layer.9", "reason": "has its own softmax"})(),)

    given = Reading(Short(reading(5).record), ["a", "b", "c", "d", "e"])
    assert "layer.9: has its own softmax" in printed(given)

"""What words look at in two pictures, and in a sound, for weights written down by hand."""

from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from clearhead.capture.models.reading import Grid, Sound, Target
from clearhead.capture.positions import Axis, Positions
from clearhead.views import terminal
from clearhead.views.media.figure import head_figure
from clearhead.views.media.looks import at_picture, largest
from clearhead.views.page import media
from views.fake import DenseMatrix, Reading, Record

PIXELS = torch.zeros(8, 12, 3, dtype=torch.uint8)
FIRST, SECOND = Grid(2, 3, 1, PIXELS), Grid(1, 2, 8, PIXELS)
TOKENS = ["a", *(f"0:{row},{col}" for row in range(2) for col in range(3)), "red", "1:0,0", "1:0,1", "kite"]
WORDS = RED, KITE = 7, 10
SECONDS = Sound(0.02, 0.6, torch.arange(33) / 33)  # 30 frames, and 3 of silence


class Placed(Record):
    """A record of one layer, which attends from these tokens to those."""

    def __init__(self, queries, keys, weights):
        super().__init__(layer=DenseMatrix(weights))
        self.axes = Positions(queries, keys)

    def positions(self, _name):
        return (self.axes,)


class WithPatches(Reading):
    @property
    def special(self):
        return [":" in token for token in self.tokens]


def pictured(queries=None):
    """Two heads over "a", a picture of 2 × 3, "red", a picture of 1 × 2, "kite"."""
    weights = torch.zeros(1, 2, 11, 11)
    weights[0, :, 0, 3] = 0.9  # of "a", which is before both
    weights[0, 0, RED, FIRST.places()] = torch.tensor([0.05, 0.05, 0.05, 0.05, 0.05, 0.6])
    weights[0, 0, KITE, SECOND.places()] = torch.tensor([0.0, 0.3])
    weights[0, 1, torch.tensor(WORDS)[:, None], FIRST.places()] = 0.1
    weights[0, 1, KITE, SECOND.places()] = torch.tensor([0.0, 0.35])
    record = Placed(queries or Axis("input", range(11)), Axis("input", range(11)), weights)
    return WithPatches(record, TOKENS, pictures=(FIRST, SECOND))


@pytest.fixture
def heard():
    weights = torch.zeros(1, 1, 2, 33)
    weights[0, 0, 0, [17, 32]] = torch.tensor([0.6, 0.4])
    weights[0, 0, 1, [4, 31]] = torch.tensor([0.9, 0.1])
    record = Placed(Axis("decoder", range(2)), Axis("input", range(33)), weights)
    decoder = Target(["<s>", "kite"], [1, 9], [True, False])
    return Reading(record, [f"{frame * 0.02:.2f}" for frame in range(33)], sound=SECONDS, decoder=decoder)


def printed(reading, head, width=80):
    screen = Console(file=StringIO(), width=width, color_system=None)
    screen.print(terminal.one_head(reading, 0, head, width))
    return screen.file.getvalue()


def test_only_words_after_a_picture_look_at_it_and_its_rows_stay_rows():
    reading = pictured()
    assert [look.token for look in at_picture(reading, 0, 0, FIRST)] == ["red", "kite"]
    (look,) = at_picture(reading, 0, 0, SECOND)
    assert (look.token, look.weights.tolist()) == ("kite", [pytest.approx([0, 0.3])])
    red = at_picture(reading, 0, 0, FIRST)[0].weights
    assert red.shape == (2, 3)
    assert red[1, 2] == pytest.approx(0.6)


def test_the_scale_of_a_head_is_that_of_all_its_words_and_pictures(monkeypatch):
    assert largest(pictured(), 0).tolist() == pytest.approx([0.6, 0.35])
    monkeypatch.setattr("clearhead.views.media.looks.BLOCK", 1)  # a word at a time
    assert largest(pictured(), 0).tolist() == pytest.approx([0.6, 0.35])


@pytest.mark.parametrize("queries", [Axis("other", range(11)), Axis("input", range(1, 12))], ids=["latents", "later"])
def test_rows_that_are_not_the_tokens_in_order_are_no_words(queries):
    reading = pictured(queries)
    assert at_picture(reading, 0, 0, FIRST) == []
    assert largest(reading, 0).tolist() == [0, 0]


def test_the_terminal_names_the_patch_with_the_most_weight():
    shown = " ".join(printed(pictured(), 0).split())
    assert "most on one: red on row 1, column 2, 0.600" in shown
    assert "most on one: kite on row 0, column 1, 0.300" in shown


def test_a_figure_shows_the_picture_that_is_looked_at_most_on_the_scale_of_all():
    figure = head_figure(pictured(), 0, 1)
    assert [axis.get_title().split()[0] for axis in figure.axes if axis.get_title()] == ["red", "kite"]
    assert "clear at 0.350" in figure.get_supxlabel()


def test_the_terminal_keeps_the_largest_weight_of_a_cell_and_counts_the_silence(heard):
    shown = printed(heard, 0, 40)
    assert "0.34 s  0.600" in shown
    line = next(line for line in shown.splitlines() if "0.08 s  0.900" in line)
    assert "█" in line  # three frames share a cell; their mean would be a lighter shade
    assert "on what follows the sound: 0.25 of a word's weight" in " ".join(shown.split())


def test_the_page_draws_the_picture_of_a_model_of_pictures_and_the_wave_of_what_is_heard(heard):
    (drawn,) = media.pictures(replace(pictured(), pictures=(), grid=FIRST))
    assert (drawn["rows"], drawn["cols"], drawn["first"]) == (2, 3, 1)
    assert media.pictures(heard) == []
    assert media.sound(heard)["wave"] == [round(frame / 33, 3) for frame in range(30)]

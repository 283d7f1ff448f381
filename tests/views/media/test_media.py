"""What words look at in a picture or a sound: the same numbers in a terminal, as a figure, in JSON and on a page."""

from io import StringIO

import pytest
import torch
from rich.console import Console

from capture.media import folders
from clearhead import capture, views
from clearhead.views import terminal
from clearhead.views.links import between_words, first_link
from clearhead.views.listing import listing
from clearhead.views.media.figure import head_figure
from clearhead.views.media.looks import at_picture, at_sound, largest, strongest
from clearhead.views.page.payload import MAP_NUMBERS, _budget, payload
from clearhead.views.page.questions import answer

pytestmark = pytest.mark.slow
TEXT = "a red kite flew"


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    folder = folders.made(folders.qwen2_vl, tmp_path_factory.mktemp("qwen2_vl"))
    return capture.read_with_picture(capture.load(folder), TEXT, folders.picture(folder / "a.png"))


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    folder = folders.made(folders.whisper, tmp_path_factory.mktemp("whisper"))
    return capture.read_sound(capture.load(folder), folders.sound(folder / "a.wav", 0.7), TEXT)


def printed(shown) -> str:
    screen = Console(file=StringIO(), width=80, color_system=None)
    screen.print(shown)
    return screen.file.getvalue()


def test_words_look_at_the_patches_of_the_matrix(seen):
    dense = list(seen.record.values())[1].to_dense()[0, 2]
    looks = at_picture(seen, 1, 2, seen.pictures[0])
    assert [look.token for look in looks] == TEXT.split()
    for place, look in zip(range(27, 31), looks, strict=True):
        torch.testing.assert_close(
            torch.from_numpy(look.weights).flatten(), dense[place, 2:26], rtol=0, atol=1e-6, check_dtype=False
        )
    most = sorted(looks, key=lambda look: look.total)[-2:]
    assert [look.token for look in strongest(looks, 2)] == [look.token for look in looks if look in most]


def test_words_look_at_the_seconds_of_the_matrix(heard):
    dense = heard.record["decoder.layers.0.encoder_attn"].to_dense()[0, 1]
    looks = at_sound(heard, 3, 1)
    assert [look.token for look in looks] == ["<s>", *TEXT.split()]
    for row, look in zip(dense, looks, strict=True):
        torch.testing.assert_close(torch.from_numpy(look.weights), row, rtol=0, atol=1e-6, check_dtype=False)
    assert at_sound(heard, 2, 1) == []  # the decoder's words among themselves


def test_one_scale_ends_at_the_most_that_a_word_of_the_head_gives(seen, heard):
    for reading, layer, at in ((seen, 1, lambda head: at_picture(seen, 1, head, seen.pictures[0])), (heard, 3, None)):
        ends = largest(reading, layer)
        for head in range(4):
            looks = at(head) if at else at_sound(heard, 3, head)
            most = max(look.weights.flatten()[: 24 if at else 35].max() for look in looks)
            assert ends[head] == pytest.approx(most, abs=1e-6)
    assert largest(heard, 2).tolist() == [0, 0, 0, 0]  # the decoder's words among themselves
    assert payload(seen)["layers"][1]["looks"] == largest(seen, 1).tolist()
    assert payload(heard)["layers"][3]["looks"] == largest(heard, 3).tolist()
    grouped = views.grouping.grouped(seen, "lines")
    assert 0 < largest(grouped, 1)[2] <= largest(seen, 1)[2]


def test_telling_links_lead_from_a_word_to_a_patch_or_a_moment(seen, heard):
    patches = set(seen.pictures[0].places())
    for link in (first_link(seen), *between_words(seen, 8)):
        assert link.key in patches
        assert link.query > 26
    for link in (first_link(heard), *between_words(heard, 8)):
        assert link.layer in (3, 5)


def test_the_terminal_draws_the_picture_and_the_seconds(seen, heard):
    overview = printed(terminal.overview(seen, 80))
    assert "[4\u00a0×\u00a06\u00a0patches]" in overview
    assert "0,0" not in overview.split("layers down")[0]
    assert "Strongest links from a word to a patch" in overview
    shown = printed(terminal.one_head(seen, 1, 2, 80))
    look = at_picture(seen, 1, 2, seen.pictures[0])[1]
    assert f"red {look.total:.2f}" in shown
    sound = printed(terminal.one_head(heard, 3, 1, 80))
    assert f"one scale for all words: █ is {largest(seen, 1)[2]:.3f}" in " ".join(shown.split())
    assert f"one scale for all words: █ is {largest(heard, 3)[1]:.3f}" in " ".join(sound.split())
    best = at_sound(heard, 3, 1)[3]
    place = int(best.weights[:35].argmax())
    assert "kite" in sound
    assert f"{place * 0.02:.2f} s  {best.weights[place]:.3f}" in sound
    assert "[sound,\u00a00.70\u00a0s]" in printed(terminal.overview(heard, 80))
    assert "in the sound" not in printed(terminal.one_head(heard, 2, 0, 80))
    assert all(len(line) <= 80 for line in (shown + sound).splitlines())


def test_a_figure_shows_words_over_the_picture_and_over_seconds(seen, heard):
    figure = head_figure(seen, 1, 2)
    assert f"clear at {largest(seen, 1)[2]:.3f}" in figure.get_supxlabel()
    titles = [axis.get_title() for axis in figure.axes]
    assert [title.split()[0] for title in titles if title] == TEXT.split()
    axis = head_figure(heard, 3, 1).axes[0]
    assert axis.get_xlabel() == "seconds"
    assert axis.get_xlim() == (0, pytest.approx(0.7))
    assert head_figure(heard, 2, 1).axes[0].get_xlabel() != "seconds"


def test_the_page_holds_the_picture_the_sound_and_their_places(seen, heard):
    data = payload(seen, text=TEXT, file="a.png")
    (picture,) = data["pictures"]
    assert picture["src"].startswith("data:image/jpeg;base64,")
    assert {name: picture[name] for name in ("rows", "cols", "first", "gap")} == {
        "rows": 4, "cols": 6, "first": 2, "gap": 0
    }  # fmt: skip
    assert (data["sound"], data["file"]) == (None, "a.png")
    data = payload(heard, text=TEXT)
    assert data["pictures"] == []
    assert data["sound"].keys() == {"seconds", "duration", "heard", "wave"}
    assert data["sound"]["heard"] == len(data["sound"]["wave"]) == 35
    row = answer(heard, {"kind": "row", "layer": 3, "head": 1, "token": 2, "side": "query"})["row"]
    assert row["shape"] == [1, 50]


def test_the_listing_says_where_patches_and_seconds_are(seen, heard):
    assert listing(seen)["pictures"] == [{"first": 2, "rows": 4, "cols": 6, "row_gap": 0}]
    assert listing(heard)["sound"] == {"seconds": 0.02, "duration": 0.7}


def test_words_are_joined_and_the_patches_stay_where_they_are(seen, heard):
    grouped = views.grouping.grouped(seen, "words")
    (grid,) = grouped.pictures
    assert [grouped.tokens[place] for place in grid.places()][:2] == ["0,0", "0,1"]
    before, after = (at_picture(reading, 1, 2, reading.pictures[0]) for reading in (seen, grouped))
    assert [look.total for look in after] == pytest.approx([look.total for look in before], abs=1e-6)
    lines = views.grouping.grouped(heard, "lines")
    assert len(lines.tokens) == 50
    assert [look.token for look in at_sound(lines, 3, 1)] == ["<s>", TEXT]


class Sized:
    def __init__(self, *shape):
        self.shape = shape


def test_small_layers_are_kept_whole_beside_large_ones():
    encoder, cross = Sized(1, 8, 1500, 1500), Sized(1, 8, 10, 1500)
    budget = _budget([encoder, cross, encoder, cross])
    assert budget.whole == 8 * 10 * 1500
    assert 2 * budget.whole + 2 * 8 * budget.side**2 <= MAP_NUMBERS
    alike = _budget([encoder] * 4)
    assert (alike.whole, alike.side % 24) == (0, 0)
    assert _budget([cross]).whole == 8 * 10 * 1500

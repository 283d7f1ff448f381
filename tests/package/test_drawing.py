"""The small figures of pages: safe to show, as large as what they hold, numbers as a person writes them."""

import re

import pytest

from clearhead.course.proofs.figure import unsafe
from clearhead.drawing import arrows, bars, grid, lines, links, number


@pytest.mark.parametrize(
    "drawn",
    [
        bars([0.67, 0.0, -0.2], ["animal", "<street>", "it & you"]),
        bars([0.0, 0.0]),
        grid([[0.5, 0.5], [0.1, 0.9]], ["a", "b"], ["c", "d"], hidden=[[False, True], [False, False]]),
        grid([[0.25] * 4], numbers=False),
        lines({"one": [1.0, 2.0, 3.0], "two": [3.0, 2.0, 2.9]}, [1, 2, 3], mark=1),
        lines({"flat": [0.0]}, ["x"]),
        links(["the", "animal", "it"], [0.1, 0.7, 0.2], 2),
        arrows({"query": (2.0, 0.0), "key": (-1.0, 1.5)}),
    ],
)
def test_a_figure_may_be_in_a_page_and_says_what_it_shows(drawn: str) -> None:
    assert unsafe(drawn) == ""
    assert re.search(r"<title>[^<]+</title>", drawn)


@pytest.mark.parametrize(
    "drawn",
    [
        bars([0.5], title="A share of the whole, as measured"),
        grid([[0.5, 0.5]], title="A share of the whole, as measured"),
        lines({"one": [1.0, 2.0]}, [1, 2], title="A share of the whole, as measured"),
        links(["a", "b"], [0.5, 0.5], 0, "A share of the whole, as measured"),
        arrows({"a": (1.0, 0.0)}, "A share of the whole, as measured"),
    ],
)
def test_a_title_is_written_for_those_who_see_as_well(drawn: str) -> None:
    assert drawn.count("A share of the whole, as measured") == 2
    width = float(re.search(r'viewBox="0 0 (\d+)', drawn)[1])  # type: ignore[index]
    assert width >= len("A share of the whole, as measured") * 7


@pytest.mark.parametrize(
    "drawn",
    [
        bars([1.0, 1.0, 0.9, 0.8], ["learnt", "straight through", "rotary", "bias by distance"]),
        bars([0.5] * 8, [f"pair {at}" for at in range(8)], "Numbers in the largest tensor kept for the backward pass"),
        lines({"likeness to place 20": [0.0, 1.0]}, [0, 1]),
        lines(
            {"1 head": [1.0, 0.4], "8 heads": [1.0, 0.0]},
            [0, 1],
            "Loss while training, mean of all five seeds, on new data",
        ),
    ],
)
def test_long_names_are_broken_so_that_a_phone_shows_them_at_the_size_of_its_text(drawn: str) -> None:
    assert float(re.search(r'viewBox="0 0 (\d+)', drawn)[1]) <= 380  # type: ignore[index]


def test_names_of_curves_stand_in_the_order_of_their_ends() -> None:
    drawn = lines({"stuck": [1.0, 0.43], "second": [1.0, 0.002], "third": [1.0, 0.008]}, [0, 1], top=2)
    heights = {name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*fill="[^"]*">(\w+)<', drawn)}
    assert heights["stuck"] + 13 <= heights["third"] + 1e-6 <= heights["second"] - 13 + 1e-6
    assert heights["second"] <= 155  # not below the axis


def test_the_name_of_an_arrow_is_not_cut_off() -> None:
    drawn = arrows({"a name that is quite long": (2.4, 0.0)})
    start = float(re.search(r'<text x="([\d.]+)"', drawn)[1])  # type: ignore[index]
    width = float(re.search(r'viewBox="0 0 (\d+)', drawn)[1])  # type: ignore[index]
    assert width >= start + 7 * len("a name that is quite long")


def test_a_bar_is_as_high_as_its_share_of_the_top() -> None:
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" fill', bars([0.5, 1.0, 2.0], top=1.0))]
    assert heights[0] == pytest.approx(heights[1] / 2)
    assert heights[1] == heights[2]  # none is higher than the picture


def test_a_bar_below_zero_hangs_from_the_line() -> None:
    tops = [float(y) for y in re.findall(r'<rect x="[\d.]+" y="([\d.]+)"', bars([0.5, -0.5], top=1.0))]
    heights = [float(height) for height in re.findall(r'height="([\d.]+)" fill', bars([0.5, -0.5], top=1.0))]
    assert tops[0] + heights[0] == tops[1]
    assert heights[0] == heights[1]


def test_pictures_of_one_slider_are_as_high_as_each_other() -> None:
    sizes = {
        re.search(r'viewBox="([^"]+)"', bars(values, top=1.0, bottom=-1.0))[1] for values in ([1.0, 0.9], [-1.0, 0.2])
    }  # type: ignore[index]
    assert len(sizes) == 1


def test_a_hidden_cell_is_hatched_and_has_no_number() -> None:
    drawn = grid([[0.25, 0.75]], hidden=[[False, True]])
    assert drawn.count("url(#hatch)") == 1
    assert ">0.25<" in drawn
    assert ">0.75<" not in drawn


@pytest.mark.parametrize(
    ("value", "written"),
    [(0.19999999999999996, "0.2"), (3.0, "3"), (12345.6, "12,346"), (0.004, "0.004"), (0.0, "0"), (-0.5, "-0.5")],
)
def test_numbers_are_written_as_a_person_would(value: float, written: str) -> None:
    assert number(value) == written


def test_numbers_beside_each_other_have_as_many_digits() -> None:
    assert re.findall(r">(\d[\d.]*)<", links(["the", "animal", "it"], [0.1, 0.28, 0.62], 2)) == ["0.10", "0.28", "0.62"]
    drawn = grid([[0.5, float("-inf")], [0.25, 1.0]], ["a", "b"], ["c", "d"], hidden=[[False, True], [False, False]])
    assert re.findall(r">(\d[\d.]*)<", drawn) == ["0.50", "0.25", "1.00"]

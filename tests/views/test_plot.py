"""Figures for papers: the weights drawn, names that stay words, files that repeat."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402

from clearhead.errors import OptionError, ShapeError  # noqa: E402
from clearhead.views import comparison, over_picture, plot  # noqa: E402
from views.fake import Reading, Record, reading  # noqa: E402


def images(figure):
    return figure.axes[0].images


def test_the_grid_draws_every_head_on_one_scale():
    given = reading(11, layers=2, heads=3)
    drawn = images(plot.grid(given))
    weights = [head for matrix in given.record.values() for head in matrix.weights[0].double().numpy()]
    assert len(drawn) == 6
    for image, head in zip(drawn, weights, strict=True):
        np.testing.assert_allclose(image.get_array().filled(0), head)
        assert image.norm.vmax == pytest.approx(max(one.max() for one in weights))


def test_one_head_draws_its_weights_and_names_both_axes():
    given = reading(["red", "$x$", "blue"], layers=1, heads=2)
    figure = plot.head(given, 0, 1)
    np.testing.assert_allclose(images(figure)[0].get_array(), given.record["layer.0.attention"].weights[0, 1].double())
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["red", "$x$", "blue"]


def test_the_only_head_there_is_has_no_number():
    assert plot.head(reading(7, layers=1, heads=1), 0, 0).axes[0].get_title() == "a small model"  # a rollout
    assert plot.head(reading(7, layers=1, heads=2), 0, 1).axes[0].get_title() == "a small model, layer 0, head 1"


def test_a_line_end_has_a_name_that_can_be_seen():
    axis = plot.difference(np.eye(3), ["a", "\n", "b"], "lines").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "⏎", "b"]


def test_masked_cells_are_hatched_and_never_coloured():
    axis = plot.head(reading(5, is_causal=True), 0, 0).axes[0]
    assert axis.images[0].get_array().mask.sum() == 10
    assert [patch.get_hatch() for patch in axis.patches] == ["//////"]


def test_a_difference_is_paper_where_heads_agree():
    one = np.array([[0.5, 0.5], [0.9, 0.1]])
    image = images(plot.difference(one - one[::-1], ["a", "b"], "title"))[0]
    np.testing.assert_allclose(image.get_array(), one - one[::-1])
    assert image.cmap(image.norm(0.0))[:3] == pytest.approx((1, 1, 1), abs=0.01)


def test_a_comparison_is_drawn_of_all_heads_or_of_one():
    models = [replace(reading(5, layers=1, heads=2, seed=seed), model_name=f"model {seed}") for seed in (1, 2)]
    compared = comparison.compare(*models)
    (image,) = images(plot.compared(compared, (0, 1)))
    weights = [model.record["layer.0.attention"].weights[0, 1].double().numpy() for model in models]
    np.testing.assert_allclose(image.get_array(), weights[0] - weights[1], atol=1e-6)
    assert image.axes.get_title() == "layer 0, head 1: model 1 minus model 2"
    assert len(images(plot.compared(compared, None))) == 1


def test_bars_show_the_largest_first():
    axis = plot.bars([[0.1, 0.9], [0.5]], "spread").axes[0]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["0.1", "1.0", "0.0"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svg", "pdf", "png"])
def test_the_same_figure_gives_the_same_file(tmp_path, kind):
    for name in ("a", "b"):
        plot.save(plot.head(reading(["caf\u00e9", "two"], layers=1, heads=1), 0, 0), tmp_path / f"{name}.{kind}")
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    if kind == "svg":
        assert "café" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_refusals_say_what_to_do(tmp_path):
    figure = plot.bars([[0.5]], "spread")
    with pytest.raises(OptionError, match="\\.png, \\.svg or \\.pdf"):
        plot.save(figure, tmp_path / "figure.gif")
    with pytest.raises(OptionError, match="cannot be written"):
        plot.save(figure, tmp_path / "missing" / "figure.png")
    with pytest.raises(OptionError, match="nothing to draw"):
        plot.grid(Reading(Record(), ["a"]))
    with pytest.raises(OptionError, match="heads 0 to 4"):
        plot.head(reading(5), 0, 9)


def labels_collide(figure):
    """Whether two tick labels of one axis overlap, as drawn."""
    FigureCanvasAgg(figure).draw()
    for axis in figure.axes[:1]:
        for which in (axis.xaxis, axis.yaxis):
            boxes = [label.get_window_extent() for label in which.get_ticklabels() if label.get_text()]
            for one, other in pairwise(boxes):
                if one.overlaps(other):
                    return True
    return False


@pytest.mark.slow
def test_labels_do_not_collide_however_many_there_are():
    tokens = ["Donaudampfschiff", *[f"token{n}" for n in range(38)], "$x_1$"]
    assert not labels_collide(plot.head(reading(tokens, layers=1, heads=1), 0, 0))
    assert not labels_collide(plot.grid(reading(5, layers=3, heads=67)))
    assert not labels_collide(plot.bars([[0.1] * 61], "breadth"))
    found = comparison.compare(reading(5, layers=13, heads=5), reading(5, layers=13, heads=3, seed=1))
    assert not labels_collide(plot.divergence(found))


def test_divergence_is_drawn_and_infinite_is_hatched():
    first, second = reading(5, layers=2, heads=3), reading(5, layers=2, heads=2, seed=3)
    second.record["layer.1.attention"].weights[0, 1] = torch.eye(5)
    figure = plot.divergence(found := comparison.compare(first, second))
    drawn = images(figure)[0].get_array()
    np.testing.assert_allclose(drawn[:, :3], found.nats[:, :3])
    assert drawn.mask[:, 3].all()
    assert [patch.get_hatch() for patch in figure.axes[0].patches] == ["//////"]


def test_patches_are_drawn_over_their_picture_all_maps_on_one_scale():
    pixels, maps = torch.rand(12, 20, 3), torch.rand(5, 3, 5)
    maps[4] /= 100
    maps[0, 1, 2] = 2.0
    figure = over_picture.over_picture(pixels, maps, ["it", "$5", "a", "b", "c"])
    drawn = [axis for axis in figure.axes if axis.images]
    assert len(drawn) == 5
    assert [axis.get_title().split()[0] for axis in drawn] == ["it", "$5", "a", "b", "c"]
    for axis, weights in zip(drawn, maps, strict=True):
        picture, veil = axis.images
        np.testing.assert_allclose(picture.get_array(), pixels.numpy())
        assert picture.get_extent() == veil.get_extent()
        dark = veil.get_array()[..., 3]
        np.testing.assert_allclose(dark, 0.85 * (1 - np.sqrt(weights.numpy() / 2.0)), atol=1e-6)
    assert "clear at 2.000" in figure.get_supxlabel()
    other = over_picture.over_picture(pixels, maps, top=1.5)
    dark = other.axes[1].images[1].get_array()[..., 3]
    np.testing.assert_allclose(dark, 0.85 * (1 - np.sqrt(maps[1].numpy() / 1.5)), atol=1e-6)
    assert other.axes[0].images[1].get_array()[..., 3].min() == 0  # beyond the scale: clear
    assert "clear at 1.500" in other.get_supxlabel()
    stored = over_picture.over_picture((pixels * 255).round().byte(), maps)
    np.testing.assert_allclose(images(stored)[0].get_array(), pixels.numpy(), atol=0.5 / 255 + 1e-6)
    FigureCanvasAgg(figure).draw()
    for wrong in (torch.rand(3), torch.rand(0, 3, 5)):
        with pytest.raises(ShapeError, match="one title per map"):
            over_picture.over_picture(pixels, wrong)
    with pytest.raises(ShapeError, match=r"\(3, 12, 20\), expected \(height, width, 3\)"):
        over_picture.over_picture(pixels.permute(2, 0, 1), maps)


def test_words_are_drawn_over_seconds():
    weights = torch.rand(3, 31)
    figure = over_picture.over_seconds(weights, ["we", "$said", "so"], 0.02)
    (image,) = images(figure)
    np.testing.assert_allclose(image.get_array(), weights.numpy(), rtol=1e-6)
    assert image.norm.vmin == 0
    assert image.norm.vmax == float(weights.max())
    assert [axis.get_ylabel() for axis in figure.axes] == ["word", "weight"]  # the map, and the scale of its colours
    assert image.get_extent()[:2] == [0, pytest.approx(0.62)]
    FigureCanvasAgg(figure).draw()
    with pytest.raises(ShapeError, match="for 2 words"):
        over_picture.over_seconds(weights, ["we", "said"], 0.02)


def test_a_figure_that_ends_a_cell_is_shown_without_pyplot():
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    given, pixels, weights = reading(7, layers=2, heads=3), torch.rand(12, 20, 3), torch.rand(2, 3, 5)
    other = reading(7, layers=2, heads=3, seed=1)
    found = comparison.compare(given, other)
    for figure in (
        plot.grid(given),
        plot.head(given, 1, 2),
        plot.difference(np.eye(3), ["a", "b", "c"], "title"),
        plot.divergence(found),
        plot.bars([[0.5, 0.25]], "score"),
        over_picture.over_picture(pixels, weights),
        over_picture.over_seconds(torch.rand(2, 31), ["we", "said"], 0.02),
    ):
        data, metadata = formatters.DisplayFormatter().format(figure)
        png = data["image/png"]
        width = int.from_bytes(png[16:20])
        assert metadata["image/png"]["width"] == width // 2  # twice as sharp as a screen of one pixel per CSS pixel
        assert width > plot.SHARP


def test_pyplots_own_way_to_show_a_figure_is_the_only_one_where_it_is_set():
    formatters = pytest.importorskip("IPython.core.formatters", reason="IPython is not installed")
    shown = formatters.DisplayFormatter()
    shown.formatters["image/png"].for_type(matplotlib.figure.Figure, lambda figure: b"inline")
    assert shown.format(plot.head(reading(7), 0, 0))[0]["image/png"] == b"inline"

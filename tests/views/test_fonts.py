"""Tokens in scripts that matplotlib's default font lacks: an installed font is found, or one warning says what to do."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")

from fontTools.fontBuilder import FontBuilder  # noqa: E402, a requirement of matplotlib
from fontTools.pens.ttGlyphPen import TTGlyphPen  # noqa: E402
from matplotlib import font_manager  # noqa: E402

from clearhead.views import fonts, plot  # noqa: E402
from views.fake import reading  # noqa: E402


def make_font(place: Path, name: str, characters: str) -> Path:
    """Write a font that draws each of these characters as a square."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 700), (700, 700), (700, 0)):
        pen.lineTo(corner)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", *(f"u{ord(char):X}" for char in characters)]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(char): f"u{ord(char):X}" for char in characters})
    builder.setupGlyf(dict.fromkeys(names, square))
    builder.setupHorizontalMetrics(dict.fromkeys(names, (750, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(place / f"{name}.ttf")
    return place / f"{name}.ttf"


@pytest.fixture
def only_the_default(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine that has the fonts of matplotlib, and no others."""
    own = [font for font in font_manager.fontManager.ttflist if font.name.startswith(("DejaVu", "Last Resort"))]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
    fonts._warn.cache_clear()
    yield
    font_manager.fontManager._findfont_cached.cache_clear()  # of fonts in folders that are removed


@pytest.mark.usefixtures("only_the_default")
def test_installed_fonts_are_found_that_have_the_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those too that were installed after matplotlib wrote its cache; a preferred one comes first."""
    made = [
        make_font(tmp_path, "A Serif", "注意म"),
        make_font(tmp_path, "Noto Sans CJK SC", "注意"),
        make_font(tmp_path, "Z Sans", "x"),
    ]
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: list(map(str, made)))
    assert fonts.covering("aé注意") == (["Noto Sans CJK SC"], set())
    assert fonts.covering("注म\u07ff") == (["Noto Sans CJK SC", "A Serif"], {"\u07ff"})
    assert fonts.covering("aéαж→") == ([], set())


@pytest.mark.usefixtures("only_the_default")
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_figure_with_such_tokens_is_drawn_without_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    made = make_font(tmp_path, "Noto Sans CJK SC", "注意")
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(made)])
    figure = plot.head(reading(["注", "意", "a"], layers=1, heads=1), 0, 0)
    for label in figure.axes[0].get_yticklabels()[:2]:
        assert label.get_fontfamily() == ["sans-serif", "Noto Sans CJK SC"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(tmp_path / f"a.{kind}")  # as a notebook does, without plot.save
        plot.save(figure, tmp_path / f"b.{kind}")


@pytest.mark.usefixtures("only_the_default")
def test_one_warning_says_which_fonts_to_install(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        for _ in range(2):
            figure = plot.difference(np.eye(4), ["注", "म", "\N{BRAIN}", "\u200d\ufe0f"], "title")
            plot.save(figure, tmp_path / "a.png")
    (warning,) = given
    text = str(warning.message)
    assert "has म注\N{BRAIN}: the figure shows boxes" in text
    for package in ("fonts-noto-cjk", "fonts-noto-core", "fonts-symbola"):
        assert package in text


def test_a_font_that_cannot_be_read_or_scaled_has_no_characters(tmp_path: Path) -> None:
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    assert fonts._charmap(str(tmp_path / "broken.ttf")) == frozenset()
    assert fonts._charmap(str(tmp_path / "none.ttf")) == frozenset()

"""Choose fonts for the tokens of a figure: matplotlib's default one draws boxes for Chinese, Hindi and emoji."""

import unicodedata
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache

from clearhead.extras import needs

with needs("views", "a figure"):
    from matplotlib import font_manager, rcParams
    from matplotlib.figure import Figure
    from matplotlib.text import Text

# Tried in this order, before all other fonts: they are made for reading, and their letters match those of the default.
PREFERRED = (
    "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans Arabic", "Noto Sans Devanagari", "Hiragino Sans",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Segoe UI", "Segoe UI Symbol", "Nirmala UI", "Arial Unicode MS",
    "Symbola", "Noto Emoji",
)  # fmt: skip
_BOXES = "Last Resort"  # fonts with this in their name have a box for every character
_UNDRAWN = ("Cc", "Cf", "Cs", "Cn", "Co", "Zs", "Zl", "Zp")  # categories of characters that fonts need not have
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "FULLWIDTH", "IDEOGRAPHIC")


def set_fonts(figure: Figure) -> Figure:
    """Give every text of a figure the installed fonts that have its characters; warn of those that none has.

    Returns:
        The same figure.
    """
    texts = [text for text in _texts(figure) if not text.get_text().isascii()]
    characters = {char for text in texts for char in text.get_text() if not _is_undrawn(char)}
    names, missing = covering(characters)
    for text in texts if names else ():
        text.set_fontfamily([*rcParams["font.family"], *names])
    _warn(frozenset(missing))
    return figure


def covering(characters: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the fonts needed beside the default one to draw these characters, and the characters that none has."""
    default = font_manager.findfont(font_manager.FontProperties(family=rcParams["font.family"]))
    missing = {char for char in characters if ord(char) not in _charmap(default)}
    names: list[str] = []
    if missing:
        _find_new_fonts()
        for name, path in _by_preference():
            if drawn := {char for char in missing if ord(char) in _charmap(path)}:
                names.append(name)
                missing -= drawn
            if not missing:
                break
    return names, missing


def _texts(figure: Figure) -> Iterator[Text]:
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            yield from axis.get_ticklabels()  # which are made when they are asked for
    for artist in figure.findobj(Text):
        if isinstance(artist, Text):
            yield artist


def _is_undrawn(char: str) -> bool:
    return unicodedata.category(char) in _UNDRAWN or "VARIATION SELECTOR" in unicodedata.name(char, "")


def _find_new_fonts() -> None:
    """Add the fonts that were installed after matplotlib wrote its cache of them."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in font_manager.findSystemFonts():
        if path not in known and _charmap(path):
            font_manager.fontManager.addfont(path)


def _by_preference() -> list[tuple[str, str]]:
    """Return (name, path) of the regular fonts: the preferred ones, sans-serif ones, then others, each by name."""
    paths: dict[str, str] = {}
    for font in font_manager.fontManager.ttflist:
        if _BOXES not in font.name and font.style == "normal" and font.weight in (400, "normal", "regular", "book"):
            paths.setdefault(font.name, font.fname)
    rank = {name: place for place, name in enumerate(PREFERRED)}
    order = sorted(paths, key=lambda name: (rank.get(name, len(rank)), "Sans" not in name, "Mono" in name, name))
    return [(name, paths[name]) for name in order]


@cache
def _charmap(path: str) -> frozenset[int]:
    """Return the characters of a font; none of one that matplotlib cannot scale, such as Noto Color Emoji."""
    try:
        font = font_manager.get_font(path)
        return frozenset(font.get_charmap() if font.scalable else ())
    except (OSError, RuntimeError):
        return frozenset()


@contextmanager
def without_box_warnings() -> Iterator[None]:
    """Leave out matplotlib's own warnings, one for each box; `set_fonts` has given one for all."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ ", UserWarning)
        yield


@lru_cache(maxsize=256)
def _warn(missing: frozenset[str]) -> None:
    """Say once which characters are drawn as boxes, and which fonts have them."""
    if not missing:
        return
    kinds = {_kind(char) for char in missing}
    examples = "".join(sorted(missing)[:12])
    fonts = " and ".join(sorted(f"{_FONTS[kind][0]} (Debian: {_FONTS[kind][1]})" for kind in kinds))
    warnings.warn(
        f"no installed font that matplotlib can scale has {examples}: the figure shows boxes. Install {fonts}.",
        stacklevel=4,
    )


_FONTS = {
    "cjk": ("Noto Sans CJK", "fonts-noto-cjk"),
    "emoji": ("Symbola or Noto Emoji, not the coloured one,", "fonts-symbola"),
    "other": ("Noto Sans of that script", "fonts-noto-core"),
}


def _kind(char: str) -> str:
    if unicodedata.name(char, "").startswith(_CJK):
        return "cjk"
    return "emoji" if unicodedata.category(char) in ("So", "Sk") else "other"

"""Embed SVG figures that a pack's programs drew into a page, in the page's own colours, light and dark.

Only listed shapes and attributes are copied; everything else is dropped, including `<style>`. Black becomes the page's
text colour, white its background, greys are mapped between them, and matplotlib's first colours to the page's.
"""

import re
from functools import lru_cache
from xml.etree import ElementTree

from markupsafe import Markup

from clearhead.course.proofs.figure import unsafe

SVG = "http://www.w3.org/2000/svg"
SHAPES = frozenset(
    {"svg", "g", "defs", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan",
     "use", "symbol", "marker", "clipPath", "linearGradient", "radialGradient", "stop", "pattern"}
)  # fmt: skip
PAINTS = frozenset({"fill", "stroke", "stop-color"})
ATTRIBUTES = PAINTS | frozenset(
    {"viewBox", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "fx", "fy", "dx",
     "dy", "d", "points", "transform", "rotate", "offset", "id", "href", "preserveAspectRatio", "clip-path",
     "clipPathUnits", "gradientUnits", "gradientTransform", "spreadMethod", "patternUnits", "patternContentUnits",
     "patternTransform", "markerWidth", "markerHeight", "markerUnits", "refX", "refY", "orient", "marker-start",
     "marker-mid", "marker-end", "opacity", "fill-opacity", "fill-rule", "clip-rule", "stroke-opacity",
     "stroke-width", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin",
     "stroke-miterlimit", "stop-opacity", "text-anchor", "dominant-baseline", "font-family", "font-size",
     "font-style", "font-weight", "visibility"}
)  # fmt: skip
NAMED = {"black": "#000000", "white": "#ffffff", "gray": "#808080", "grey": "#808080", "lightgray": "#d3d3d3",
         "lightgrey": "#d3d3d3", "darkgray": "#a9a9a9", "darkgrey": "#a9a9a9", "dimgray": "#696969"}  # fmt: skip
OURS = {"#1f77b4": "var(--accent)", "#ff7f0e": "var(--query)", "#2ca02c": "var(--key)", "#d62728": "var(--wrong)"}
INK, MUTED, HAIRLINE = 0x50, 0x99, 0xEC  # the lightest grey that is drawn as each; lighter greys become the paper


@lru_cache(maxsize=512)
def figure(svg: str, label: str, prefix: str = "") -> Markup:
    """Return the figure as an element of a page; "" if there is none or it is unsafe.

    Args:
        svg: the drawing, as stored in the proof.
        label: the text for screen readers; the figure's own title is added.
        prefix: put before its ids, so that two figures in a page do not share ids.
    """
    if not svg or unsafe(svg):
        return Markup("")
    root = ElementTree.fromstring(svg)  # noqa: S314 — `unsafe` has refused a doctype, so there are no entities
    title = next((element.text for element in root.iter(f"{{{SVG}}}title") if element.text), "")
    drawn = _kept(root, prefix)
    drawn.attrib.setdefault("fill", "currentColor")
    drawn.attrib |= {"class": "figure", "role": "img", "aria-label": f"{label}: {title}" if title else label}
    return Markup(ElementTree.tostring(drawn, encoding="unicode"))  # noqa: S704 — built from what is named above


def _kept(element: ElementTree.Element, prefix: str) -> ElementTree.Element:
    """Return the element with its allowed attributes and children."""
    given = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    style = (part.partition(":") for part in given.pop("style", "").split(";"))
    given |= {key.strip(): value.strip() for key, _, value in style}
    kept = ElementTree.Element(_name(element))
    kept.text, kept.tail = (element.text, element.tail) if kept.tag in ("text", "tspan") else (None, None)
    for key, value in given.items():
        if key in ATTRIBUTES:
            kept.set(key, paint(value) if key in PAINTS else _own(key, value, prefix))
    kept.extend(_kept(child, prefix) for child in element if _name(child) in SHAPES)
    return kept


def _name(element: ElementTree.Element) -> str:
    return str(element.tag).rpartition("}")[2]


def _own(key: str, value: str, prefix: str) -> str:
    """Return the value, with the prefix on ids and references to them."""
    if key == "id":
        return f"{prefix}{value}"
    if key == "href":
        return f"#{prefix}{value[1:]}"
    return re.sub(r"url\(\s*(['\"]?)#", rf"url(\1#{prefix}", value)


def paint(colour: str) -> str:
    """Return the page's colour for a colour of the figure.

    >>> paint("#000"), paint("white"), paint("#1f77b4"), paint("none"), paint("#b0713e")
    ('currentColor', 'var(--paper)', 'var(--accent)', 'none', '#b0713e')
    """
    full = NAMED.get(colour.lower(), colour.lower())
    if re.fullmatch(r"#[0-9a-f]{3}", full):
        full = "#" + "".join(2 * digit for digit in full[1:])
    if not re.fullmatch(r"#[0-9a-f]{6}", full) or full in OURS:
        return OURS.get(full, colour)
    red, green, blue = (int(full[place : place + 2], 16) for place in (1, 3, 5))
    if max(red, green, blue) - min(red, green, blue) > 24:
        return colour
    for name, most in (("currentColor", INK), ("var(--muted)", MUTED), ("var(--hairline)", HAIRLINE)):
        if green <= most:
            return name
    return "var(--paper)"

"""Bound what a browser draws for an SVG: nested `<use>` elements multiply beyond any memory."""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

MOST = 20_000  # elements drawn; one that is drawn by reference counts each time
DEEPEST = 60  # nested elements, or references that refer further
LARGEST_SIDE = 10_000  # width and height of the picture, in its own units

_LOCAL = re.compile(r"url\(\s*['\"]?#([^'\")]*)")
_LENGTH = re.compile(r"\s*\+?(\d{1,30}(?:\.\d{0,30})?)(?:[eE]\+?(\d{1,30}))?")


def excess(root: Element) -> str:
    """Return why the SVG exceeds a bound; "" if it does not."""
    for side in ("width", "height"):
        length = _LENGTH.match(root.get(side, ""))
        if length and (float(length[1]) > LARGEST_SIDE or int(length[2] or 0) > 3):
            return f"is more than {LARGEST_SIDE:,} units in {side}; draw it smaller"
    named: dict[str, Element] = {}
    waiting = [(root, 1)]
    count = 0
    while waiting:
        element, depth = waiting.pop()
        count += 1
        if depth > DEEPEST:
            return f"has elements more than {DEEPEST} deep; group less"
        named.setdefault(element.get("id", ""), element)
        waiting += [(child, depth + 1) for child in element]
    if count > MOST:
        return f"has more than {MOST:,} elements; draw less"
    return _referred(root, named)


def _referred(root: Element, named: dict[str, Element]) -> str:
    """Count the elements that each reference draws; a name is counted after the names that it refers to."""
    sizes: dict[int, int] = {}
    heights: dict[int, int] = {}
    open_now: set[int] = set()
    waiting = [(root, False)]
    while waiting:
        element, done = waiting.pop()
        key = id(element)
        if not done:
            if key in sizes:
                continue
            if key in open_now:
                return "refers to itself; a `<use>` must not lead back to where it stands"
            open_now.add(key)
            waiting.append((element, True))
            waiting += [(named[name], False) for name in _references(element) if name in named]
            continue
        open_now.discard(key)
        inner = [id(named[name]) for name in _references(element) if name in named]
        sizes[key] = sum(1 for _ in element.iter()) + sum(sizes.get(child, 0) for child in inner)
        heights[key] = 1 + max((heights.get(child, 0) for child in inner), default=0)
        if sizes[key] > MOST:
            return f"draws more than {MOST:,} elements by `<use>` and the like; draw less"
        if heights[key] > DEEPEST:
            return f"refers to what refers further more than {DEEPEST} times; draw it directly"
    return ""


def _references(element: Element) -> Iterator[str]:
    """Yield the names that an element, or one inside it, refers to, once per reference."""
    for part in element.iter():
        for key, value in part.attrib.items():
            if key.rpartition("}")[2].lower() == "href":
                yield value.strip().removeprefix("#")
            else:
                yield from _LOCAL.findall(value)
        if part.text and "url(" in part.text:
            yield from _LOCAL.findall(part.text)

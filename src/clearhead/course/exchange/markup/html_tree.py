"""Parse other programs' HTML into a tree of bounded depth. Tags that HTML does not have stay text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

DEEPEST = 30  # nested elements; of deeper ones only the text is kept
_VOID = "area base br col embed hr img input link meta source track wbr"
_BLOCKS = (
    "address article aside blockquote body center dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 "
    "h4 h5 h6 head header hr html li main nav ol p pre section summary table tbody td tfoot th thead tr ul"
)
# Other programs display these; a pack cannot hold them.
_FOREIGN = "audio button canvas embed iframe img input math object script select svg textarea video"
_INLINE = (
    "a abbr b bdi bdo big br caption cite code col colgroup data del dfn em font i ins kbd label legend link mark meta "
    "q rp rt ruby s samp small source span strike strong style sub sup time title track tt u var wbr"
)
# Attributes that take no value.
_VALUELESS = (
    "allowfullscreen async autofocus autoplay checked compact controls default defer disabled hidden inert ismap loop "
    "multiple muted nohref noshade nowrap open playsinline readonly required reversed selected"
)
VOID, BLOCKS, FOREIGN = (frozenset(names.split()) for names in (_VOID, _BLOCKS, _FOREIGN))
KNOWN = BLOCKS | FOREIGN | frozenset(_INLINE.split())
_FLAGS = frozenset(_VALUELESS.split())
_INSIDE = {  # element -> parents; inside one of them, a second such element closes the first
    "li": ("li",), "p": tuple(BLOCKS), "td": ("td", "th", "tr"), "th": ("td", "th", "tr"), "tr": ("tr",),
    "dt": ("dt", "dd"), "dd": ("dt", "dd"),
}  # fmt: skip

# html.parser looks for the end of a tag or a comment from each < that has none, to the end of the text. It is given
# whole tags only: every other < is text. A scan from one < stops at the next, but for a few inside quotes.
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_DECLARATION = re.compile(r"<[!?][^<>]*>")
_QUOTED = r"""\"[^\"<]*+(?:<[^\"<]*+){0,3}\"|'[^'<]*+(?:<[^'<]*+){0,3}'"""
_LOOSE = re.compile(rf"""<(?!/?[a-zA-Z](?:[^<>"']|{_QUOTED}){{0,2000}}+>)""")
_NO_CHARACTER = re.compile(r"&#\d{8,};?")


@dataclass(slots=True)
class Node:
    """An element: its children are elements and text."""

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    children: "list[Node | str]" = field(default_factory=list)

    @property
    def is_block(self) -> bool:
        """Whether it starts on its own line: a block, or an element with a block inside."""
        return self.tag in BLOCKS or any(isinstance(child, Node) and child.is_block for child in self.children)

    def find(self, *tags: str) -> "list[Node]":
        """The children with one of these names."""
        return [child for child in self.children if isinstance(child, Node) and child.tag in tags]

    def text(self) -> str:
        """All text inside, line breaks included."""
        parts: list[str] = []
        waiting: list[Node | str] = list(reversed(self.children))
        while waiting:
            child = waiting.pop()
            if isinstance(child, str):
                parts.append(child)
            elif child.tag == "br":
                parts.append("\n")
            else:
                waiting.extend(["\n"] if child.tag in ("div", "p") else [])
                waiting.extend(reversed(child.children))
        return "".join(parts)


def tree(markup: str) -> Node:
    """Return the elements of a piece of HTML, below a root without a name."""
    parser = _Parser()
    commented = markup.rfind("-->") + 3 if "-->" in markup else 0
    markup = _COMMENT.sub("", markup[:commented]) + markup[commented:]
    parser.feed(_LOOSE.sub("&lt;", _DECLARATION.sub("", references(markup))))
    parser.close()
    return parser.root


def references(markup: str) -> str:
    """Remove character references that stand for no character: `html.unescape` fails at long numbers."""
    return _NO_CHARACTER.sub("\ufffd", markup)


def _is_comparison(attributes: Sequence[tuple[str, str | None]]) -> bool:
    """Whether a tag is text: in `a<b and c>d` its attributes have no values, and HTML has none of that name."""
    names = {name for name, value in attributes if value is None}
    return len(names) == len(attributes) > 0 and not names <= _FLAGS


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        if tag not in KNOWN or _is_comparison(attrs):
            self.handle_data(self.get_starttag_text() or "")
            return
        while tag in _INSIDE.get(self.open[-1].tag, ()):
            self.open.pop()
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in VOID and len(self.open) < DEEPEST:
            self.open.append(node)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        before = self.open[-1]
        self.handle_starttag(tag, attrs)
        if tag in FOREIGN and self.open[-1] is not before and self.open[-1].tag == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in KNOWN:
            self.handle_data(f"</{tag}>")
            return
        for at in range(len(self.open) - 1, 0, -1):
            if self.open[at].tag == tag:
                del self.open[at:]
                return

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

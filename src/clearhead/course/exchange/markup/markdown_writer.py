"""Write a tree of HTML as Markdown that displays the same."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clearhead.course.exchange.markup.html_tree import FOREIGN, Node
from clearhead.course.exchange.markup.markdown import html
from clearhead.course.exchange.report import Lost

_SPECIAL = re.compile(r"([\\`*_\[\]<>$|~]|&(?=#?\w))")
_EMPHATIC = re.compile(r"([*_]|&(?=#?\w))")
_LINE_START = re.compile(r"^([ \t]*(?:[#+=-]|\d{1,9}(?=[.)])))", re.MULTILINE)
_LONG = 20_000  # characters; a longer paragraph keeps every backslash, because rendering it to compare is slow
_CODE = ("code", "kbd", "samp", "tt")
_EMPHASIS = {"strong": "**", "b": "**", "em": "*", "i": "*", "cite": "*", "dfn": "*", "var": "*"}
_SAFE_LINK = re.compile(r"(?!\s*(?:javascript|vbscript|file|data):)", re.IGNORECASE)
Content = Sequence[Node | str]


@dataclass(slots=True)
class Writer:
    """Turns nodes into Markdown. `fill` puts formulas back; `hints` collects what `<details class="hint">` held."""

    lost: Lost
    fill: Callable[[str], str]
    hints: list[str] = field(default_factory=list)

    def blocks(self, content: Content, *, tight: bool = False) -> str:
        """Return the nodes as blocks, with a blank line between them (none in a list whose items are lines)."""
        written: list[tuple[str, str]] = []  # (element, Markdown)
        inline: list[Node | str] = []

        def flush() -> None:
            written.extend(("p", text) for text in self.paragraphs(inline))
            inline.clear()

        for child in content:
            if isinstance(child, str) or not child.is_block:
                inline.append(child)
                continue
            flush()
            other = bool(written) and written[-1][0] == child.tag
            text = self.block(child, other)
            if text:
                written.append((child.tag if not other else f"{child.tag} other", text))
        flush()
        return ("\n" if tight else "\n\n").join(text for _, text in written)

    def block(self, node: Node, other: bool) -> str:
        """Return one block. `other`: the list before it has the usual mark, so this list needs another one."""
        tag = node.tag
        if tag == "pre":
            return self.preformatted(node)
        if tag in ("ul", "ol"):
            return self.listed(node, other)
        if tag == "blockquote":
            return "\n".join(f"> {row}" if row else ">" for row in self.blocks(node.children).split("\n"))
        if tag == "hr":
            return "___"
        if tag == "table":
            return self.table(node)
        if len(tag) == 2 and tag[0] == "h" and tag[1].isdigit():
            title = "\n".join(self.paragraphs(node.children))
            if "  \n" in title and tag in ("h1", "h2"):
                return f"{title}\n{'===' if tag == 'h1' else '---'}"
            title = " ".join(title.split())
            return f"{'#' * int(tag[1])} {title}".rstrip()
        if tag == "details" and "hint" in node.attributes.get("class", "").split():
            shown = [child for child in node.children if isinstance(child, str) or child.tag != "summary"]
            self.hints.append(self.blocks(shown))
            return ""
        return self.blocks(node.children)

    def preformatted(self, node: Node) -> str:
        inner = node.find("code")
        text = (inner[0] if inner and len(node.children) == 1 else node).text()
        if not inner:
            text = text.removeprefix("\n")
        language = re.search(r"\blanguage-([^\s`]+)", inner[0].attributes.get("class", "")) if inner else None
        return self.fenced(text, language[1] if language else "")

    @staticmethod
    def fenced(text: str, language: str) -> str:
        """A fenced block with this text, its fence longer than any inside."""
        longest = max((len(run) for run in re.findall("`{3,}", text)), default=2)
        fence = "`" * (longest + 1)
        return (
            f"{fence}{language}\n{text}{fence}"
            if not text or text[-1] == "\n"
            else f"{fence}{language}\n{text}\n{fence}"
        )

    def listed(self, node: Node, other: bool) -> str:
        items = _items(node)
        tight = not any(item.find("p") for item in items)
        start = node.attributes.get("start", "1")
        number = int(start) if start.isdecimal() and len(start) < 10 else 1
        rows = []
        for at, item in enumerate(items):
            mark = f"{number + at}{')' if other else '.'}" if node.tag == "ol" else "*" if other else "-"
            first, *rest = self.blocks(item.children, tight=tight).split("\n")
            pad = " " * (len(mark) + 1)
            rows.append(
                "\n".join([f"{mark} {first}" if first else mark, *(f"{pad}{row}" if row else "" for row in rest)])
            )
        return ("\n" if tight else "\n\n").join(rows)

    def table(self, node: Node) -> str:
        rows = [row for part in [node, *node.find("thead", "tbody", "tfoot")] for row in part.find("tr")]
        cells = [row.find("td", "th") for row in rows]
        width = max(map(len, cells), default=0)
        if not width:
            return self.blocks([Node("div", {}, node.children)])
        lines = [[self.cell(cell) for cell in row] + [""] * (width - len(row)) for row in cells]
        aligned = [_alignment(cell) for cell in cells[0]] + ["---"] * (width - len(cells[0]))
        drawn = "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], aligned, *lines[1:]])
        caption = [text for child in node.find("caption") for text in self.paragraphs(child.children)]
        return "\n\n".join([*caption, drawn])

    def cell(self, node: Node) -> str:
        text = self.fill(_one_line(self.blocks(node.children)))
        return re.sub(r"(?<!\\)((?:\\\\)*)\|", r"\1\\|", text)

    def paragraphs(self, content: Content) -> list[str]:
        """Inline content as paragraphs, escaped where Markdown would read it as something else."""
        escaped = chosen = self.inline(content, escape=_SPECIAL)
        if len(escaped) < _LONG and self.inline(content, escape=None) != escaped:
            right = html(self.fill(escaped))
            lighter = (self.inline(content, escape=pattern) for pattern in (None, _EMPHATIC))
            chosen = next((text for text in lighter if html(self.fill(text)) == right), escaped)
        parts = re.split(r"\n(?:[ \t]*\n)+", chosen)
        rows = ["\n".join(row.lstrip() for row in part.strip().split("\n")) for part in parts]
        return [row.rstrip("\n") for row in rows if row]

    def inline(self, content: Content, *, escape: re.Pattern[str] | None, within: str = "") -> str:
        """Inline content as Markdown, before it is cut into paragraphs. `escape`: what gets a backslash in text."""
        parts: list[str] = []
        for child in content:
            if isinstance(child, str):
                if parts and parts[-1] == "  \n":
                    child = child.lstrip(" \t\n")
                text = re.sub(r" ?\n ?", "\n", re.sub(r"[ \t]+", " ", child))
                parts.append(_LINE_START.sub(_escaped, escape.sub(r"\\\1", text)) if escape else text)
            else:
                parts.append(self.element(child, escape, within))
        return "".join(parts)

    def element(self, node: Node, escape: re.Pattern[str] | None, within: str) -> str:
        tag = node.tag
        if tag in _CODE:
            return _code(node.text())
        if tag == "br":
            return "  \n"
        if tag in FOREIGN:
            return self.foreign(node)
        if tag == "style":
            return ""
        inner = self.inline(node.children, escape=escape, within=within + _EMPHASIS.get(tag, ""))
        if tag == "a":
            return self.link(node, inner)
        if tag == "sup" and re.fullmatch(r"[+−-]?[0-9A-Za-z]+", inner):
            return f"${{}}^{{{inner.replace('−', '-')}}}$"
        if tag == "sub" and re.fullmatch(r"[0-9A-Za-z]+", inner):
            return f"${{}}_{{{inner}}}$"
        return _emphasised(inner, _EMPHASIS[tag], within) if tag in _EMPHASIS else inner

    def foreign(self, node: Node) -> str:
        """Report an element that a pack cannot hold, and return a note for its place."""
        name = {"img": "picture", "svg": "picture", "canvas": "picture"}.get(node.tag, node.tag)
        source = node.attributes.get("src") or node.attributes.get("data") or node.attributes.get("name", "")
        if source.startswith("data:"):
            source = source.partition(",")[0]
        source = source or next((child.attributes.get("src", "") for child in node.find("source")), "")
        self.lost(f"{name} {source}".strip())
        words = node.attributes.get("alt") or source
        return f"[{name}: {words}]" if words else ""

    def link(self, node: Node, inner: str) -> str:
        target = node.attributes.get("href", "").strip()
        if not target:
            return inner
        if not _SAFE_LINK.match(target):
            self.lost(f"link to {target[:80]}")
            return inner
        target = re.sub(r"[\s<>]", lambda match: f"%{ord(match[0]):02X}", target)
        title = node.attributes.get("title", "").replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
        shown = f"<{target}>" if re.search(r"[()\\]", target) else target
        return f"[{inner}]({shown}{f' {chr(34)}{title}{chr(34)}' if title else ''})"


def _items(node: Node) -> list[Node]:
    """Return the items of a list. Content between items, such as a list directly in a list, joins the item before."""
    items: list[Node] = []
    for child in node.children:
        if isinstance(child, Node) and child.tag == "li":
            items.append(Node("li", child.attributes, list(child.children)))
        elif not isinstance(child, str) or child.strip():
            items = items or [Node("li")]
            items[-1].children.append(child)
    return items


def _escaped(match: re.Match[str]) -> str:
    text = match[0]
    return f"{text}\\" if text[-1].isdigit() else f"{text[:-1]}\\{text[-1]}"


def _code(text: str) -> str:
    text = _one_line(text)
    if not text:
        return ""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text[0] in "` " or text[-1] in "` " else ""
    pad = "" if not text.strip() else pad
    return f"{fence}{pad}{text}{pad}{fence}"


def _one_line(text: str) -> str:
    """Join rows with one space. A regex with spaces on both sides of a line break would be quadratic in the spaces."""
    first, *rest = text.split("\n")
    if not rest:
        return text
    *middle, last = rest
    return " ".join([first.rstrip(), *(row.strip() for row in middle if row.strip()), last.lstrip()])


def _emphasised(inner: str, mark: str, within: str) -> str:
    """Return the text between marks. The marks must touch the text, so spaces move outside."""
    core = inner.strip()
    if not core or re.search(r"\n\s*\n", core):
        return inner
    before, after = inner[: len(inner) - len(inner.lstrip())], inner[len(inner.rstrip()) :]
    mark = mark.replace("*", "_") if within.count("*") % 2 and mark == "*" else mark
    return f"{before}{mark}{core}{mark}{after}"


def _alignment(cell: Node) -> str:
    match = re.search(r"text-align:\s*(left|right|center)", cell.attributes.get("style", ""))
    return {"left": ":---", "right": "---:", "center": ":---:"}[match[1]] if match else "---"

"""Turn formulas in other programs' delimiters, such as `\\(…\\)` and `[latex]…[/latex]`, into `$…$`."""

import html as entities
import re
from bisect import bisect
from collections.abc import Callable
from dataclasses import dataclass, field

from clearhead.course.exchange.markup.html_tree import references
from clearhead.course.exchange.report import Lost

# Opening delimiter -> (closing delimiter, whether the formula is displayed).
_PAIRS = {
    r"\(": (r"\)", False), r"\[": (r"\]", True), r"\\(": (r"\\)", False), r"\\[": (r"\\]", True),
    "$$": ("$$", True), "$": ("$", False), "[latex]": ("[/latex]", False), "[$]": ("[/$]", False),
    "[$$]": ("[/$$]", True), "<anki-mathjax>": ("</anki-mathjax>", False),
}  # fmt: skip
_DELIMITERS = r"\$\$?|\[/?latex\]|\[/?\$\$?\]|</?anki-mathjax\b[^<>]*>"
_TEXT = re.compile(rf"\\\\|\\[()\[\]$]|{_DELIMITERS}", re.IGNORECASE)
_HTML = re.compile(rf"\\\\|\\[()\[\]$]|</?(?:pre|code)\b[^<>]*>|{_DELIMITERS}|<[a-z/!][^<>]*>", re.IGNORECASE)
_MARKDOWN = re.compile(
    rf"\\\\[()\[\]]|\\\\|\\[()\[\]$`]|`+|{_DELIMITERS}|~{{3,}}|!\[[^\]\n]{{0,300}}\]\([^)\n]{{0,300}}\)", re.IGNORECASE
)
_MARK = "\ufdd0{}\ufdd1"  # noncharacters, which exchanged text does not contain
_NONCHARACTERS = str.maketrans("", "", "\ufdd0\ufdd1")
_MARKED = re.compile("\ufdd0(\\d+)\ufdd1")
_WRAPPED = re.compile(
    r"\s*(?:\$\$(?P<a>.*)\$\$|\$(?P<b>.*)\$|\\begin\{(?P<n>math|displaymath)\}(?P<c>.*)\\end\{(?P=n)\})\s*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Formulas:
    """A text with a mark where each formula stood, and the formulas as Markdown."""

    text: str
    sources: list[str]

    def fill(self, text: str) -> str:
        """Put the formulas back where their marks are."""
        return _MARKED.sub(lambda match: self.sources[int(match[1])], text)


def from_html(markup: str) -> Formulas:
    """Take the formulas out of HTML. Code and attributes hold none."""
    return _Scan(markup, _HTML, _of_html).run()


def from_text(text: str) -> Formulas:
    """Take the formulas out of plain text."""
    return _Scan(text, _TEXT, str).run()


def from_markdown(text: str, lost: Lost) -> Formulas:
    """Take the formulas, with any delimiters, and the pictures out of Markdown. Code holds none."""
    return _Scan(text, _MARKDOWN, str, lost).run()


def written(source: str, *, display: bool) -> str:
    """Return the formula between dollar signs, without blank lines. Empty for an empty formula."""
    wrapped = _WRAPPED.fullmatch(source)
    if wrapped:
        display = display or wrapped["a"] is not None or wrapped["n"] == "displaymath"
        source = wrapped["a"] or wrapped["b"] or wrapped["c"] or ""
    source = re.sub(r"(?<!\\)\$", r"\\$", re.sub(r"\n\s*\n", "\n", source.strip()))
    mark = "$$" if display else "$"
    return f"{mark}{source}{mark}" if source else ""


def _of_html(source: str) -> str:
    """Return a formula found in HTML: keep line breaks, drop other tags, resolve character references."""
    source = re.sub(r"<br\s*/?>|</div>\s*<div[^<>]*>", "\n", source, flags=re.IGNORECASE)
    return entities.unescape(references(re.sub(r"</?[a-zA-Z][^<>]*>", "", source))).replace("\xa0", " ")


@dataclass(slots=True)
class _Scan:
    """One pass over the delimiters of a text. A closing delimiter is looked up by position, so that it stays linear."""

    text: str
    pattern: re.Pattern[str]
    clean: Callable[[str], str]
    lost: Lost = lambda _: None
    parts: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def run(self) -> Formulas:
        text = self.text = self.text.translate(_NONCHARACTERS)
        tokens = [(_name(match[0]), match.start(), match.end(), match[0]) for match in self.pattern.finditer(text)]
        places: dict[str, list[int]] = {}
        for index, token in enumerate(tokens):
            places.setdefault(token[0], []).append(index)
        at = copied = 0
        while at < len(tokens):
            name, start, end, raw = tokens[at]
            closing, display = _PAIRS.get(name, (_code_end(name), False))
            if name.startswith("!["):
                self.parts += [text[copied:start], self._picture(raw)]
                copied = end
            known = places.get(closing, [])
            later = bisect(known, at)
            if not closing or later == len(known):
                at += 1
                continue
            stop = known[later]
            if name in _PAIRS:
                content = text[end : tokens[stop][1]]
                if name == "$" and not _is_math(content, text[tokens[stop][2] : tokens[stop][2] + 1]):
                    at += 1
                    continue
                shown = written(self.clean(content), display=display or 'block="true"' in raw.lower())
                self.parts += [text[copied:start], _MARK.format(len(self.sources))]
                self.sources.append(shown)
                copied = tokens[stop][2]
            at = stop + 1
        return Formulas("".join([*self.parts, text[copied:]]), self.sources)

    def _picture(self, markdown: str) -> str:
        words, _, source = markdown[2:-1].partition("](")
        self.lost(f"picture {source}")
        return f"[picture: {words or source}]"


def _name(token: str) -> str:
    """Return one name for a delimiter, whatever its case and attributes."""
    match = re.match(r"</?(pre|code|anki-mathjax)\b", token, re.IGNORECASE)
    return f"{match[0].lower()}>" if match else token.lower()


def _code_end(name: str) -> str:
    if name in ("<pre>", "<code>"):
        return name.replace("<", "</")
    return name if name[0] in "`~" else ""


def _is_math(content: str, after: str) -> bool:
    """Whether text between single dollar signs is a formula and not two prices. (Pandoc's rule, or a command in it.)"""
    if not content.strip() or re.search(r"\n\s*\n|</?(?:p|div|li|td|tr|h\d)\b", content, re.IGNORECASE):
        return False
    return bool(re.search(r"\\[A-Za-z]", content)) or not (
        content[0].isspace() or content[-1].isspace() or after.isdigit()
    )

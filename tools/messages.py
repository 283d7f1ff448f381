"""Prepare a translation of the studio. `.venv/bin/python tools/messages.py de` writes or updates what a German
translator fills in, src/clearhead/studio/locale/de/LC_MESSAGES/studio.po and page.po, and compiles both. Run it again
after filling them in; the studio's settings then offer the language. Without a language it writes the empty templates,
studio.pot and page.pot, into src/clearhead/studio/locale."""

import re
import sys
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path

import tree_sitter_javascript
from babel.messages import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po
from tree_sitter import Language, Node, Parser

SOURCE = Path(__file__).parent.parent / "src" / "clearhead"
LOCALE = SOURCE / "studio" / "locale"
KEYWORDS = {"_": None, "mark": None, "message": None, "gettext": None, "many": (1, 2), "ngettext": (1, 2)}
READERS = {".py": "python", ".html": "jinja2.ext:babel_extract", ".js": "javascript"}
DOMAINS = {  # catalog -> the files that are read for it
    "studio": (
        "studio/**/*.py",
        "course/**/*.py",
        "capture/**/*.py",
        "local_models/*.py",
        "views/checks.py",
        "studio/templates/**/*.html",
    ),
    "page": ("studio/static/*.js", "views/static/*.js", "views/score_tables.py"),
}
# Matches an English text, not a name in the code: two words, or one with a capital.
ENGLISH = re.compile(r"[a-z,.;:]{2,} [a-z]{2,}|^[A-Z][a-z]+")
KEY = re.compile(r"((Enter|Space|Escape|Esc|Ctrl|Control\+|\d)( |$|\b))+")
# What stands before a text that no reader sees: such a call, or the one that translates it already; a class's name.
NO_READERS = re.compile(
    r"\b(_|matches|closest|querySelector|querySelectorAll|matchMedia|startsWith|info)\($|\bclassName\s*\S+$"
)
JAVASCRIPT = Language(tree_sitter_javascript.language())


@cache
def messages(domain: str) -> tuple[tuple[str, int, str | tuple[str, ...]], ...]:
    """Yield every text of a catalog: file, line, the text (or its singular and plural)."""
    return tuple(_read(domain))


def _read(domain: str) -> Iterator[tuple[str, int, str | tuple[str, ...]]]:
    for pattern in DOMAINS[domain]:
        for file in sorted(path for path in SOURCE.glob(pattern) if path.name != "codemirror.js"):
            options = {"encoding": "utf-8", "trimmed": "true", "silent": "false"}
            found = extract(READERS[file.suffix], BytesIO(file.read_bytes()), KEYWORDS, options=options)
            yield from ((str(file.relative_to(SOURCE)), line, text) for line, text, _, _ in found)


def bare(module: str) -> list[str]:
    """Return the English texts of an ES module that are not inside a gettext call, each with its line.

    >>> bare('say(_("Two words")); say("Two words"); const sum = `${"One"} two words`; tag.className = "quiet small"')
    ['1: Two words', '1: ${"One"} two words']
    """
    source, found = module.encode(), []
    for node in _texts(Parser(JAVASCRIPT).parse(source).root_node):
        text = source[node.start_byte : node.end_byte].decode()[1:-1]
        before = source[: node.start_byte].decode().rstrip()[-99:]
        said = re.sub(r"\$\{[^{}]*(\{[^{}]*\}[^{}]*)*\}", "", text)
        if ENGLISH.search(said) and not KEY.fullmatch(said) and not NO_READERS.search(before):
            found.append(f"{node.start_point.row + 1}: {text}")
    return found


def _texts(node: Node) -> Iterator[Node]:
    """Yield the strings and templates of a syntax tree, in order; not those inside a template."""
    if node.type in ("string", "template_string"):
        yield node
    else:
        for child in node.children:
            yield from _texts(child)


def template(domain: str) -> Catalog:
    """Return a catalog with every text, untranslated."""
    wanted = Catalog(project="Clearhead", charset="utf-8")
    for file, line, text in messages(domain):
        wanted.add(text, locations=[(file, line)], flags=("python-format",) if "%(" in str(text) else ())
    return wanted


def update(language: str, domain: str) -> Path:
    """Update one catalog, keep its translations, and compile it."""
    place = LOCALE / language / "LC_MESSAGES" / f"{domain}.po"
    place.parent.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(locale=language, project="Clearhead", charset="utf-8")
    if place.exists():
        catalog = read_po(BytesIO(place.read_bytes()), locale=language)
    catalog.update(template(domain))
    for write, suffix in ((write_po, ".po"), (write_mo, ".mo")):
        with place.with_suffix(suffix).open("wb") as out:
            write(out, catalog)
    return place


def write_template(domain: str) -> Path:
    """Write the .pot template from which a translation to any language can start."""
    place = LOCALE / f"{domain}.pot"
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("wb") as out:
        write_po(out, template(domain))
    return place


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit("give one language, as in: tools/messages.py de; or none, for the templates")
    for domain in DOMAINS:
        print(update(sys.argv[1], domain) if len(sys.argv) == 2 else write_template(domain))

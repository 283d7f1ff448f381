"""Prepare a translation of the studio: `.venv/bin/python tools/messages.py de` writes or updates what a German
translator fills in, src/clearhead/studio/locale/de/LC_MESSAGES/studio.po and page.po, and compiles both. Run it again
after filling them in; the studio's settings then offer the language."""

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

STUDIO = Path(__file__).parent.parent / "src" / "clearhead" / "studio"
KEYWORDS = {"_": None, "mark": None, "gettext": None, "many": (1, 2), "ngettext": (1, 2)}
READERS = {".py": "python", ".html": "jinja2.ext:babel_extract", ".js": "javascript"}
DOMAINS = {"studio": ("*.py", "templates/**/*.html"), "page": ("static/*.js",)}  # a catalog each -> what is read for it


def messages(domain: str) -> Iterator[tuple[str, int, str | tuple[str, ...]]]:
    """Every text of a catalog: file, line, the text (or its singular and plural)."""
    for pattern in DOMAINS[domain]:
        for file in sorted(STUDIO.glob(pattern)):
            options = {"encoding": "utf-8", "trimmed": "true", "silent": "false"}
            found = extract(READERS[file.suffix], BytesIO(file.read_bytes()), KEYWORDS, options=options)
            yield from ((str(file.relative_to(STUDIO)), line, text) for line, text, _, _ in found)


def update(language: str, domain: str) -> Path:
    """Bring one catalog up to date, keeping what is translated, and compile it."""
    wanted = Catalog(project="Clearhead", charset="utf-8")
    for file, line, text in messages(domain):
        wanted.add(text, locations=[(file, line)], flags=("python-format",) if "%(" in str(text) else ())
    place = STUDIO / "locale" / language / "LC_MESSAGES" / f"{domain}.po"
    place.parent.mkdir(parents=True, exist_ok=True)
    catalog = Catalog(locale=language, project="Clearhead", charset="utf-8")
    if place.exists():
        catalog = read_po(BytesIO(place.read_bytes()), locale=language)
    catalog.update(wanted)
    for write, suffix in ((write_po, ".po"), (write_mo, ".mo")):
        with place.with_suffix(suffix).open("wb") as out:
            write(out, catalog)
    return place


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one language, as in: tools/messages.py de")
    for domain in DOMAINS:
        print(update(sys.argv[1], domain))

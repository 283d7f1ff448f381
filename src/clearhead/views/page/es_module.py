"""Join the ES modules that draw into one file, for a saved page and a notebook widget.

The sources are small files that a browser can import as they are (the studio serves them). Joining removes the imports
between them and each `export`, so names at the top level must differ between files.
"""

import re
from importlib.resources import files

PARTS = (
    "words.js",
    "numbers.js",
    "paint.js",
    "map.js",
    "patches.js",
    "seconds.js",
    "media.js",
    "why.js",
    "head.js",
    "attention.js",
)  # a part comes after all that it imports
IMPORT = re.compile(r'^import \{[^}]*\} from "\./[a-z]+\.js";\n', re.M)
COLOURS = re.compile(r":where\(:root, :host\) \{(.*?)\}", re.S)  # of a style sheet: the light ones, then the dark
EXPORT = re.compile(r"^export (?!default\b)", re.M)


def one_module() -> str:
    """Return the parts as one module whose default export is `{ render }`, the anywidget contract."""
    return "\n".join(EXPORT.sub("", IMPORT.sub("", static(name))) for name in PARTS)


def style() -> str:
    """Return the style sheet, with colours for a page that has none of its own."""
    return static("attention.css")


def notebook_style() -> str:
    """Return the style sheet for a notebook, whose theme the colours follow; the system's may be another.

    `attention.js` says which by a class. Printed, a notebook is light.
    """
    sheet = style()
    light, dark = COLOURS.findall(sheet)
    on_light = f".ch-on-light, .ch-on-light .ch {{ color-scheme: light;{light}}}\n"
    on_dark = f"@media screen {{\n.ch-on-dark, .ch-on-dark .ch {{ color-scheme: dark;{dark}}}\n}}\n"
    return sheet + on_light + on_dark


def static(name: str) -> str:
    """Return the text of a file in `views/static`."""
    return files("clearhead.views").joinpath("static", name).read_text(encoding="utf-8")

"""document(): an HTML page around its content, in the colours of the views, for a file that makes no request."""

from html import escape

from clearhead.views.page import es_module

DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{colours}
html {{ color-scheme: light dark; background: var(--paper); color: var(--ink); }}
h1 {{ font: 600 1.75rem/1.25 Charter, Georgia, serif; letter-spacing: -0.01em; overflow-wrap: anywhere; }}
{style}
</style>
</head>
<body>
<main>
{content}
</main>
{scripts}</body>
</html>
"""


def document(title: str, content: str, *, style: str, scripts: str = "") -> str:
    """Return a page as one HTML file.

    Args:
        title: the title of the window, as plain text.
        content: HTML of the main part.
        style: CSS to add after that of the views.
        scripts: HTML of the script elements, which come last.
    """
    return DOCUMENT.format(
        title=escape(title), content=content, colours=es_module.style(), style=style, scripts=scripts
    )

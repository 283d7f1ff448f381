"""One self-contained page: the data, the ES module and the style in a single file that asks nothing of a network."""

import json
from html import escape
from typing import TYPE_CHECKING, Any

from clearhead.views import module
from clearhead.views.payload import payload

if TYPE_CHECKING:
    from clearhead.capture import Reading

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{style}
html {{ color-scheme: light dark; background: var(--paper); color: var(--ink); }}
body {{ margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 3rem; max-width: 84rem; }}
h1 {{
  font: 600 1.75rem/1.25 Charter, Georgia, serif; letter-spacing: -0.01em; max-width: 40ch; margin: 0 0 1.5rem;
  overflow-wrap: anywhere;
}}
</style>
</head>
<body>
<main>
<h1>{heading}</h1>
<div id="attention"><p>{fallback}</p></div>
</main>
<script type="application/json" id="payload">{data}</script>
<script type="module">
{module}
const model = plainModel({{ ...opening, payload: JSON.parse(document.getElementById("payload").textContent) }});
attention.render({{ model, el: document.getElementById("attention") }});
</script>
</body>
</html>
"""


def page(
    reading: "Reading",
    *,
    text: str | None = None,
    model: str | None = None,
    layer: int | None = None,
    head: int | None = None,
) -> str:
    """Draw a reading as one HTML file.

    Args:
        reading: one text through one model.
        text: the heading; the tokens, joined, where there is none.
        model: what the model was loaded by; None for the demo model.
        layer, head: the head that is open at first; the first that is worth it if not given.
    Returns:
        The page: no request leaves it, and it stays under about 5 MB whatever the length of the text. What was
        left out to keep it so is said on the page.
    """
    data = payload(reading, text=text, model=model)
    opening = dict(data["first"])
    if layer is not None or head is not None:
        opening = {"layer": layer or 0, "head": head or 0, "token": -1}
    heading = text or " ".join(reading.tokens)
    return PAGE.format(
        title=escape(f"Attention: {_cut(heading, 60)}"),
        heading=escape(_cut(heading, 200)),
        style=module.style(),
        fallback="The pictures need JavaScript. `clearhead see --json` prints the same numbers.",
        data=_script_safe(data),
        module=_named(module.one_module(), opening),
    )


def _named(source: str, opening: dict[str, int]) -> str:
    """The module's default export under a name, so that one script holds both it and the page's own line."""
    return f"const opening = {json.dumps(opening)};\n" + source.replace("export default {", "const attention = {")


def _script_safe(data: dict[str, Any]) -> str:
    """JSON that may stand inside a script element, whatever the tokens hold."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

"""One self-contained page: data, ES module and style in a single file that makes no request."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearhead.capture import Reading
from clearhead.files import whole_file
from clearhead.views.page import es_module
from clearhead.views.page.document import document
from clearhead.views.page.payload import Progress, payload
from clearhead.views.page.record_reading import reading_of

if TYPE_CHECKING:
    from clearhead.capture import Record

STYLE = """body { margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem) 3rem; max-width: 84rem; }
h1 { max-width: 40ch; margin: 0 0 1.5rem; }"""
CONTENT = """<h1>{heading}</h1>
<div id="attention"><p>The pictures need JavaScript. `clearhead see --json` prints the same numbers.</p></div>"""
SCRIPTS = """<script type="application/json" id="payload">{data}</script>
<script type="module">
{module}
const model = plainModel({{ ...opening, payload: JSON.parse(document.getElementById("payload").textContent) }});
attention.render({{ model, el: document.getElementById("attention") }});
</script>
"""


def page(
    reading: Reading,
    *,
    text: str | None = None,
    heading: str | None = None,
    model: str | None = None,
    target: str | None = None,
    file: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    second: Reading | None = None,
    notes: Sequence[str] = (),
    progress: Progress | None = None,
) -> str:
    """Draw a reading as one HTML file.

    Args:
        reading: one text through one model.
        text: the text as typed, so that the page can say how to repeat a picture.
        heading: the heading; by default the text, or the joined tokens.
        model: the argument with which the model was loaded; None for the demo model.
        target: the decoder's input of an encoder-decoder, as typed.
        file: the name of the picture or the sound.
        layer, head: the head that is open at first; by default the one with the most telling link.
        second: a reading of another model with the same number of tokens, to show differences.
        notes: sentences for the page about what else it leaves out.
        progress: called after each layer with (layers done, layers in all).
    Returns:
        The page, which makes no request. It stays under about 5 MB whatever the length of the text, and says what was
        left out for that.
    """
    data = payload(
        reading, text=text, model=model, target=target, file=file, second=second, notes=notes, progress=progress
    )
    opening = dict(data["first"])
    if layer is not None or head is not None:
        opening = {"layer": layer or 0, "head": head or 0, "token": -1}
    heading = (
        heading or text or (reading.model_name if reading.grid or len(reading.tokens) > 64 else _joined(reading.tokens))
    )
    return document(
        f"Attention: {_cut(heading, 60)}",
        CONTENT.format(heading=escape(_cut(heading, 200))),
        style=STYLE,
        scripts=SCRIPTS.format(data=_script_safe(data), module=_named(es_module.one_module(), opening)),
    )


def save(
    record: "Record",
    path: str | Path,
    *,
    tokens: Sequence[str] | None = None,
    decoder_tokens: Sequence[str] | None = None,
    title: str = "A record",
    progress: Progress | None = None,
) -> Path:
    """Write a record as one HTML file; `Record.to_html` documents it."""
    reading = reading_of(record, tokens=tokens, decoder_tokens=decoder_tokens, title=title)
    content = page(reading, heading=title, notes=_not_drawn(record), progress=progress)
    with whole_file(path) as draft:
        draft.write_text(content, encoding="utf-8")
    return Path(path)


def _not_drawn(record: "Record") -> list[str]:
    """Return notes about what a page does not show of a record, besides `missed`: later entries of a batch."""
    batch = max(matrix.shape[0] for matrix in record.values())
    return [f"the first of a batch of {batch} is drawn"] if batch > 1 else []


def _joined(tokens: Sequence[str]) -> str:
    return " ".join(token.strip() for token in tokens)


def _named(source: str, opening: dict[str, int]) -> str:
    """Turn the module's default export into a named constant, so that one script holds it and the page's own code."""
    return f"const opening = {json.dumps(opening)};\n" + source.replace("export default {", "const attention = {")


def _script_safe(data: dict[str, Any]) -> str:
    """Return JSON that is safe inside a script element, whatever the tokens contain."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

"""The heads behind a written text: their weights, the effect of each, and why a head attends to a token."""

import time
from contextlib import nullcontext
from inspect import signature
from typing import TYPE_CHECKING, Any, Final

from clearhead.errors import OptionError
from clearhead.studio.lens.readings import Readings, Tell
from clearhead.studio.lens.writing import Text, WritingRequest, text_of
from clearhead.studio.lens.written_records import record_of
from clearhead.studio.text.translation import _

if TYPE_CHECKING:
    from clearhead.capture import Record

MOST_WEIGHTS: Final = 2_000_000  # rows times keys in one answer
COLUMNS: Final = ("place", "token", "probability", "key", "key_token", "weight")  # of a table of links
HEADS_AT_ONCE: Final = 9  # heads that share a forward pass
MOST_NAMED: Final = 6  # heads that are named for a link, if many heads have it
MOST_SECONDS: Final = 300  # for switching off every head: 30 passes of SmolLM2 over 200 tokens take one or two minutes


def rows(kept: Readings, wanted: WritingRequest, tell: Tell, layer: int | None, head: int | None) -> dict[str, Any]:
    """Return `rows`, packed (Q, S), the weights of each step after the prompt, and `first`, the token it wrote.

    These are the weights of the writing itself. If another process wrote the text, it is read once more in one pass,
    which gives the same weights to rounding.

    Raises:
        OptionError: there is no such layer or head, or the text is too long for one answer.
    """
    from clearhead.capture.models.writing import pooled_rows
    from clearhead.views.page.packing import pack

    loaded = kept.loaded(wanted.model, tell)
    text = text_of(loaded, wanted)
    queries = _queries(text)
    record = record_of(loaded, wanted, text, tell)
    _check_head(record, layer, head)
    weights = pooled_rows(record, queries, len(text.ids) - 1, layer=layer, head=head).numpy()
    return {"rows": pack(weights, "u16", float(weights.max(initial=0.0))), "first": text.prompt}


def table(kept: Readings, wanted: WritingRequest, tell: Tell, layer: int | None, head: int | None) -> dict[str, Any]:
    """Return `parquet`: every weight of `rows` with its tokens, as a Parquet file in base64.

    Raises:
        OptionError: as in `rows`.
        ExtraError: pyarrow is missing.
    """
    from base64 import b64encode

    from clearhead.capture.models.token_text import letters
    from clearhead.capture.models.writing import pooled_rows, read_again
    from clearhead.views.page.saving import parquet

    loaded = kept.loaded(wanted.model, tell)
    text = text_of(loaded, wanted)
    queries = _queries(text)
    tell("reading", 0, 0)
    record, logits = read_again(loaded, text.ids[:-1], wanted.without, last=len(queries))
    _check_head(record, layer, head)
    weights = pooled_rows(record, queries, len(text.ids) - 1, layer=layer, head=head).tolist()
    names = letters(loaded.tokenizer, text.ids)
    chances = logits.softmax(-1)
    lines = [
        (query + 1, names[query + 1], float(chances[row, text.ids[query + 1]]), key, names[key], weights[row][key])
        for row, query in enumerate(queries)
        for key in range(query + 1)
    ]
    return {"parquet": b64encode(parquet(lines, COLUMNS)).decode("ascii")}


def _queries(text: Text) -> range:
    """Return the places of the steps that wrote the answer.

    Raises:
        OptionError: nothing is written yet, or the text is too long for one answer.
    """
    queries = range(text.prompt - 1, len(text.ids) - 1)
    if not queries:
        raise OptionError(_("nothing is written yet. Press Write first."))
    if len(queries) * len(text.ids) > MOST_WEIGHTS:
        raise OptionError(_("the text is too long to show every link of it. Open it in the Lens."))
    return queries


def effects(kept: Readings, wanted: WritingRequest, tell: Tell) -> dict[str, Any]:
    """Switch off each head in turn, and return the effect on the last token of the text.

    Returns:
        `effects[layer][head]`: how much the token's log probability changes, in nats; `p`, its probability.

    Raises:
        OptionError: nothing is written yet, or it takes more than MOST_SECONDS.
    """
    from clearhead.capture import ablate

    loaded = kept.loaded(wanted.model, tell)
    text = text_of(loaded, wanted)
    if len(text.ids) <= text.prompt:
        raise OptionError(_("nothing is written yet. Press Write first."))
    import torch

    *before, token = text.ids

    def log_probability(output: Any) -> Any:
        return output.logits[0, -1].float().log_softmax(-1)[token]

    model: Any = loaded.writer
    inputs: dict[str, Any] = {"input_ids": torch.tensor([before])}
    if "logits_to_keep" in signature(model.forward).parameters:
        inputs["logits_to_keep"] = 1  # of 4,096 tokens, 9 times, all logits of SmolLM2 would take 7 GB
    started = time.monotonic()

    def progress(done: int, total: int) -> None:
        if time.monotonic() - started > MOST_SECONDS:
            raise OptionError(_("this text is too long to switch off every head of this model. Use a shorter one."))
        tell("heads", done, total)

    heads = ablate(model, inputs, log_probability, batch=HEADS_AT_ONCE, progress=progress)
    return {"effects": heads.matrix().tolist(), "logp": heads.baseline, "place": len(before)}


def why(
    kept: Readings, wanted: WritingRequest, tell: Tell, layer: int | None, head: int | None, place: int, key: int
) -> dict[str, Any]:
    """Return `why`: the parts of the logit from the step that wrote the token at `place` to `key`.

    Without a layer or a head, return `heads`: those that give the link most weight, as [layer, head, weight].

    Raises:
        OptionError: there is no such head or link.
        CaptureError: the model's residual stream is not known.
    """
    from clearhead.capture import intervene
    from clearhead.views.page.logit_parts import logit_parts

    loaded = kept.loaded(wanted.model, tell)
    text = text_of(loaded, wanted)
    if not (text.prompt <= place < len(text.ids) and key < place):
        raise OptionError(_("this link does not belong to the current text. Point at a token of the answer again."))
    record = record_of(loaded, wanted, text, tell)
    _check_head(record, layer, head)
    if layer is None or head is None:
        return {"heads": _strongest_heads(record, layer, place - 1, key)}
    tell("why", 0, 0)
    matrix = list(record.values())[layer]
    off: Any = nullcontext()
    if wanted.without and loaded.writer is not None:
        off = intervene(loaded.writer, dict.fromkeys(wanted.without, "zero"))
    with off:
        return {"why": logit_parts(matrix, head, place - 1, key)}


def _strongest_heads(record: "Record", layer: int | None, query: int, key: int) -> list[list[float]]:
    """Return the heads, of one layer or of all, that give a link most weight: [layer, head, weight], largest first."""
    links = [
        [number, head, weight]
        for number, matrix in enumerate(record.values())
        if layer is None or number == layer
        for head, weight in enumerate(matrix.rows(query, query + 1)[0, :, 0, key].tolist())
    ]
    return sorted(links, key=lambda link: -link[2])[:MOST_NAMED]


def _check_head(record: "Record", layer: int | None, head: int | None) -> None:
    layers = list(record.values())
    if layer is None and head is not None:
        raise OptionError(_("a head belongs to a layer. Choose the layer too."))
    if layer is not None and (layer >= len(layers) or (head is not None and head >= layers[layer].shape[1])):
        raise OptionError(_("there is no such head: the model has layers 0 to %(last)s.", last=len(layers) - 1))

"""The Lens without JavaScript: the numbers of one head with links to all others, and a whole answer at once."""

from typing import TYPE_CHECKING, Any

from clearhead.studio.lens.readings import Readings
from clearhead.studio.lens.writing import WritingRequest, write

if TYPE_CHECKING:
    from clearhead.capture import Reading

LINKS = 4  # links of a written token
NAMED = 32  # the map is drawn for at most this many tokens


def numbers(reading: "Reading", second: "Reading | None", layer: int, head: int) -> dict[str, Any]:
    """Return the template's values for one head, or for the most telling one if there is no such head.

    With a second model, `kl[layer][head]` is the divergence of the heads in the same place, in nats per query.
    """
    from clearhead.views.comparison import divergences
    from clearhead.views.links import first_link
    from clearhead.views.listing import listing
    from clearhead.views.token_axes import layer_token_axes

    matrices = list(reading.record.values())
    if not (0 <= layer < len(matrices) and 0 <= head < matrices[layer].shape[1]):
        first = first_link(reading)
        layer, head = first.layer, first.head
    listed = listing(reading, layer=layer, head=head)["heads"][0]
    queries, keys = layer_token_axes(reading, layer)
    is_named = queries.tokens == keys.tokens and len(keys.tokens) <= NAMED
    rows = [
        {"token": token, "links": [(keys.tokens[key], weight) for key, weight in links[:8]]}
        for token, links in zip(queries.tokens, listed["links"], strict=True)
    ]
    return {
        "error": None,
        "model": reading.model_name,
        "layer": layer,
        "head": head,
        "breadth": listed["scores"].get("breadth"),
        "tokens": keys.tokens,
        "margin": 0.6 + 0.37 * min(max(map(len, keys.tokens)), 11),  # room for names, in cells
        "weights": listed["weights"] if is_named else None,
        "rows": rows,
        "heads": [matrix.shape[1] for matrix in matrices],
        "second": second and second.model_name,
        "kl": second and divergences(reading, second),
    }


def whole_answer(kept: Readings, wanted: WritingRequest) -> dict[str, Any]:
    """Return the template's values for a written text: each token, what it attended to, and the other candidates."""
    from clearhead.views.page.packing import unpacked

    parts: list[dict[str, Any]] = []
    end = write(kept, wanted, lambda _doing, _done, _total: None, parts.append)["end"]
    start, steps = parts[0]["start"], [part["token"] for part in parts[1:]]
    names = dict(enumerate(start["tokens"]))
    for step in steps:
        names.update(step["names"])
    rows = []
    for step in steps:
        weights = unpacked(step["row"])[0]
        best = (-weights).argsort(kind="stable")[:LINKS]
        links = [(names[int(place)], float(weights[place])) for place in best if weights[place] > 0]
        others = [(name, chance) for number, name, chance in step["candidates"] if number != step["id"]][:LINKS]
        rows.append({"token": names[step["place"]], "p": step["p"], "links": links, "others": others})
    text = "".join(names[step["place"]] for step in steps if not step["special"])
    return {"error": None, "model": start["model"], "note": start["note"], "text": text, "rows": rows, "end": end}

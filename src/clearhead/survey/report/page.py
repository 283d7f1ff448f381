"""page(): a survey as one self-contained HTML page: which heads do what, on what share of texts, with examples."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from clearhead.printing import count
from clearhead.survey.measuring.ablations import LOSS
from clearhead.survey.report import head_grid
from clearhead.survey.report.head_grid import Rows
from clearhead.survey.report.words import interval, number, percent, title
from clearhead.views.page.address import lens_address
from clearhead.views.page.document import document

STRONGEST = 5  # heads that are listed for each statistic
CUT = 160  # characters of an example
NUMBERS = ("statistic", "texts", "mean", "95% interval", "deviation", "share", "95% interval", "how it spreads")


def page(data: dict[str, Any], *, studio: str = "http://127.0.0.1:8765") -> str:
    """Return the page of a survey.

    Args:
        data: from `listing`.
        studio: the address of the studio whose Lens opens the examples.

    Returns:
        HTML that needs no script and makes no request.
    """
    rows: Rows = {}
    for row in data["rows"]:
        rows.setdefault(row["statistic"], []).append(row)
    name = f"What {data['model']['name']}’s heads do"
    sections = [_section(statistic, rows[statistic["name"]], data, studio) for statistic in data["statistics"]]
    content = [_opening(name, data), _contents(data), _roles(data, rows), *sections, _each_head(data), _method(data)]
    style = files("clearhead.survey.report").joinpath("report.css").read_text(encoding="utf-8")
    return document(name, "\n".join(content), style=style)


def _opening(name: str, data: dict[str, Any]) -> str:
    counts, model = data["counts"], data["model"]
    heads = sum(model["heads"])
    sentences = [
        f"{count(heads, 'head')} in {count(len(model['layers']), 'layer')}, over {count(counts['texts'], 'text')} of "
        f"{count(counts['tokens'], 'token')} ({escape(data['data']['kind'])})."
    ]
    if counts["cut"]:
        sentences.append(
            f"{count(counts['cut'], 'text')} had more than {model['max_length']:,} tokens; the rest was cut."
        )
    if counts["empty"]:
        sentences.append(f"{count(counts['empty'], 'row')} held no text.")
    gaps = "".join(
        f"<li>{escape(gap['layer'])}: {count(gap['texts'], 'text')}; {escape(gap['reason'])}</li>"
        for gap in data["missed"]
    )
    missed = f"<details open><summary>What is not here</summary><ul>{gaps}</ul></details>" if gaps else ""
    return f"<header><h1>{escape(name)}</h1><p>{' '.join(sentences)}</p>{missed}</header>"


def _contents(data: dict[str, Any]) -> str:
    """Return links to the sections."""
    sections = {statistic["name"]: title(statistic["name"]) for statistic in data["statistics"]}
    sections |= {"each-head": "Each head", "method": "How this was computed"}
    links = (f'<a href="#{name}">{escape(heading)}</a>' for name, heading in sections.items())
    return f'<nav aria-label="Sections">{"".join(links)}</nav>'


def _roles(data: dict[str, Any], rows: Rows) -> str:
    """Return a table of roles: a row for each role that some head has on average."""
    lines = []
    for statistic in data["statistics"]:
        doing = sorted((row for row in rows[statistic["name"]] if row["does"]), key=lambda row: -row["mean"])
        if doing and statistic["does"]:
            heads = ", ".join(_head_link(row) for row in doing[: 3 * STRONGEST])
            more = f" and {len(doing) - 3 * STRONGEST} more" if len(doing) > 3 * STRONGEST else ""
            link = f'<a href="#{statistic["name"]}">{escape(statistic["does"])}</a>'
            at_least = f"{escape(statistic['about'])}: {number(statistic['threshold'])} or more"
            lines.append(f"<tr><th scope=row>{link}<small>{at_least}</small></th><td>{heads}{more}</td></tr>")
    if not lines:
        return ""
    return (
        "<section><h2>Which heads do what</h2><p>A head is named by its layer and its number in it, both counted "
        "from 0: 2.7 is head 7 of layer 2. It is listed by its mean over the texts.</p>"
        f'<table class="roles"><tbody>{"".join(lines)}</tbody></table></section>'
    )


def _section(statistic: dict[str, Any], rows: list[dict[str, Any]], data: dict[str, Any], studio: str) -> str:
    """Return the section of one statistic: every head in a grid, and the strongest in a table with examples."""
    known = [row for row in rows if row["mean"] is not None]
    heading = f'<h2 id="{statistic["name"]}">{escape(title(statistic["name"]))}</h2>'
    about = f"<p>{escape(_about(statistic, data))}</p>"
    if not known:
        return f"<section>{heading}{about}<p>No text has a value of it.</p></section>"
    strongest = sorted(known, key=lambda row: (-row["mean"], row["layer"], row["head"]))[:STRONGEST]
    table = "".join(_row(row, statistic, data, studio) for row in strongest)
    share = "<th scope=col>share of texts</th>" if statistic["threshold"] is not None else ""
    return (
        f"<section>{heading}{about}<div class=pair>{head_grid.grid(statistic, rows)}"
        f'<div class="scroll"><table class="heads"><thead><tr><th scope=col>head</th><th scope=col>mean</th>{share}'
        f"<th scope=col>where it is largest</th></tr></thead><tbody>{table}</tbody></table></div></div></section>"
    )


def _about(statistic: dict[str, Any], data: dict[str, Any]) -> str:
    if statistic["name"] == "ablation":
        measured = f"{data['model']['loss']}, over {count(data['counts']['ablated'], 'text')}"
        if data["model"]["loss"] != LOSS:
            return f"What changes without the head: {measured}."
        return f"What the loss gains without the head: {measured}. Below 0 the model does better without it."
    words = statistic["about"][0].upper() + statistic["about"][1:]
    if statistic["threshold"] is None:
        return f"{words}. Means over a text's tokens, then over texts."
    return f"{words}. The share is that of the texts in which it is at least {number(statistic['threshold'])}."


def _row(row: dict[str, Any], statistic: dict[str, Any], data: dict[str, Any], studio: str) -> str:
    share = ""
    if statistic["threshold"] is not None:
        bounds = interval(row["share_low"], row["share_high"], percent)
        share = f"<td>{percent(row['share'])}<small>{bounds}</small></td>"
    pairs = zip(row["example_texts"], row["example_values"], strict=True)
    examples = "".join(f"<li>{_example(row, text, value, data, studio)}</li>" for text, value in pairs)
    return (
        f"<tr><th scope=row>{_head_link(row)}</th>"
        f"<td>{number(row['mean'])}<small>{interval(row['mean_low'], row['mean_high'], number)}</small></td>{share}"
        f"<td><ul>{examples or '<li>in no text of eight tokens or more</li>'}</ul></td></tr>"
    )


def _example(row: dict[str, Any], text: int, value: float, data: dict[str, Any], studio: str) -> str:
    """Return a text with a large value, as a link that opens it in the Lens at this head."""
    content = " ".join(data["examples"][str(text)].split())
    shown = escape(content if len(content) <= CUT else content[: CUT - 1] + "…")
    address = lens_address(content, data["given"], layer=row["layer"], head=row["head"])
    if address is not None:
        shown = f'<a href="{escape(studio.rstrip("/") + address)}">{shown}</a>'
    return f"<bdi>{shown}</bdi><small>text {text:,}: {number(value)}</small>"


def _head_link(row: dict[str, Any]) -> str:
    return f'<a class="head" href="#head-{row["layer"]}-{row["head"]}">{row["layer"]}.{row["head"]}</a>'


def _each_head(data: dict[str, Any]) -> str:
    """Return all numbers of every head, one collapsible table per head.

    The target of links is inside the table's <details>, because browsers open the ones around a target.
    """
    by_head: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in data["rows"]:
        by_head.setdefault((row["layer"], row["head"]), []).append(row)
    does = {statistic["name"]: statistic["does"] for statistic in data["statistics"]}
    parts = []
    headings = "".join(f"<th scope=col>{name}</th>" for name in NUMBERS)
    for (layer, head), rows in sorted(by_head.items()):
        roles = ", ".join(
            dict.fromkeys(does[row["statistic"]] for row in rows if row["does"] and does[row["statistic"]])
        )
        lines = "".join(_numbers(row) for row in rows)
        parts.append(
            f'<details class="head-numbers"><summary><b>{layer}.{head}</b> {escape(roles)}</summary>'
            f'<div class="scroll" id="head-{layer}-{head}"><table class="numbers"><thead><tr>{headings}</tr></thead>'
            f"<tbody>{lines}</tbody></table></div></details>"
        )
    return f'<section class="each"><h2 id="each-head">Each head</h2>{"".join(parts)}</section>'


def _numbers(row: dict[str, Any]) -> str:
    deviation = None if row["variance"] is None else row["variance"] ** 0.5
    cells = [
        f"{row['texts']:,}",
        number(row["mean"]),
        interval(row["mean_low"], row["mean_high"], number),
        number(deviation),
        percent(row["share"]),
        interval(row["share_low"], row["share_high"], percent),
        head_grid.spread(row["histogram"]),
    ]
    return (
        f"<tr><th scope=row>{escape(title(row['statistic']))}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    )


def _method(data: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in data["versions"].items() if name != "survey")
    counts = data["counts"]
    batched = (
        f"{count(counts['batches'], 'batch', 'batches')} of texts of similar lengths; "
        f"{percent(1 - counts['tokens'] / counts['positions'])} of the positions were padding. "
        if counts["batches"]
        else ""
    )
    return (
        '<section><h2 id="method">How this was computed</h2>'
        "<p>Each number is a mean over the tokens of one text, and then over "
        "texts, each of which counts once. The 95% interval of a mean is Student’s, that of a share Wilson’s. Both "
        "treat the texts as drawn independently. Neighbouring lines of one document are alike, so "
        "the real intervals are wider. An example is a text of at least eight tokens.</p>"
        f"<p>{batched}{escape(versions)}.</p>"
        "<p>The same numbers: <code>heads/layer=N/heads.parquet</code>, or "
        "<code>clearhead survey report FOLDER --json</code>.</p></section>"
    )

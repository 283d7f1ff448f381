"""Draw the figures of the site: a comment `<!-- figure: NAME -->` becomes a picture that is computed at build time.

Flow charts in Mermaid's notation (docs/design.md) are drawn too: Mermaid's script takes 3 MB, or another server.
"""

import math
import re
from collections.abc import Callable

import torch

import clearhead
from clearhead import drawing, masks
from clearhead.spec import BlockState

FIGURE = re.compile(r"<!-- figure: (\S+) -->")
WIDE = 500  # pixels: a phone shows 360 across
CHART = re.compile(r"```mermaid\nflowchart TD\n(.*?)```", re.S)


def drawn(markdown: str) -> str:
    """Return the page with its figures."""
    markdown = FIGURE.sub(lambda match: _framed(FIGURES[match[1]]()), markdown)
    return CHART.sub(lambda match: _framed(chart(match[1])), markdown)


def _framed(svg: str) -> str:
    """Return the picture as a figure, marked "wide" if a phone that shows it whole makes its letters too small."""
    wide = int(re.search(r' width="(\d+)"', svg)[1]) > WIDE
    return f'<figure class="drawn{" wide" * wide}" tabindex="0">{svg}</figure>'


def chart(text: str) -> str:
    """Draw a flow chart: floors of rooms as rows of boxes, edges as lines between floors."""
    floors = [re.findall(r"^    (\w+)$", floor, re.M) for floor in text.split("subgraph ")[1:]]
    edges = re.findall(r"^  (\w+) --> (\w+)$", text, re.M)
    wide = max(sum(_width(room) + 16 for room in floor) for floor in floors)
    places: dict[str, tuple[float, float]] = {}
    boxes = ""
    for row, floor in enumerate(floors):
        x, y = (wide - sum(_width(room) + 16 for room in floor)) / 2 + 8, 10 + row * 62
        for room in floor:
            places[room] = (x + _width(room) / 2, y)
            paint = 'fill="var(--paper)" stroke="currentColor" rx="3"'
            boxes += drawing.rectangle(x, y, _width(room), 26, paint)
            boxes += drawing.text(places[room][0], y + 17, room)
            x += _width(room) + 16
    lines = "".join(
        f'<path d="M{places[a][0]:.0f} {places[a][1] + 26:.0f}C{places[a][0]:.0f} {places[a][1] + 48:.0f} '
        f'{places[b][0]:.0f} {places[b][1] - 22:.0f} {places[b][0]:.0f} {places[b][1]:.0f}" fill="none" '
        f'stroke="{drawing.ACCENT}" stroke-opacity="0.55"/>'
        for a, b in edges
    )  # fmt: skip
    title = "Rooms, each above those it imports: " + "; ".join(f"{a} imports {b}" for a, b in edges)
    return drawing.svg(wide, 10 + len(floors) * 62 - 26, lines + boxes, title)


def _width(room: str) -> float:
    return drawing.LETTER * len(room) + 14


def _blocks() -> str:
    """Draw the states of the 64 × 64 blocks of a causal window, as the kernels see them."""
    side, size, length = 22, 64, 1024
    rule = masks.causal() & masks.sliding_window(256)
    paint = {
        BlockState.FULL: f'fill="{drawing.ACCENT}"',
        BlockState.MIXED: f'fill="{drawing.ACCENT}" fill-opacity="0.35"',
        BlockState.EMPTY: 'fill="none"',
    }
    count = dict.fromkeys(BlockState, 0)
    body = ""
    for i in range(length // size):
        for j in range(length // size):
            state = rule.state(range(i * size, (i + 1) * size), range(j * size, (j + 1) * size))
            count[state] += 1
            box = paint[state] + ' stroke="currentColor" stroke-opacity="0.25"'
            body += drawing.rectangle(4 + j * side, 4 + i * side, side - 2, side - 2, box)
    left, high = 16 * side + 20, 16 * side + 8
    for line, (state, word) in enumerate(
        (
            (BlockState.FULL, "full: no mask is read"),
            (BlockState.MIXED, "mixed: masked inside"),
            (BlockState.EMPTY, "empty: never computed"),
        )
    ):
        box = paint[state] + ' stroke="currentColor" stroke-opacity="0.5"'
        body += drawing.rectangle(left, 12 + line * 30, 18, 18, box)
        body += drawing.text(left + 26, 26 + line * 30, f"{count[state]} {word}", "start")
    body += drawing.text(left, 122, "rows: blocks of 64 queries", "start") + drawing.text(
        left, 140, "columns: blocks of 64 keys", "start"
    )
    counts = ", ".join(f"{count[state]} {state.name.lower()}" for state in BlockState)
    title = f"causal() & sliding_window(256) on 1,024 tokens, blocks of 64 by 64: {counts}"
    return drawing.svg(left + 200, high, body, title)


def _softmax() -> str:
    """Draw one row of logits, processed in blocks: the running sum is rescaled when a larger logit comes."""
    logits = torch.randn(24, generator=torch.Generator().manual_seed(4), dtype=torch.float64) * 1.5
    largest, total, so_far = -math.inf, 0.0, []
    for block in logits.split(4):
        new = max(largest, float(block.max()))
        total = total * math.exp(largest - new) + float((block - new).exp().sum())
        largest = new
        so_far.append(largest + math.log(total))
    whole = float(logits.logsumexp(0))
    _agree(so_far[-1], whole)
    series = {"lse so far": so_far, "all at once": [whole] * len(so_far)}
    return drawing.lines(
        series,
        [f"{4 * (n + 1)} keys" for n in range(len(so_far))],
        f"The lse of a row, block by block, ends at {whole:.3f}",
    )


def _entropy() -> str:
    """Draw the entropy of eight rows, computed from the identity and from the dense weights."""
    q, k = torch.randn(2, 1, 1, 8, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64).unbind()
    A = clearhead.AttentionMatrix(q, k, is_causal=True)
    dense = A.to_dense()
    expected = -(dense * dense.clamp_min(1e-300).log()).sum(-1)
    _agree(float((A.entropy() - expected).abs().max()), 0.0)
    values = A.entropy()[0, 0].round(decimals=9).tolist()
    return drawing.bars(values, [f"row {i}" for i in range(8)], "The entropy of each row of a causal matrix, in nats")


def _agree(value: float, expected: float) -> None:
    """Stop the build if the text beside a figure would be false."""
    if abs(value - expected) > 1e-12:
        raise SystemExit(f"a figure of the site shows {value}, and the text beside it says {expected}")


FIGURES: dict[str, Callable[[], str]] = {"blocks": _blocks, "softmax": _softmax, "entropy": _entropy}

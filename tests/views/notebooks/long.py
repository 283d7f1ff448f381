"""A notebook with one head over a text of very many tokens."""

import marimo

app = marimo.App()


@app.cell
def _():
    import os

    import marimo as mo
    import torch

    from clearhead import AttentionMatrix
    from clearhead.capture import Reading, Record
    from clearhead.views.widget import AttentionWidget

    length = int(os.environ.get("TOKENS", "100003"))
    made = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, length, 64, generator=made) for _ in range(2))
    record = Record.of({"layer": AttentionMatrix(query, key, is_causal=True)})
    tokens = [f"word{place}" for place in range(length)]
    long = Reading(record, tokens, "long", list(range(length)), [False] * length, [0] * length)
    return AttentionWidget, long, mo


@app.cell
def _(AttentionWidget, long, mo):
    widget = mo.ui.anywidget(AttentionWidget(long, layer=0, head=0))
    widget  # noqa: B018 — a notebook shows the last expression of a cell
    return (widget,)


if __name__ == "__main__":
    app.run()

"""A notebook as somebody would write it: a long text of a made-up model, and two models beside each other."""

import marimo

app = marimo.App()


@app.cell
def _():
    import marimo as mo
    import torch

    from clearhead import AttentionMatrix
    from clearhead.capture import Reading, Record
    from clearhead.views.widget import AttentionWidget

    def reading(length, name, seed):
        made = torch.Generator().manual_seed(seed)
        query, key = (torch.randn(1, 3, length, 4, generator=made) for _ in range(2))
        record = Record.of({"layer": AttentionMatrix(query, key, is_causal=True)})
        tokens = [f"word{place}" for place in range(length)]
        return Reading(record, tokens, name, list(range(length)), [False] * length, [0] * length)

    return AttentionWidget, mo, reading


@app.cell
def _(AttentionWidget, mo, reading):
    widget = mo.ui.anywidget(AttentionWidget(reading(1201, "first", 0), reading(1201, "second", 1), layer=0, head=1))
    widget  # noqa: B018 — a notebook shows the last expression of a cell
    return (widget,)


@app.cell
def _(mo, widget):
    mo.md(f"Python knows: head {widget.value['head']}, token {widget.value['token']}")
    return


if __name__ == "__main__":
    app.run()

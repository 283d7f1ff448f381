"""The part of docs/findings.md about the chat model, SmolLM2-135M-Instruct; `findings.py` puts it on the page.

It takes the model that `clearhead models fetch` brings, in float32.
"""

import torch
from torch import Tensor

import clearhead
from clearhead import capture
from clearhead.local_models.chat_model import CHAT_NAME

NAMES = "When Mary and John went to the store, John gave a drink to"
OTHERS = (
    "After Anna and Tom sat down at the table, Tom passed the salt to",
    "While Alice and Bob were at the park, Bob threw the ball to",
    "When Sarah and David arrived at the office, David handed the keys to",
)
PROSE = (
    NAMES,
    *OTHERS,
    "The keys to the old cabinet in the kitchen are on the table, not in the drawer.",
    "If you heat water to one hundred degrees, it boils; if you cool it to zero, it freezes.",
)
LENGTH = 40  # random tokens, said twice
Head = tuple[int, int]  # layer, head

SECTION = """## A chat model: where attention sinks

The third model is SmolLM2-135M-Instruct: {layers} layers of {heads} heads, {total} in all, with rotary
positions. It has no `[CLS]`. Yet over {count} English sentences, {sink_mean} of all weight is on the
first token, whatever word that is, and {sink_heads} of the {total} heads put more than half of theirs there:
an attention sink (Xiao et al. 2023). It is not there from the start. Layer 0 gives the first token {sink_first}
on average, layer {sink_layer} gives it {sink_most}, the most of all layers. The deepest sinks are {sinks}.

## Heads that look one back, and heads that look for what came next

Over the same sentences, {previous} look at the token before most. On {length} random tokens said twice,
where only the repetition helps, the induction heads are

| head | induction | previous token |
|---|---|---|
{induction_table}

and {induction_count} of the {total} heads put more than 0.4 there. All of them are in layer {induction_low} or later;
the best previous-token head before that layer is {previous_early}.

{previous_proof}

## Who carries the name?

"{names} …" goes on with "Mary": the logit of " Mary" is {gap} above that of " John" (Wang et al. 2022 ask this
of GPT-2). Which heads make the difference? Set the output of one head to 0, for each of the {total}, and
ask again:

| without head | Mary − John | change |
|---|---|---|
{ablation_table}

Head **{carrier}** alone makes {share} of the difference. Where does it look? From the last token, "to", it puts
{on_mary} of its weight on "Mary" and {on_john} on both "John"s together: not at the name that is the answer, but at the
name that was said twice. A map alone would have suggested that it says "John"; without it, "John" gains on
"Mary". The ablation decides. It is no accident of one sentence either. Without head {carrier} the difference falls
in {falls} of {tried} more sentences of the kind:

| sentence | difference | without {carrier} |
|---|---|---|
{others_table}

{other_heads}
"""


def name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def ranked(table: Tensor) -> list[Head]:
    """Return the heads of a table (layers, heads), largest first."""
    return [divmod(place, table.shape[1]) for place in table.flatten().argsort(descending=True, stable=True).tolist()]


def said(heads: list[Head], table: Tensor) -> str:
    return ", ".join(f"{name(head)} ({float(table[head]):.2f})" for head in heads)


class Model:
    """The chat model, and measurements that several sections use."""

    def __init__(self) -> None:
        loaded = capture.load(CHAT_NAME)
        self.tokenizer, self.model = loaded.tokenizer, loaded.writer.float()

    def ids(self, text: str) -> Tensor:
        return self.tokenizer(text, return_tensors="pt")["input_ids"]

    def record(self, text: str) -> capture.Record:
        with torch.inference_mode(), clearhead.observe(self.model) as record:
            self.model(input_ids=self.ids(text))
        return record

    def gap(self, text: str, without: Head | None = None) -> float:
        """Return the logit of the first name minus that of the second, optionally without one head."""
        cut = {} if without is None else {without: "zero"}
        with torch.inference_mode():
            if not cut:
                return self.names_apart(text)(self.model(input_ids=self.ids(text)))
            with clearhead.intervene(self.model, cut):
                return self.names_apart(text)(self.model(input_ids=self.ids(text)))

    def names_apart(self, text: str):
        words = text.replace(",", "").split()
        first, second = words[words.index("and") - 1], words[words.index("and") + 1]
        one, other = (self.ids(f" {word}")[0, 0] for word in (first, second))
        return lambda out: float(out.logits[0, -1, one] - out.logits[0, -1, other])


def of_positions(model: Model) -> tuple[dict[str, object], Tensor]:
    records = [model.record(text) for text in PROSE]
    sink = torch.stack([_layers(record, lambda A: A.mass_on([0])[0, :, 1:].mean(-1)) for record in records]).mean(0)
    back = torch.stack([_layers(record, lambda A: A.diagonal(-1)[0].mean(-1)) for record in records]).mean(0)
    by_layer = sink.mean(1)
    words: dict[str, object] = {
        "layers": len(sink),
        "heads": sink.shape[1],
        "total": sink.numel(),
        "count": len(PROSE),
        "sink_mean": f"{float(sink.mean()):.2f}",
        "sink_heads": int((sink > 0.5).sum()),
        "sink_first": f"{float(by_layer[0]):.2f}",
        "sink_layer": int(by_layer.argmax()),
        "sink_most": f"{float(by_layer.max()):.2f}",
        "sinks": said(ranked(sink)[:4], sink),
        "previous": said(ranked(back)[:4], back),
    }
    return words, back


def _layers(record: capture.Record, ask) -> Tensor:
    return torch.stack([ask(A).float() for A in record.values()])


def of_induction(model: Model, back: Tensor) -> dict[str, object]:
    size = len(model.tokenizer)
    probe = capture.induction_scores(model.model, vocab_size=size, length=LENGTH)
    best = ranked(probe)[:6]
    low = min(layer for layer, head in ranked(probe) if float(probe[layer, head]) > 0.4)
    early = ranked(back[:low])[0]
    with clearhead.intervene(model.model, {early: "zero"}):
        without = capture.induction_scores(model.model, vocab_size=size, length=LENGTH)
    top = best[0]
    return {
        "length": LENGTH,
        "induction_table": "\n".join(
            f"| {name(head)} | {float(probe[head]):.2f} | {float(back[head]):.2f} |" for head in best
        ),
        "induction_count": int((probe > 0.4).sum()),
        "induction_low": low,
        "previous_early": said([early], back),
        "previous_proof": (
            f"In the small model above, silencing the previous-token head ended induction. The same here: "
            f"without {name(early)}, head {name(top)} goes from {float(probe[top]):.2f} to {float(without[top]):.2f}, "
            "and the mean of "
            f"the six in the table from {_mean(probe, best)} to {_mean(without, best)}."
        ),
    }


def _mean(table: Tensor, heads: list[Head]) -> str:
    return f"{sum(float(table[head]) for head in heads) / len(heads):.2f}"


def of_names(model: Model) -> dict[str, object]:
    apart = model.names_apart(NAMES)
    effects = clearhead.ablate(model.model, {"input_ids": model.ids(NAMES)}, apart)
    layers = list(dict.fromkeys(row.layer for row in effects))
    strongest = sorted(effects, key=lambda row: row.effect)[:6]
    heads = [(layers.index(row.layer), row.head) for row in strongest]
    carrier = heads[0]
    record = model.record(NAMES)
    matrices = list(record.values())
    tokens = model.tokenizer.convert_ids_to_tokens(model.ids(NAMES)[0])
    places = {word: [place for place, token in enumerate(tokens) if token.endswith(word)] for word in ("Mary", "John")}

    def looks(head: Head, word: str) -> float:
        return float(matrices[head[0]][0, head[1], -1, places[word]].sum())

    pairs = [(text, model.gap(text), model.gap(text, carrier)) for text in OTHERS]
    next_heads = "; ".join(
        f"{name(head)} ({looks(head, 'Mary'):.2f} on Mary, {looks(head, 'John'):.2f} on John, "
        f"{float(matrices[head[0]][0, head[1], -1, 0]):.2f} on the first token)"
        for head in heads[1:4]
    )
    return {
        "names": NAMES,
        "gap": f"{effects.baseline:.2f}",
        "carrier": name(carrier),
        "share": f"{-strongest[0].effect / effects.baseline:.0%}",
        "on_mary": f"{looks(carrier, 'Mary'):.2f}",
        "on_john": f"{looks(carrier, 'John'):.2f}",
        "falls": sum(without < gap for _, gap, without in pairs),
        "tried": len(pairs),
        "ablation_table": "\n".join(
            f"| {name(head)} | {row.value:.2f} | {row.effect:+.2f} |"
            for head, row in zip(heads, strongest, strict=True)
        ),
        "others_table": "\n".join(f"| {text} … | {gap:.2f} | {without:.2f} |" for text, gap, without in pairs),
        "other_heads": f"From the last token, the next three look at these: {next_heads}.",
    }


def section() -> str:
    """Return the section, not wrapped yet.

    Raises:
        ModelError: the model is not on this machine.
    """
    model = Model()
    words, back = of_positions(model)
    return SECTION.format(**words, **of_induction(model, back), **of_names(model))

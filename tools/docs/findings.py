"""Write docs/findings.md and its pictures from the models themselves: `.venv/bin/python tools/docs/findings.py`.

Every number on the page is computed here; nothing is typed. `page()` is what a test compares the file with.
"""

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import clearhead
from clearhead import capture

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "pictures"
TIRED = "The animal didn't cross the street because it was too tired"
WIDE = "The animal didn't cross the street because it was too wide"
TEXTS = (
    TIRED,
    WIDE,
    "She put the glass on the table and it broke.",
    "Paris is to France what Rome is to Italy.",
    "When the doctor met the nurse, she thanked her for the help she had given.",
    "In 1969, two astronauts walked on the moon while a third waited above them in orbit.",
    "The keys to the old cabinet in the kitchen are on the table, not in the drawer.",
    "If you heat water to one hundred degrees, it boils; if you cool it to zero, it freezes.",
)
LINE = "the lighthouse keeper wrote: the lighthouse keeper"
LAYERS, HEADS, WIDTH = 6, 12, 32  # of MiniLM
COPIER = 3  # the head of the small model's first layer that looks at the previous token
Head = tuple[int, int]  # layer, head

PAGE = """# Findings

What the heads of three real models do, and where their weights mislead. Every number here was
computed by `tools/docs/findings.py`, which you can run again; tests check that it still says the same.
A head is written layer.head, both from 0.

The first model is all-MiniLM-L6-v2 (6 layers, 12 heads), which turns a sentence into a vector.
Scores are means over {count} English sentences. The second is a causal model of two layers that
this project trained itself.

## A head that does one thing

Head **{previous[0]}** puts {previous[1]} of its weight on the token before, whatever the sentence
says. It is the narrowest head of all ({narrow[1]} on a scale where 0 is one key and 1 is all keys
alike); the next best at looking back, {previous[2]}, reaches {previous[3]}. There are heads for the
token after, too: {next[0]} looks one to the right more often than anywhere else, for {next[1]} of
its queries.

![Head {previous[0]}: a diagonal one below the main one](pictures/findings-previous.png)

## Heads that look everywhere

The broadest heads are all in layer 0: {broad}. They gather a bag of words before any other layer
has run.

## Where weight goes to rest

On average {resting} of the weight of all {total} heads is on `[CLS]`, the first token. {sinks}
put most there. The closing `[SEP]`, where BERT is known to rest (Clark et al. 2019), gets only
{separator} on average; this model rests at the other end.

Is the model reading `[CLS]`? Weigh each key by the length of what it really adds (Kobayashi et al.
2020), and the share of `[CLS]` falls from {resting} to {added}. In head {sink[0]} it falls from
{sink[1]} to {sink[2]}. Much of that weight is a way to add little.

## It is the animal, or is it?

In "{tired}", head **5.11** takes "it" to "animal" with weight {it_animal}, head 3.1 with
{it_animal_early}.

![Head 5.11 on the sentence: the row of "it" is dark at "animal"](pictures/findings-it.png)

It looks as if the model knew what "it" stands for. But look at the whole column: {column} of the
{tokens} tokens look at "animal" more than at anything else, and "it" is one of them. And change one word,
"tired" to "wide", so that "it" must be the street. Head 5.11 still says "animal", with {wide_animal}, and
gives "street" {wide_street}; the most that any of the {total} heads gives "street" is
{wide_street_most} ({wide_street_head}). This head finds what the sentence is about. One row that fits a
story is not evidence.

## What looks striking and what matters

Silence one head (set its output to 0) and see how far the sentence's vector turns, as 1 − cosine,
over the same sentences. The heads that matter most are {matter}: all in the last layer, whose
output goes straight into the vector. Head 5.11, for once, is as weighty as its picture is handsome:
number {rank_it} of {total}. But the sharpest map of all, the previous-token head {previous[0]}, is
number {rank_previous} ({turn_previous}, where the head in the middle turns the vector by
{turn_middle}). How sharp a map is does not say how much depends on it.

## Rollout says the same of every word

Rollout multiplies the layers (Abnar & Zuidema 2020). From "it" it gives `[CLS]` {rolled_first} and
"animal" {rolled_animal}. But any other word gets nearly the same: the least alike two rows of the
rolled-out matrix correlate at {rolled_alike}. What all heads send to their resting place piles up,
layer by layer, and hides the rest. Ask a rolled-out map what differs from row to row before you
believe a row.

## An induction head, grown here

`tools/train_induction.py` trains two layers of four heads on lines of random characters, each said
again and again. To know what comes next, a head must find where the present character appeared before,
and look at what followed: an induction head (Olsson et al. 2022). On new random characters said
twice (`capture.induction_scores`):

| head | previous token | induction |
|---|---|---|
{induction_table}

All four heads of the second layer are induction heads; 0.{copier} is the one that looks at the
previous token. Silence 0.{copier} and the best induction score falls from {induction_best} to
{induction_without}: the second layer finds its place by what the first has copied. That is a claim
about cause, and it took an experiment; the maps alone would not have shown it.

It was never shown a word, and yet on "{line}":

![Induction heads on a line said twice: a second diagonal](pictures/findings-induction.png)

`capture.load("induction")` loads it; in a shell, `clearhead see "{line}" --model induction`.
"""


def wrapped(text: str) -> str:
    """Return the page with its paragraphs wrapped again, after numbers and names replaced their placeholders."""
    blocks = text.strip().split("\n\n")
    filled = [
        block
        if block[0] in "#|!"
        else textwrap.fill(" ".join(block.split()), 118, break_on_hyphens=False, break_long_words=False)
        for block in blocks
    ]
    return "\n\n".join(filled) + "\n"


def name(head: Head) -> str:
    return f"{head[0]}.{head[1]}"


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def ranked(score: dict[Head, float]) -> list[Head]:
    return sorted(score, key=lambda head: -score[head])


def said(head: Head, score: dict[Head, float]) -> str:
    return f"{name(head)} ({score[head]:.3f})"


@contextmanager
def silenced(layer: torch.nn.Linear, head: int, width: int) -> Iterator[None]:
    """Set one head's input to the output projection to 0, inside the block."""

    def quiet(_: torch.nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        joined = given[0].clone()
        joined[..., head * width : (head + 1) * width] = 0
        return (joined, *given[1:])

    handle = layer.register_forward_pre_hook(quiet)
    try:
        yield
    finally:
        handle.remove()


def scored(readings: list[capture.Reading]) -> dict[str, dict[Head, float]]:
    """Return score -> head -> mean over the readings; "next": how often a head's commonest offset is one key right."""
    found: dict[str, dict[Head, list[float]]] = {}
    for reading in readings:
        layers = list(reading.record)
        for row in capture.scores(reading):
            head = layers.index(row.layer), row.head
            for score in ("previous_token", "first_token", "separator", "breadth"):
                found.setdefault(score, {}).setdefault(head, []).append(getattr(row, score))
            found.setdefault("next", {}).setdefault(head, []).append(row.positional if row.offset == 1 else 0.0)
    return {score: {head: mean(values) for head, values in heads.items()} for score, heads in found.items()}


def added_by_first(loaded: capture.Loaded) -> dict[Head, float]:
    """Return, for each head, the share of [CLS] if each key counts by the norm of what it adds to the output."""
    shares: dict[Head, list[float]] = {}
    for text in TEXTS:
        with torch.inference_mode(), clearhead.observe(loaded.model, values=True) as record:
            loaded.model(**loaded.tokenizer(text, return_tensors="pt"))
        for number, matrix in enumerate(record.values()):
            out = loaded.model.encoder.layer[number].attention.output.dense.weight.detach()
            norms = matrix.value_weighted(out_weight=out.T.reshape(HEADS, WIDTH, -1)).to_dense()
            for head, share in enumerate((norms[..., 0] / norms.sum(-1)).mean((0, 2)).tolist()):
                shares.setdefault((number, head), []).append(share)
    return {head: mean(values) for head, values in shares.items()}


def turned(loaded: capture.Loaded) -> dict[Head, float]:
    """Return, for each head, how far the sentences' vectors turn without it: the mean of 1 - cosine over the texts."""
    inputs = loaded.tokenizer(list(TEXTS), return_tensors="pt", padding=True)
    counted = inputs["attention_mask"][..., None]

    def vectors() -> Tensor:
        with torch.inference_mode():
            return (loaded.model(**inputs).last_hidden_state * counted).sum(1) / counted.sum(1)

    whole = vectors()
    found = {}
    for layer in range(LAYERS):
        for head in range(HEADS):
            with silenced(loaded.model.encoder.layer[layer].attention.output.dense, head, WIDTH):
                found[layer, head] = float(1 - F.cosine_similarity(vectors(), whole).mean())
    return found


def of_minilm() -> tuple[dict[str, object], dict[str, capture.Reading]]:
    loaded = capture.load()
    readings = {text: capture.read(loaded, text) for text in TEXTS}
    score = scored(list(readings.values()))
    previous, narrow, broad = (ranked(score[kind]) for kind in ("previous_token", "breadth", "breadth"))
    rest, added, turn = score["first_token"], added_by_first(loaded), turned(loaded)
    sinks, matter, nexts = ranked(rest), ranked(turn), ranked(score["next"])
    tired, wide = readings[TIRED], readings[WIDE]
    it, animal, street = (tired.tokens.index(word) for word in ("it", "animal", "street"))

    def weight(reading: capture.Reading, head: Head, key: int) -> float:
        return float(list(reading.record.values())[head[0]][0, head[1], it, key])

    streets = {(layer, head): weight(wide, (layer, head), street) for layer in range(LAYERS) for head in range(HEADS)}
    rolled = (clearhead.rollout(list(tired.record.values())) @ torch.eye(len(tired.tokens)))[0]
    words = {
        "count": len(TEXTS),
        "total": LAYERS * HEADS,
        "previous": (name(previous[0]), f"{score['previous_token'][previous[0]]:.3f}", name(previous[1]),
                     f"{score['previous_token'][previous[1]]:.3f}"),
        "narrow": (name(narrow[-1]), f"{score['breadth'][narrow[-1]]:.3f}"),
        "next": (name(nexts[0]), f"{score['next'][nexts[0]]:.2f}"),
        "broad": ", ".join(said(head, score["breadth"]) for head in broad[:4]),
        "resting": f"{mean(list(rest.values())):.2f}",
        "sinks": ", ".join(said(head, rest) for head in sinks[:4]),
        "separator": f"{mean(list(score['separator'].values())):.2f}",
        "added": f"{mean(list(added.values())):.2f}",
        "sink": (name(sinks[0]), f"{rest[sinks[0]]:.2f}", f"{added[sinks[0]]:.2f}"),
        "tired": TIRED,
        "it_animal": f"{weight(tired, (5, 11), animal):.3f}",
        "it_animal_early": f"{weight(tired, (3, 1), animal):.3f}",
        "column": int((list(tired.record.values())[5].topk(1)[1][0, 11] == animal).sum()),
        "tokens": len(tired.tokens),
        "wide_animal": f"{weight(wide, (5, 11), animal):.3f}",
        "wide_street": f"{weight(wide, (5, 11), street):.3f}",
        "wide_street_most": f"{max(streets.values()):.3f}",
        "wide_street_head": name(ranked(streets)[0]),
        "matter": ", ".join(said(head, turn) for head in matter[:4]),
        "rank_it": matter.index((5, 11)) + 1,
        "rank_previous": matter.index(previous[0]) + 1,
        "turn_previous": f"{turn[previous[0]]:.4f}",
        "turn_middle": f"{turn[matter[len(matter) // 2]]:.4f}",
        "rolled_first": f"{float(rolled[it, 0]):.2f}",
        "rolled_animal": f"{float(rolled[it, animal]):.2f}",
        "rolled_alike": f"{float(torch.corrcoef(rolled).min()):.3f}",
    }  # fmt: skip
    return words, readings


def of_induction() -> tuple[dict[str, object], capture.Reading]:
    loaded = capture.load("induction")
    model, size = loaded.model, len(loaded.tokenizer)
    probe = capture.induction_scores(model, vocab_size=size, length=40)
    tokens = torch.randint(2, size, (4, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), clearhead.observe(model) as record:
        model(input_ids=tokens)
    back = torch.stack([matrix.diagonal(-1).mean((0, 2)) for matrix in record.values()])
    with silenced(model.layers[0].self_attn.o_proj, COPIER, 16):
        without = capture.induction_scores(model, vocab_size=size, length=40)
    rows = [
        f"| {layer}.{head} | {float(back[layer, head]):.2f} | {float(probe[layer, head]):.2f} |"
        for layer in range(2)
        for head in range(4)
    ]
    words = {
        "induction_table": "\n".join(rows),
        "copier": COPIER,
        "induction_best": f"{float(probe.max()):.2f}",
        "induction_without": f"{float(without.max()):.2f}",
        "line": LINE,
    }
    return words, capture.read(loaded, LINE)


def page(*, chat: bool = False) -> tuple[str, dict[str, tuple[capture.Reading, int, int]]]:
    """Return the page, and what its pictures show: name -> (reading, layer, head).

    Args:
        chat: compute the part about the chat model too, which `clearhead models fetch` brings.
    """
    words, readings = of_minilm()
    more, line = of_induction()
    pictures = {
        "findings-previous": (readings[TIRED], 0, 2),
        "findings-it": (readings[TIRED], 5, 11),
        "findings-induction": (line, 1, 3),
    }
    return wrapped(PAGE.format(**words, **more)) + "\n" + chat_section(again=chat), pictures


def chat_section(*, again: bool) -> str:
    """Return the section about the chat model: computed, or taken from the page if the model is not on this machine."""
    if again:
        import findings_chat

        return wrapped(findings_chat.section())
    written = (DOCS / "findings.md").read_text(encoding="utf-8")
    return written[written.index("## A chat model") :]


def main() -> None:
    from clearhead.views import plot

    torch.set_num_threads(1)  # the work is small, and sums then always have the same order
    text, pictures = page(chat=True)
    (DOCS / "findings.md").write_text(text, encoding="utf-8")
    for picture, (reading, layer, head) in pictures.items():
        plot.save(plot.head(reading, layer, head, width=5.5), PICTURES / f"{picture}.png", dpi=110)
    print(f"written to {DOCS / 'findings.md'}")


if __name__ == "__main__":
    sys.exit(main())

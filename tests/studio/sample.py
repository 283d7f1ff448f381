"""A small course with its proofs written down, so that the studio's tests need no sandbox and no torch."""

import functools
from pathlib import Path

from clearhead import course
from clearhead.course import Item, Option, Pack, Page, Proved, Receipt, Topic
from clearhead.studio.library.library import Library

READ = """
A head turns logits into weights: $\\mathrm{softmax}\\left(\\frac{QK^\\top}{\\sqrt{d}}\\right)V$.

```python
print([0.25, 0.75])  # two weights
```

| step | gives |
|---|---|
| logits | one number a pair |
"""

TOPIC = Topic(
    "one-head", "One head, step by step", "Logits, weights, output.", 0, 8, pages={"read": Page("read", READ, "r.md")}
)
EMPTY = Topic("later", "A topic with nothing yet", "Comes later.", 1)


@functools.cache
def shipped_course() -> Pack:
    """The course that is shipped, read once: that takes a second."""
    return course.load(next(folder for folder in course.shipped() if folder.name == "attention"))


def item(id: str, kind: str, difficulty: int = 1, right: int = 1) -> Item:
    return Item(
        id=id,
        kind=kind,
        topic="one-head",
        rev=1,
        stem="",
        rule="",
        file=f"items/{id}.md",
        hash="5a" * 32,
        title=id.replace("-", " ").capitalize(),
        concepts=("scaling", "logits") if kind == "predict" else ("scaling",) if kind != "card" else ("softmax",),
        difficulty=difficulty,
        right=right,
    )


def proof(id: str, kind: str, options: tuple[Option, ...] = (), **more: object) -> Proved:
    return Proved(
        item_id=id,
        kind=kind,
        receipt=Receipt("5a" * 32, 7, {"torch": "2.13.0", "clearhead": "0.1.0"}, "c0" * 32),
        stem=str(more.pop("stem", f"What does `{id}` print?")),
        answer="4.0",
        rule="Logits are divided by $\\sqrt{d}$.",
        options=options,
        **more,  # type: ignore[arg-type]
    )


def options(right: int = 1) -> tuple[Option, ...]:
    texts = ("`4.0`", "`16.0`", "`1.0`", "`0.25`")
    return tuple(
        Option(
            key="abcd"[place],
            text=text,
            correct=place < right,
            misconception=None if place < right else f"no-scale-{place}",
            belief="" if place < right else f"Belief {place}: nothing divides the logits.",
            counterexample="" if place < right else f"```output\ncounterexample {place}\n```",
            rationale=f"Rationale {place}.",
            output=text.strip("`"),
        )
        for place, text in enumerate(texts)
    )


HINTS = ("Count first.", "Then divide.")
ITEMS = (
    item("what-is-a-weight", "card"),
    item("what-is-lse", "card"),
    item("scale-of-logits", "predict"),
    item("which-hold", "choice", 2, right=2),
    item("mend-the-mask", "debug", 3),
)
PROVED = {
    "what-is-a-weight": proof(
        "what-is-a-weight", "card", stem="What is a weight?", back="What softmax makes of a logit."
    ),
    "what-is-lse": proof("what-is-lse", "card", stem="What is lse?", back="The log of a sum of exponentials."),
    "scale-of-logits": proof("scale-of-logits", "predict", options(), given="print(4.0)", hints=HINTS),
    "which-hold": proof("which-hold", "choice", options(2)),
    "mend-the-mask": proof("mend-the-mask", "debug", options(), given="mask = mask * 0"),
}


def library() -> Library:
    """The library with the sample course."""
    pack = Pack(
        "attention",
        "Attention",
        "From the dot product up.",
        "0.1.0",
        Path(),
        (TOPIC, EMPTY),
        {i.id: i for i in ITEMS},
        {},
    )
    return Library((pack,), PROVED)

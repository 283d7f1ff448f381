"""The result of a proof: the answer, the options and the receipt, which convert to JSON and back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from clearhead.course.rubric import Criterion


@dataclass(frozen=True, slots=True)
class Receipt:
    """Everything needed to repeat a proof.

    Attributes:
        item_hash: hash of the item's file and the pack's own words; when it changes, the item needs a new proof.
        seed: the seed of the item's numbers.
        versions: library -> version, of every library that can change an outcome.
        outcome: hash of everything the proof computed (stem, options, answer, values).
        seconds: how long it took; the only part that differs between two runs.
    """

    item_hash: str
    seed: int
    versions: Mapping[str, str]
    outcome: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a question, computed.

    Attributes:
        key: "a", "b" …; shuffling does not change it.
        text: Markdown: the output of a program, a statement or a patch.
        correct: whether the proof found it right.
        misconception: id, for a wrong option.
        belief: the idea behind choosing it, in one sentence ("" for a right option).
        counterexample: what was run to refute it, and the result, as Markdown.
        rationale: why it is wrong (or right), in the author's words.
        output: what this option's own program printed ("" if it has none).
        figure: SVG drawn from this option's own run, or "".
    """

    key: str
    text: str
    correct: bool
    misconception: str | None = None
    belief: str = ""
    counterexample: str = ""
    rationale: str = ""
    output: str = ""
    figure: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a worked example (prose, code, computed result), one to put in order (text and code), or a pair.

    Of a pair, `text` is the left side, `result` the right one, and `right` the key of the option that shows it.
    """

    key: str
    text: str
    code: str = ""
    result: str = ""
    right: str = ""


@dataclass(frozen=True, slots=True)
class Proved:
    """An item with everything its proof computed. The studio shows it and grades with it.

    Attributes:
        stem: Markdown, values filled in. Safe to show before an attempt.
        given: the program the learner reads, or "".
        options: in canonical order (shuffle to display, refer to them by key); empty for kinds without options.
        answer: the right answer as text or output, shown beside the learner's.
        values: name -> text of every `{{name}}` of the item.
        rule: the point of it, in one sentence.
        back: the back of a card.
        hints, pitfalls, rationales: values filled in.
        steps: worked and order. `orders`: every order of keys that passed (order).
        criteria: explain. starter, solution, tests: code.
        table: the sweep, as rows (tune). figure: SVG or "".
        notes: what the studio says beside it: how the given program fails (debug), that nothing was run (explain).
    """

    item_id: str
    kind: str
    receipt: Receipt
    stem: str
    answer: str
    rule: str
    options: tuple[Option, ...] = ()
    values: Mapping[str, str] = field(default_factory=dict)
    given: str = ""
    back: str = ""
    hints: tuple[str, ...] = ()
    pitfalls: str = ""
    rationales: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    orders: tuple[tuple[str, ...], ...] = ()
    criteria: tuple[Criterion, ...] = ()
    starter: str = ""
    solution: str = ""
    tests: str = ""
    table: tuple[Mapping[str, str], ...] = ()
    figure: str = ""
    notes: tuple[str, ...] = ()

    @property
    def rationale(self) -> str:
        """Why the right answer is right, in the author's words; "" if the item does not say."""
        return self.rationales.get("", "")

    def option(self, key: str) -> Option | None:
        """Return the option with this key, or None."""
        return next((option for option in self.options if option.key == key), None)

    def to_json(self) -> dict[str, Any]:
        """Return a dict of JSON types, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Proved":
        """Return the proof that `to_json` wrote, also after a round trip through JSON."""
        parts = dict(data)
        parts["receipt"] = Receipt(**parts["receipt"])
        parts["options"] = tuple(Option(**option) for option in parts["options"])
        parts["steps"] = tuple(Step(**step) for step in parts["steps"])
        parts["criteria"] = tuple(
            Criterion(**{**part, "terms": tuple(map(tuple, part["terms"])), "without": tuple(part["without"])})
            for part in parts["criteria"]
        )
        parts["orders"] = tuple(map(tuple, parts["orders"]))
        for name in ("hints", "table", "notes"):
            parts[name] = tuple(parts[name])
        return cls(**parts)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of proving an item: `proved`, or the `error` with its place."""

    item_id: str
    file: str
    proved: Proved | None
    error: str = ""
    line: int | None = None
    cached: bool = False
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether the item is proved."""
        return self.proved is not None

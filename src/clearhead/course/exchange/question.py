"""One proved item as other programs see it: a question, options with feedback, pairs, or a text to write."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from markdown_it import MarkdownIt

from clearhead.course.bench import fence
from clearhead.course.item import Item, Pack
from clearhead.course.proved import Option, Proved

_MARKDOWN = MarkdownIt("commonmark", {"html": False, "xhtmlOut": True}).enable("table")


@dataclass(frozen=True, slots=True)
class Choice:
    """An option; `feedback` is Markdown."""

    key: str
    text: str
    correct: bool
    feedback: str


@dataclass(frozen=True, slots=True)
class Question:
    """What every format is written from.

    Attributes:
        form: "options", "pairs", "order" or "text".
        stem, answer, rule, feedback: Markdown. `answer` is the right answer in words, `feedback` why it is right.
        pairs: (left, right key) for "pairs"; `choices` then hold the right-hand sides.
        order: keys in a right order, for "order"; `choices` then hold the steps.
    """

    id: str
    pack: str
    topic: str
    kind: str
    title: str
    form: str
    stem: str
    answer: str
    rule: str
    feedback: str
    concepts: tuple[str, ...]
    difficulty: int
    choices: tuple[Choice, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """What is said after any response: the answer where nothing can be chosen, why it is right, the rule."""
        parts = (self.answer if self.form == "text" else "", self.feedback, self.rule)
        return "\n\n".join(part for part in parts if part)


def question(item: Item, proved: Proved, pack: Pack) -> Question:
    """The question an item makes."""
    stem = proved.stem + (f"\n\n{fence(proved.given, 'python')}" if proved.given else "")
    form, answer = "text", proved.answer
    choices: tuple[Choice, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()
    if item.kind in ("choice", "predict", "debug", "tune"):
        form = "options"
        choices = tuple(Choice(one.key, one.text, one.correct, _feedback(one)) for one in proved.options)
        answer = "\n\n".join(one.text for one in proved.options if one.correct)
    elif item.kind == "match":
        form = "pairs"
        choices = tuple(Choice(one.key, one.text, False, "") for one in proved.options)
        pairs = tuple((step.text, step.right) for step in proved.steps)
    elif item.kind == "order":
        form = "order"
        choices = tuple(Choice(step.key, step.text, False, "") for step in proved.steps)
        order = proved.orders[0]
    elif item.kind == "worked":
        stem += "".join(f"\n\n{step.text}\n\n{fence(step.code, 'python')}" for step in proved.steps)
        answer = "\n".join(f"{step.key}. {step.result}" for step in proved.steps)
    elif item.kind == "code":
        stem += f"\n\n{fence(proved.starter, 'python')}"
        answer = fence(proved.solution, "python")
    return Question(
        item.id, pack.id, item.topic, item.kind, item.title or item.id.replace("-", " "), form, stem, answer,
        proved.rule, proved.rationales.get("", ""), item.concepts, item.difficulty, choices, pairs, order, proved.hints,
    )  # fmt: skip


def questions(pack: Pack, proved: Sequence[Proved]) -> list[Question]:
    """The questions of these items, in the pack's order."""
    found = {one.item_id: one for one in proved}
    return [question(item, found[item.id], pack) for item in pack.items.values() if item.id in found]


def _feedback(option: Option) -> str:
    return "\n\n".join(part for part in (option.belief, option.counterexample, option.rationale) if part)


def html(markdown: str) -> str:
    """Markdown as well-formed XHTML; raw HTML in it is shown, not passed on."""
    return str(_MARKDOWN.render(markdown)).strip()


def plain(markdown: str) -> str:
    """Markdown as text without marks, for formats that take no more."""
    return "".join(elements(markdown).itertext()).strip()


def elements(markdown: str) -> ElementTree.Element:
    """Markdown as a <div> of XHTML elements."""
    return ElementTree.fromstring(f"<div>{html(markdown)}</div>")  # noqa: S314 — what we just rendered

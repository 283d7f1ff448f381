"""A proved item for export: a question with options and feedback, pairs, or a text to write."""

from collections.abc import Sequence
from dataclasses import dataclass

from clearhead.course.exchange.markup.inert import without_controls
from clearhead.course.exchange.markup.markdown import hidden, html, picture
from clearhead.course.pack.item import Item, Pack
from clearhead.course.proofs.proved import Option, Proved
from clearhead.course.proofs.runner import fence


@dataclass(frozen=True, slots=True)
class QuestionOption:
    """An option. `feedback` is Markdown, `figure` an SVG drawn from the run of the option's own program."""

    key: str
    text: str
    correct: bool
    feedback: str
    figure: str = ""

    @property
    def feedback_html(self) -> str:
        """The feedback after choosing this option."""
        return "\n".join(part for part in (html(self.feedback), picture(self.figure)) if part)


@dataclass(frozen=True, slots=True)
class Question:
    """The content of a question, from which every format is written.

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
    choices: tuple[QuestionOption, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()
    hints: tuple[str, ...] = ()
    pitfalls: str = ""
    figure: str = ""

    @property
    def asked_html(self) -> str:
        """The stem, with each hint in an element that opens."""
        hints = [hidden(f"Hint {number}", hint) for number, hint in enumerate(self.hints, 1)]
        return "\n".join([html(self.stem), *hints])

    @property
    def feedback_html(self) -> str:
        """The closing text after any response, with the figure."""
        return "\n".join(part for part in (html(self.closing), picture(self.figure)) if part)

    @property
    def closing(self) -> str:
        """The answer if there are no options, why it is right, the pitfalls, and the rule."""
        parts = (self.answer if self.form == "text" else "", self.feedback, self.pitfalls, self.rule)
        return "\n\n".join(part for part in parts if part)


def question(item: Item, proved: Proved, pack: Pack) -> Question:
    """Return the question of a proved item."""
    stem = proved.stem + (f"\n\n{fence(proved.given, 'python')}" if proved.given else "")
    form, answer = "text", proved.answer
    choices: tuple[QuestionOption, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    order: tuple[str, ...] = ()
    if item.kind in ("choice", "predict", "debug", "tune"):
        form = "options"
        choices = tuple(
            QuestionOption(option.key, option.text, option.correct, _feedback(option), option.figure)
            for option in proved.options
        )
        answer = "\n\n".join(option.text for option in proved.options if option.correct)
    elif item.kind == "match":
        form = "pairs"
        choices = tuple(QuestionOption(option.key, option.text, False, "") for option in proved.options)
        pairs = tuple((step.text, step.right) for step in proved.steps)
    elif item.kind == "order":
        form = "order"
        choices = tuple(QuestionOption(step.key, step.text, False, "") for step in proved.steps)
        order = proved.orders[0]
    elif item.kind == "worked":
        stem += "".join(f"\n\n{step.text}\n\n{fence(step.code, 'python')}" for step in proved.steps)
        answer = "\n".join(f"{step.key}. {step.result}" for step in proved.steps)
    elif item.kind == "code":
        stem += f"\n\n{fence(proved.starter, 'python')}"
        answer = fence(proved.solution, "python")
    return Question(
        item.id, pack.id, item.topic, item.kind, item.title or item.id.replace("-", " "), form, stem, answer,
        proved.rule, proved.rationale, item.concepts, item.difficulty, choices, pairs, order, proved.hints,
        proved.pitfalls, proved.figure,
    )  # fmt: skip


def questions(pack: Pack, proved: Sequence[Proved]) -> list[Question]:
    """Return the questions of these items, in the pack's order."""
    by_item = {result.item_id: result for result in proved}
    return [
        without_controls(question(item, by_item[item.id], pack)) for item in pack.items.values() if item.id in by_item
    ]


def _feedback(option: Option) -> str:
    """Return why an option is wrong. The idea behind it is a sentence that sounds true, so it is named as that."""
    idea = f"**The idea behind that answer:** {option.belief}" if option.belief else ""
    return "\n\n".join(part for part in (idea, option.counterexample, option.rationale) if part)

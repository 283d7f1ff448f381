"""Types for what an author writes: a pack has topics and items; an item has prose and programs.

Nothing here runs a program or knows an answer. Every part keeps its line number for error messages.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

KINDS = ("card", "choice", "predict", "debug", "tune", "worked", "explain", "code", "order", "match")
MODES = ("read", "recall", "practice", "test", "challenge", "walk", "why", "try", "experiment", "build")
# Seconds on the clock of an item without its own `time_limit`: to read, to think, and to type if the kind needs it.
CLOCKS: Mapping[str, int] = {
    "card": 90, "choice": 90, "predict": 120, "debug": 120, "tune": 120, "order": 120, "match": 120, "worked": 240,
    "explain": 300, "code": 600,
}  # fmt: skip
GRADED_AT_ONCE = ("choice", "predict", "debug", "tune", "worked", "order", "match")  # what a test or an interview asks
LONGEST_RUN = 30  # seconds that one program of a proof may take, however long the clock is
# The five problems of a challenge, in the order they are put -> the kinds of item that may be there.
SLOTS: Mapping[str, tuple[str, ...]] = {
    "predict": ("predict",),
    "choose": ("choice",),
    "tune": ("tune",),
    "debug": ("debug",),
    "concept": ("choice", "match", "order", "explain"),
}


@dataclass(frozen=True, slots=True)
class Program:
    """A fenced block with a role: ```` ```python distractor misconception=no-scale ````.

    Attributes:
        role: what it is for, the first word after the language: given, answer, distractor, check, proof …
        source: the text between the fences.
        line: file line (1-based) of the first line of `source`.
        attributes: the `key=value` words of the info string.
        language: the first word of the info string; only "python" is ever run.
    """

    role: str
    source: str
    line: int
    attributes: Mapping[str, str] = field(default_factory=dict)
    language: str = "python"

    @property
    def misconception(self) -> str | None:
        """The misconception that this program represents, if it names one."""
        return self.attributes.get("misconception")


@dataclass(frozen=True, slots=True)
class Section:
    """One `## Name argument` part of an item.

    Attributes:
        text: its prose, Markdown; a blank line stands for each line of a program.
        line: file line of the heading. text_line: file line of the first line of `text`.
    """

    name: str
    argument: str
    text: str
    line: int
    text_line: int
    programs: tuple[Program, ...] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One exercise, as written.

    Attributes:
        id: immutable; attempts hang on it.
        rev: counts edits, from 1. `meaning_rev` is the last edit that changed what is asked (change = "semantic").
        kind: one of KINDS.
        topic: id of the topic it belongs to.
        concepts: what it exercises; mastery is kept for each.
        difficulty: 1 (easy) to 5, the author's guess; Elo corrects it.
        attempts: tries a learner has before the answer is shown.
        time_limit: seconds, for the clock of Challenge; a program of the proof has at most LONGEST_RUN of them.
        seed: the first seed; `variants` says whether another seed gives other numbers.
        right: how many options are right (choice).
        tolerance: largest absolute difference at which a typed number is right.
        stem, rule, pitfalls: Markdown with `{{name}}` where a value of the run goes.
        hints: progressive, one at a time.
        rationales: misconception id -> why that option is wrong; "" -> why the right one is right.
        file: path inside the pack; `lines` maps a field of the front matter to its line.
    """

    id: str
    kind: str
    topic: str
    rev: int
    stem: str
    rule: str
    file: str
    hash: str
    title: str = ""
    meaning_rev: int = 1
    concepts: tuple[str, ...] = ()
    difficulty: int = 2
    attempts: int = 2
    time_limit: int = 90
    seed: int = 0
    variants: bool = False
    right: int = 1
    tolerance: float = 0.0
    unit: str = ""
    evidence: str = "program"
    source: str = ""
    back: str = ""
    hints: tuple[str, ...] = ()
    pitfalls: str = ""
    rationales: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[Program, ...] = ()
    sections: tuple[Section, ...] = ()
    lines: Mapping[str, int] = field(default_factory=dict)

    @property
    def run_limit(self) -> int:
        """Seconds that one program of the proof may take."""
        return min(self.time_limit, LONGEST_RUN)

    def role(self, role: str) -> tuple[Program, ...]:
        """Return the programs with this role, in file order, including those inside sections."""
        return tuple(program for program in self.programs if program.role == role)

    def first(self, role: str) -> Program | None:
        """Return the first program with this role, or None."""
        return next(iter(self.role(role)), None)

    def named(self, name: str) -> tuple[Section, ...]:
        """Return the sections with this name, in file order."""
        return tuple(section for section in self.sections if section.name == name)


@dataclass(frozen=True, slots=True)
class Page:
    """One Markdown page of a topic, shown by a mode. Its `python run` programs run, and their output is shown."""

    mode: str
    text: str
    file: str


@dataclass(frozen=True, slots=True)
class Challenge:
    """Five problems of a topic, chosen by the author. `problems`: slot -> item id, in the order of SLOTS."""

    id: str
    title: str
    summary: str
    problems: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: a reloaded topic is a different one
class Topic:
    """A chapter: pages by mode ("read" …), and the items that name it.

    Attributes:
        id: immutable; also the name of its folder under topics/.
        order: place in the pack, from 0.
        needs: ids of the topics it builds on, all earlier in the pack.
        pages: mode -> Page.
        challenges: in the author's order; may be empty.
        walk: which figure Walk shows; "" for none. experiments: what Experiment measures, in order.
    """

    id: str
    title: str
    summary: str
    order: int
    minutes: int = 5
    pages: Mapping[str, Page] = field(default_factory=dict)
    challenges: tuple[Challenge, ...] = ()
    needs: tuple[str, ...] = ()
    walk: str = ""
    experiments: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)  # compared by identity: a reloaded pack is a different one
class Pack:
    """A folder of topics and items, parsed and not yet proved.

    Attributes:
        misconceptions: id -> what somebody who holds it believes, in one sentence.
        items: id -> Item, in topic order and then by file name.
        interview: ids of items, a row for each subject, in the order in which an interviewer asks.
    """

    id: str
    title: str
    summary: str
    version: str
    path: Path
    topics: tuple[Topic, ...]
    items: Mapping[str, Item]
    misconceptions: Mapping[str, str]
    preload: tuple[str, ...] = ()
    interview: tuple[tuple[str, ...], ...] = ()
    hash: str = ""

    def topic(self, topic_id: str) -> Topic:
        """The topic with this id. Raises KeyError if the pack has none."""
        for topic in self.topics:
            if topic.id == topic_id:
                return topic
        raise KeyError(topic_id)

    def items_of(self, topic_id: str) -> tuple[Item, ...]:
        """The topic's items, in order."""
        return tuple(item for item in self.items.values() if item.topic == topic_id)

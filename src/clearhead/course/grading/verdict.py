"""The verdict on one response: everything the studio needs to explain it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clearhead.course.proofs.proved import Option
from clearhead.course.rubric import Tick


@dataclass(frozen=True, slots=True)
class Verdict:
    """Right or wrong, and why.

    Attributes:
        chosen: the option chosen (or the known misconception a typed answer equals); None otherwise.
        why: one sentence on this response: the belief behind it, or what differs.
        counterexample: what was run to refute it, with the result, Markdown; "" when right.
        rationale: the author's words on this response.
        rule: the point of the item, in one sentence.
        right: the right answer, as text.
        yours: the response as it was parsed, to show beside `right`.
        ticks: free text only. tests: code only: (name, passed, message) for each.
        suggested: True where the learner confirms or corrects the verdict (free text, cards).
    """

    correct: bool
    why: str
    rule: str
    right: str
    chosen: Option | None = None
    counterexample: str = ""
    rationale: str = ""
    yours: str = ""
    ticks: tuple[Tick, ...] = ()
    tests: tuple[tuple[str, bool, str], ...] = ()
    suggested: bool = False
    figure: str = ""
    details: Mapping[str, str] = field(default_factory=dict)

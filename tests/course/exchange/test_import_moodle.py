"""Moodle XML of every type: taken as it is meant, or left out with its type and its place, and the rest imported."""

from pathlib import Path

import pytest

from clearhead.course.exchange.drafts import read
from clearhead.course.exchange.report import Report

OTHERS = ["cloze", "multianswer", "calculated", "calculatedmulti", "ddwtos", "gapselect", "ddimageortext", "stack", "randomsamatch"]  # fmt: skip


def quiz(*questions: str) -> str:
    return f'<?xml version="1.0" encoding="UTF-8"?><quiz>{"".join(questions)}</quiz>'


def question(kind: str, *parts: str, name: str = "n", stem: str = "Asked?") -> str:
    head = f"<name><text>{name}</text></name><questiontext format='html'><text>{stem}</text></questiontext>"
    return f"<question type='{kind}'>{head}{''.join(parts)}</question>"


def imported(folder: Path, *questions: str) -> tuple[list[str], list[str]]:
    """The backs or options of the drafts, and what was not carried over."""
    place, report = folder / "bank.xml", Report()
    place.write_text(quiz(*questions), encoding="utf-8")
    drafts = read(place, report)
    return [one.back or "|".join(text for text, _, _ in one.options) for one in drafts], [str(loss) for loss in report.losses]  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
def test_a_type_that_a_pack_lacks_is_named_and_the_rest_imported(tmp_path: Path, kind: str) -> None:
    rest = question("essay", "<graderinfo format='html'><text>Because.</text></graderinfo>")
    backs, losses = imported(tmp_path, question(kind, name="odd"), rest)
    assert backs == ["Because."]
    (loss,) = losses
    assert loss.startswith(f"bank.xml, question 1 (odd): a question of type '{kind}'; expected one of multichoice")


def test_a_number_keeps_its_tolerance_and_its_unit_is_reported(tmp_path: Path) -> None:
    answer = "<answer fraction='100'><text>9.81</text><tolerance>0.05</tolerance></answer>"
    units = "<units><unit><multiplier>1</multiplier><unit_name>m/s2</unit_name></unit></units>"
    backs, losses = imported(tmp_path, question("numerical", answer, units))
    assert (backs, losses) == (["9.81 ± 0.05"], ["bank.xml, question 1 (n): the unit 'm/s2'"])


def test_what_a_draft_has_no_place_for_is_reported(tmp_path: Path) -> None:
    template = "<responsetemplate format='html'><text>&lt;p&gt;I think&lt;/p&gt;</text></responsetemplate>"
    answers = "<answer fraction='100'><text>a</text></answer><answer fraction='0'><text>b</text></answer>"
    praise = "<correctfeedback format='html'><text>Well done.</text></correctfeedback>"
    choice = question("multichoice", answers, praise)
    _, losses = imported(tmp_path, question("essay", template), choice, choice)
    assert losses == [
        "bank.xml, question 1 (n): the text to start from 'I think'",
        "bank.xml, question 2 (n): the feedback to a right answer 'Well done.'",  # once, for all questions that share it
    ]

"""The studio says what a form lacks, and does not count a try."""

import pytest
from starlette.datastructures import FormData

from clearhead.studio.questions import responses
from clearhead.studio.questions.draft import Draft
from clearhead.studio.questions.question import Question
from studio import sample
from studio.conftest import START


def question() -> Question:
    draft = Draft.new("write-it", seed=7, mode="build", now=START)
    return Question(draft, sample.item("write-it", "code"), sample.proof("write-it", "code"), sample.library().packs[0])


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("x = 1\ndef f(:\n  pass", "Line 2 is not Python yet"),
        ("if x\n  y", "Line 1 is not Python yet"),
        ("\tx = 1", "Line 1 is not Python yet"),
        ("x = 'open", "Line 1 is not Python yet"),
        ("a\0b", "no try was counted"),
        ("(" * 5000, "no try was counted"),
        ("-" * 19_000 + "1", "no try was counted"),
        ("  \n", "Write a program first"),
    ],
)
def test_what_is_not_python_is_not_a_try(program: str, said: str) -> None:
    with pytest.raises(responses.Incomplete, match=said):
        responses.read(question(), FormData({"program": program}))


@pytest.mark.parametrize(
    "program", ["x = 1", "raise SyntaxError('mine')", "print('\\d')", "def f():\n    return undefined"]
)
def test_what_is_python_is_run_however_wrong(program: str) -> None:
    assert responses.read(question(), FormData({"program": program})) == program

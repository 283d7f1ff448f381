"""Our readers restore what our writers wrote: every form of question, in every format that has both."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from clearhead.course.exchange.anki.write import write_anki
from clearhead.course.exchange.csv_table import write_csv
from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.drafts import read
from clearhead.course.exchange.gift.parse import read_gift
from clearhead.course.exchange.gift.write import write_gift
from clearhead.course.exchange.markup.convert import from_html
from clearhead.course.exchange.markup.markdown import html
from clearhead.course.exchange.moodle.write import write_moodle
from clearhead.course.exchange.question import Question, QuestionOption
from clearhead.course.exchange.report import Report

# Pieces of Markdown, the special characters of every format, and what looks like a delimiter of a formula.
PIECES = [
    "a", "softmax", "é", "日本", " ", " ", "1", "3.5", "x_1", "**bold**", "*it*", "`a\\nb`", "`{x: 1}`", "[link](http://a.de/b)",
    "$a \\neq b$", "$\\left\\{ x \\right\\}$", "$\\nabla_{ij} < 3$", "\\$5", "\\(", "\\)", "\\\\(x\\\\)", "\\[", "[latex]",
    "=", "~", "#", "{", "}", ":", "::", "->", "-->", "%50%", "<b>", "vector<int>", "&amp;", "&", "\"", "'", "|", ",", ";", "\t",
    "\\\\neq", "\\n", "T", "TRUE", "//", "{{c1::a}}", "}}", "\n", "  \nnext",
]  # fmt: skip
BLOCKS = [
    "```python\nfor n in range(2):\n    print(n)\n\n# then\nprint(9)\n```", "```\n<b> & \\n {a=b}\n```", "- one\n- two", "1. one\n2. two",
    "> quoted", "# Title", "| a | b |\n| --- | --- |\n| 1 | `x` |", "$$\\sum_{i} \\{a\\} \\\\ b$$", "---", "- a\n\n  b\n- c",
]  # fmt: skip

words = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(lambda parts: "w" + "".join(parts) + "w")
prose = st.lists(st.one_of(words, st.sampled_from(BLOCKS)), min_size=1, max_size=3).map("\n\n".join)
lines = st.lists(
    st.sampled_from([one for one in PIECES if "\n" not in one and "\t" not in one]), min_size=1, max_size=4
).map(lambda parts: " ".join("".join(parts).split()) or "w")
lines = lines.filter(lambda line: not line.startswith("#"))  # a heading has no line beside it


@st.composite
def questions(draw: st.DrawFn) -> Question:
    form = draw(st.sampled_from(["options", "pairs", "order", "text"]))
    count = draw(st.integers(2, 4)) if form != "text" else 0
    right = draw(st.integers(1, count - 1)) if form == "options" else 0
    texts = [draw(lines if form == "pairs" else prose) for _ in range(count)]
    choices = tuple(
        QuestionOption("abcd"[at], text, at < right, draw(st.one_of(st.just(""), prose)) if form == "options" else "")
        for at, text in enumerate(texts)
    )
    keys = [choice.key for choice in choices]
    lefts = tuple((draw(lines), key) for key in keys) if form == "pairs" else ()
    return Question(
        "item", "pack", "topic", {"order": "order", "pairs": "match"}.get(form, "card"), draw(lines), form, draw(prose),
        draw(prose), draw(words), draw(st.one_of(st.just(""), prose)), ("c",), 1, choices, lefts,
        tuple(reversed(keys)) if form == "order" else (), tuple(draw(st.lists(prose, max_size=2))),
    )  # fmt: skip


def back(question: Question, ending: str, write: Callable[..., object]) -> Draft:
    with tempfile.TemporaryDirectory() as folder:
        place, report = Path(folder) / f"x{ending}", Report()
        write([question], "Title", place)
        (draft,) = read(place, report)
        assert report.losses == []
    return draft


def same(mine: str, theirs: str) -> None:
    """Whether both show the same, ignoring white space at the end of lines."""
    assert shown(theirs) == shown(mine)


def shown(markdown: str) -> list[str]:
    return [
        " ".join(part.split()).replace("> <", "><").replace(" <br", "<br")
        for part in html(markdown).split("\n")
        if part.strip()
    ]


def listed(markdown: str) -> list[str]:
    return [part.replace("<p>", "") for part in "".join(shown(markdown)).replace("<li>", "\n<li>").split("\n")]


def check(question: Question, draft: Draft, *, hints: bool = True) -> None:
    if hints:
        assert len(draft.hints) == len(question.hints)
        for mine, theirs in zip(question.hints, draft.hints, strict=True):
            same(mine, theirs)
    assert [right for _, right, _ in draft.options] == [
        choice.correct for choice in question.choices if question.form == "options"
    ]
    if question.form == "options":
        for choice, (text, _, feedback) in zip(question.choices, draft.options, strict=True):
            same(choice.text, text)
            same(choice.feedback, feedback)
        same(question.closing, draft.why)
    elif question.form == "text":
        same(question.closing, draft.back)
    elif question.form == "pairs":
        texts = {choice.key: choice.text for choice in question.choices}
        for left, key in question.pairs:
            assert texts[key] in draft.back
            assert any(
                part.startswith(f"<li>{row}")
                for row in [html(left).removeprefix("<p>").removesuffix("</p>")]
                for part in listed(draft.back)
            ), left
        assert draft.note.startswith("pairs")


@pytest.mark.slow
@settings(max_examples=20)
@given(questions())
def test_gift(question: Question) -> None:
    draft = back(question, ".gift", write_gift)
    assert draft.title == question.title
    if question.form == "order":  # GIFT has none: the steps are listed below the stem, for somebody to write
        asked = shown(question.stem)
        assert shown(draft.stem)[: len(asked)] == asked
        assert len(shown(draft.stem)) > len(asked)
        assert shown(draft.back)[: len(shown(question.answer))] == shown(question.answer)
        return
    same(question.stem, draft.stem)
    check(question, draft)


@pytest.mark.slow
@settings(max_examples=20)
@given(questions())
def test_moodle_xml(question: Question) -> None:
    draft = back(question, ".xml", write_moodle)
    assert draft.title == question.title
    same(question.stem, draft.stem)
    check(question, draft)
    if question.form == "order":
        texts = {choice.key: choice.text for choice in question.choices}
        same("\n\n".join(texts[key] for key in question.order), draft.back)
        assert draft.note.startswith("steps")


@pytest.mark.slow
@settings(max_examples=20)
@given(questions())
def test_csv_is_read_back_to_the_letter(question: Question) -> None:
    draft = back(question, ".csv", write_csv)
    assert (draft.title, draft.stem, draft.hints) == (question.title, question.stem, question.hints)
    if question.form == "options":
        assert draft.options == tuple((choice.text, choice.correct, choice.feedback) for choice in question.choices)
        assert draft.why == question.closing
    if question.form == "text":
        assert draft.back == question.closing
    if question.form == "order":
        assert draft.back == question.answer


@settings(max_examples=6)
@given(questions())
def test_anki(question: Question) -> None:
    draft = back(question, ".apkg", write_anki)
    assert len(draft.hints) == len(question.hints)
    if question.form == "text":
        same(question.stem, draft.stem)
        same("\n\n".join(part for part in (question.answer, question.feedback, question.rule) if part), draft.back)


@pytest.mark.slow
@settings(max_examples=60)
@given(prose)
@example("a $x$ b $$y$$ c")
@example("costs \\$5 and \\$6")
@example("1\\. not a list\n\n\\# no title\n\n\\- no item")
@example("- a\n\n* b")
@example("> a  \n> b")
@example("**a *b* c** *d*")
@example("```\n\n```\n\n~~~~\n```\n~~~~")
@example("a `` ` `` b")
@example('[a](http://x.de/a_(b) "t")')
def test_markdown_survives_html(text: str) -> None:
    same(text, from_html(html(text), pytest.fail))


@settings(max_examples=60)
@given(st.lists(st.sampled_from([*PIECES, "\\", "\n\n", "\u2028"]), min_size=1, max_size=9).map("".join))
def test_every_character_survives_gift(text: str) -> None:
    stem = html(text)
    assume(stem)
    question = Question("i", "p", "t", "card", "x", "text", text, "yes", "", "", (), 1)
    with tempfile.TemporaryDirectory() as folder:
        write_gift([question], "T", Path(folder) / "x.gift")
        (one,) = read_gift((Path(folder) / "x.gift").read_text())
    assert one.stem == stem

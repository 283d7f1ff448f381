"""GIFT and Moodle XML as other people write them: every kind of question, and what of it a pack cannot hold."""

import contextlib
from pathlib import Path

import pytest

from clearhead.course.exchange.draft import Draft
from clearhead.course.exchange.drafts import read
from clearhead.course.exchange.gift.drafts import from_gift
from clearhead.course.exchange.gift.parse import GiftQuestion, read_gift
from clearhead.course.exchange.report import Report
from clearhead.errors import PackError
from growth import calls


def only(text: str) -> GiftQuestion:
    (one,) = read_gift(text)
    return one


def drafts(folder: Path, text: str, name: str = "bank.gift") -> tuple[list[Draft], list[str]]:
    place, report = folder / name, Report()
    place.write_text(text, encoding="utf-8")
    return read(place, report), [str(loss) for loss in report.losses]


def test_backslashes() -> None:
    one = only(r"Is $a \\neq \\nu$ \{one\}\: \#1 \~ \= C\:\\new\n2nd \alpha {=\\\\ ~\=\=}")
    assert one.stem == "Is $a \\neq \\nu$ {one}: #1 ~ = C:\\new\n2nd \\alpha"
    assert [text for text, _, _ in one.options] == ["\\\\", "=="]


@pytest.mark.parametrize(
    ("block", "kind", "options"),
    [
        ("{=p->x ~*p->x}", "choice", [("p->x", True), ("*p->x", False)]),
        ("{~int -> list =list -> int}", "choice", [("int -> list", False), ("list -> int", True)]),
        ("{~%50%a ~%50%b ~%-100%c}", "choice", [("a", True), ("b", True), ("c", False)]),
        ("{=a ~%50%b ~%-25%c}", "choice", [("a", True), ("b", False), ("c", False)]),
        ("{=%100%a ~b}", "choice", [("a", True), ("b", False)]),
        ("{=list -> int}", "short", [("list -> int", True)]),
        ("{=four =4 =%50%five}", "short", [("four", True), ("4", True), ("five", True)]),
        ("{four}", "short", [("four", True)]),
        ("{T}", "truefalse", [("True", True), ("False", False)]),
        ("{ FALSE }", "truefalse", [("True", False), ("False", True)]),
        ("{#3}", "number", [("3", True)]),
        ("{#3:0.1}", "number", [("3 ± 0.1", True)]),
        ("{#3:0}", "number", [("3", True)]),
        ("{#-1.5..5}", "number", [("-1.5 to 5", True)]),
        ("{#=%100%3:0.1#yes =%50%3:2 =%0%4}", "number", [("3 ± 0.1", True), ("3 ± 2", True), ("4", False)]),
        ("{}", "essay", []),
        ("", "description", []),
    ],
)
def test_kinds_and_answers(block: str, kind: str, options: list[tuple[str, bool]]) -> None:
    one = only(f"::T:: Ask {block}")
    assert (one.title, one.stem, one.kind) == ("T", "Ask", kind)
    assert [(text, right) for text, right, _ in one.options] == options
    assert one.pairs == ()


def test_feedback() -> None:
    one = only("Ask {=a#because \\#1 ~b # not -> so #### all in all}")
    assert one.options == (("a", True, "because #1"), ("b", False, "not -> so"))
    assert one.general == "all in all"
    assert only("It rains. {T#no, it does#yes}").options == (("True", True, "yes"), ("False", False, "no, it does"))
    assert only("It rains. {F#no#yes}").options == (("True", False, "no"), ("False", True, "yes"))


def test_pairs() -> None:
    assert from_gift(only("M {=[x] -> 1 =b -> 2}"), "x", Report()).back == "- \\[x]: 1\n- b: 2"
    assert only("Match {=a \\-> b -> c =d -> e -> f}").pairs == (("a \\", "b -> c"), ("d", "e -> f"))


def test_formats(tmp_path: Path) -> None:
    text = (
        "[html]<b>x</b> {}\n\n[markdown]**x** and ![a](b.png) {}\n\n[plain]<b> *x* {}\n\n[moodle]<i>x</i> {}\n\n"
        "[html]A {=[plain]<i> ~<i>b</i>}\n"
    )
    found, losses = drafts(tmp_path, text)
    assert [one.stem for one in found] == ["**x**", "**x** and [picture: a]", "<b> \\*x\\*", "*x*", "A"]
    assert [one for one, _, _ in found[-1].options] == ["<i>", "*b*"]
    assert losses == ["bank.gift:3: picture b.png"]


BANK = r"""// a bank without blank lines
// [id:7] [tag:wind]
$CATEGORY: kites
::One:: A kite needs what? {
// a remark inside
=wind

~rain
}
::Two:: A boat needs what? {=water ~sand}
A train
needs {=rails ~rain} what?
$CATEGORY: weather
::Three:: It rains. {T}
It snows. {F}
The sun is {=out} and
warm.

::Four::
Say why. {}
::Five::Just a text
::Six::And one more
"""


def test_questions_without_blank_lines(tmp_path: Path) -> None:
    found = read_gift(BANK)
    assert [one.title for one in found] == ["One", "Two", "", "Three", "", "", "Four", "Five", "Six"]
    assert [one.line for one in found] == [4, 10, 11, 14, 15, 16, 19, 21, 22]
    assert found[2].stem == "A train\nneeds ____ what?"
    assert found[5].stem == "The sun is ____ and\nwarm."
    assert found[0].origin == {"category": "kites", "id": "7", "tag": "wind"}
    assert found[3].origin == {"category": "weather"}
    assert [text for text, _, _ in found[0].options] == ["wind", "rain"]


def test_a_block_that_is_not_closed_takes_no_other_question() -> None:
    with pytest.raises(PackError, match=r":2: the answer block opened here is not closed"):
        read_gift("// one\nA kite needs {=wind ~rain\n\nA boat needs {=water ~sand}\n")
    assert only("Which opens a block? {={ ~[}").options[0][0] == "{"
    assert len(only("Which?\n{\n=a\n\n~b\n}").options) == 2


BROKEN = """::One:: A kite needs {=wind ~rain}

A boat needs {=water ~sand

A train
needs {=rails ~rain}

A mule needs} hay

M {=a -> b =c}

Who? {=a} And who? {=b}

A car needs {=fuel ~hay
::Two:: It rains. {T}

::Three:: A sledge needs {=snow
"""


def test_a_question_that_cannot_be_read_is_named_and_the_others_are_imported(tmp_path: Path) -> None:
    found, losses = drafts(tmp_path, BROKEN)
    assert [one.stem for one in found] == ["A kite needs", "A train\nneeds", "It rains."]
    why = "a question that cannot be read: "
    unclosed = f"{why}the answer block opened here is not closed; end it with }}"
    assert losses == [
        f"bank.gift:3: {unclosed}",
        f"bank.gift:8: {why}a }} that no {{ opens; write \\}} for a brace in the text",
        f"bank.gift:10: {why}the pair 'c' has no ->; write =left -> right, or \\= for an equals sign",
        f"bank.gift:12: {why}a second answer block on this line; put a blank line between questions",
        f"bank.gift:14: {unclosed}",
        f"bank.gift:17: {unclosed}",
    ]


@pytest.mark.parametrize(
    ("name", "good", "bad", "loss"),
    [
        ("a.csv", "item,kind,topic,concepts,difficulty,question\ng,card,t,c,1,Good\n", "b,card,t,c,1," + "x" * 140_000, "a.csv:3: a row that cannot be read: field larger than field limit (131072)"),
        ("a.txt", "Good\tcard\n", "bad\t" + "x" * 140_000, "a.txt:2: a note that cannot be read: field larger than field limit (131072)"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_read_is_named_and_the_others_are_imported(
    name: str, good: str, bad: str, loss: str, tmp_path: Path
) -> None:
    after = good.splitlines()[-1].replace("Good", "Better")
    found, losses = drafts(tmp_path, f"{good}{bad}\n{after}\n", name)
    assert [one.stem for one in found] == ["Good", "Better"]
    assert losses == [loss]


def test_rows_before_a_quote_that_is_not_closed_are_imported(tmp_path: Path) -> None:
    head = "item,kind,topic,concepts,difficulty,question"
    found, losses = drafts(tmp_path, f'{head}\ng,card,t,c,1,Good\nb,card,t,c,1,"Bad\ng,card,t,c,1,Lost\n', "a.csv")
    assert [one.stem for one in found] == ["Good"]
    assert losses == ["a.csv:3: a row that cannot be read: unexpected end of data"]


def test_notes_before_a_quote_that_is_not_closed_are_imported(tmp_path: Path) -> None:
    found, losses = drafts(tmp_path, 'Good\tcard\nbad\t"card\nlost\tcard\n', "a.txt")
    assert [one.stem for one in found] == ["Good"]
    assert losses == [
        'a.txt:2: the field that a " opens here is not closed, so nothing after it is read; end it with "'
    ]


def test_what_a_pack_cannot_hold_is_listed(tmp_path: Path) -> None:
    text = "One {=a ~%50%b}\n\nTwo {~%70%a ~%30%b ~c}\n\nThree {=a =%40%b}\n\nFour {=<img src\\='x.png'> ~b#<audio src\\=y.mp3>}\n\nFive\n\nSix {=a =%0%b#no}\n\n::Seven::\n"
    found, losses = drafts(tmp_path, text)
    assert [one.back for one in found[5:]] == ["a", ""]
    assert found[-1].stem == "Seven"
    assert losses == [
        "bank.gift:1: the weight of 50 % of 'b'",
        "bank.gift:3: the weight of 70 % of 'a'",
        "bank.gift:3: the weight of 30 % of 'b'",
        "bank.gift:5: the weight of 40 % of 'b'",
        "bank.gift:7: picture x.png",
        "bank.gift:7: audio y.mp3",
        "bank.gift:9: an answer: the text asks nothing",
        "bank.gift:11: the wrong answer 'b', with its feedback",
        "bank.gift:13: an answer: the text asks nothing",
    ]
    assert drafts(tmp_path, "A {~%50%a ~%50%b ~%-50%c ~%-50%d}\n\nB {~%33.333%a ~%33.333%b ~%33.333%c ~d}")[1] == []


XML = """<?xml version="1.0" encoding="UTF-8"?>
<quiz>
<question type="category"><category><text>$course$/kites</text></category></question>
<question type="multichoice"><name><text>One</text></name>
 <questiontext format="html"><text><![CDATA[<p>Which \\(x_1 &lt; 2\\)? <img src="@@PLUGINFILE@@/k.png" alt="a kite"></p>]]></text></questiontext>
 <generalfeedback format="html"><text>So it is.</text></generalfeedback><single>true</single>
 <answer fraction="100" format="html"><text>this</text><feedback format="html"><text>yes</text></feedback></answer>
 <answer fraction="50"><text>half</text></answer><answer fraction="0"><text>that</text></answer>
 <hint format="html"><text>Look &lt;b&gt;up&lt;/b&gt;.</text></hint><tags><tag><text>wind</text></tag></tags></question>
<question type="multichoice"><name><text>Two</text></name><questiontext format="markdown"><text>**Which**?</text></questiontext>
 <single>false</single><answer fraction="50"><text>a</text></answer><answer fraction="50"><text>b</text></answer>
 <answer fraction="-100"><text>c</text></answer></question>
<question type="truefalse"><questiontext format="html"><text>It rains.</text></questiontext>
 <answer fraction="100"><text>true</text></answer><answer fraction="0"><text>false</text></answer></question>
<question type="numerical"><questiontext format="plain_text"><text>How *many*?</text></questiontext>
 <answer fraction="100"><text>3</text><tolerance>0.5</tolerance></answer></question>
<question type="matching"><questiontext format="html"><text>Match</text></questiontext>
 <subquestion format="html"><text>cat</text><answer><text>animal</text></answer></subquestion>
 <subquestion><text></text><answer><text>stone</text></answer></subquestion></question>
<question type="cloze"><name><text>Gaps</text></name><questiontext><text>{1:SA:=a}</text></questiontext></question>
</quiz>
"""


def test_a_file_of_nothing_but_other_kinds_says_which(tmp_path: Path) -> None:
    question = "<question type='cloze'><name><text>Sky</text></name><questiontext><text>{1:SA:=blue}</text></questiontext></question>"
    with pytest.raises(PackError, match=r"Not carried over:\n.*cloze"):
        drafts(tmp_path, f"<quiz>{question}</quiz>", "bank.xml")
    with pytest.raises(PackError, match="a line with one field only: 'front'"):
        drafts(tmp_path, "front\n", "notes.txt")


def test_moodle_xml_of_others(tmp_path: Path) -> None:
    (one, two, true, number, pairs), losses = drafts(tmp_path, XML, "bank.xml")
    assert (one.title, one.stem, one.why, one.hints) == (
        "One", "Which $x_1 < 2$? [picture: a kite]", "So it is.", ("Look **up**.",),
    )  # fmt: skip
    assert one.options == (("this", True, "yes"), ("half", False, ""), ("that", False, ""))
    assert dict(one.origin)["category"] == "$course$/kites"
    assert (two.stem, [right for _, right, _ in two.options]) == ("**Which**?", [True, True, False])
    assert [(text, right) for text, right, _ in true.options] == [("True", True), ("False", False)]
    assert (number.stem, number.back) == ("How \\*many\\*?", "3 ± 0.5")
    assert pairs.back == "- cat: animal"
    assert losses == [
        "bank.xml, question 2 (One): picture @@PLUGINFILE@@/k.png",
        "bank.xml, question 2 (One): the weight of 50 % of 'half'",
        "bank.xml, question 6: the right-hand side 'stone', which belongs to no left-hand side",
        "bank.xml, question 7 (Gaps): a question of type 'cloze'; expected one of multichoice, truefalse, "
        "shortanswer, numerical, matching, ordering, essay, description",
    ]


@pytest.mark.parametrize(
    "hostile", ["{" * 5000, "a {=b " + "\\=" * 50_000 + "}", "::" * 30_000, "~" * 30_000 + "{", "a {=b}\n" * 5000]
)
def test_long_files_take_linear_time(hostile: str) -> None:
    def attempt() -> None:
        with contextlib.suppress(PackError):
            read_gift(hostile)

    assert calls(attempt) < 30 * len(hostile)


ESSAY = """<quiz><question type="essay"><questiontext format="html"><text>Why?</text></questiontext>
<answer fraction="0"><text></text></answer></question>
<question type="numerical"><questiontext format="html"><text>2 + 2?</text></questiontext>
<answer fraction="100"><text>4</text></answer><answer fraction="0"><text>*</text>{0}</answer></question></quiz>
"""


@pytest.mark.parametrize(
    ("feedback", "losses"),
    [("", []), ("<feedback><text>No.</text></feedback>", ["the wrong answer '*', with its feedback"])],
)
def test_an_empty_answer_and_any_other_answer_lose_nothing(tmp_path: Path, feedback: str, losses: list[str]) -> None:
    place = tmp_path / "a.xml"
    place.write_text(ESSAY.format(feedback))
    report = Report()
    assert [draft.back for draft in read(place, report)] == ["", "4"]
    assert [loss.content for loss in report.losses] == losses

"""Read Moodle XML: the kinds of question that GIFT has, orders, and their metadata."""

import math
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from clearhead.course.exchange.gift.parse import GiftQuestion, Text
from clearhead.course.exchange.moodle.xml_tree import xml_tree
from clearhead.course.exchange.report import Lost, Report
from clearhead.errors import PackError

_FORMATS = {"html": "html", "markdown": "markdown", "plain_text": "plain", "moodle_auto_format": "moodle"}
_KINDS = {
    "multichoice": "choice", "truefalse": "truefalse", "shortanswer": "short", "numerical": "number",
    "matching": "match", "ordering": "order", "essay": "essay", "description": "description",
}  # fmt: skip
_TAG = re.compile(r"<[^<>]*>")
# What a draft has no place for.
_LEFT_OUT = {
    "units/unit/unit_name": "the unit",
    "responsetemplate/text": "the text to start from",
    "correctfeedback/text": "the feedback to a right answer",
    "partiallycorrectfeedback/text": "the feedback to a partly right answer",
    "incorrectfeedback/text": "the feedback to a wrong answer",
}


def read_moodle(text: str, file: str, report: Report) -> Iterator[tuple[str, GiftQuestion]]:
    """Yield (place, question) for each question; report kinds that a pack cannot hold.

    Raises:
        PackError: it is not XML, or not a <quiz>.
    """
    quiz = xml_tree(text, file)
    if quiz.tag != "quiz":
        raise PackError(f"its root is <{quiz.tag[:40]}>, and Moodle's is <quiz>; export it as Moodle XML", file=file)
    category, reported = "", set[str]()
    for number, node in enumerate(quiz.iter("question"), 1):
        name, kind = node.findtext("name/text") or "", node.get("type", "")
        place = f"{file}, question {number}" + (f" ({name})" if name else "")
        if kind == "category":
            category = node.findtext("category/text") or ""
        elif kind not in _KINDS:
            report.add(place, f"a question of type {kind[:40]!r}; expected one of {', '.join(_KINDS)}")
        else:
            _report_left_out(node, reported, report.at(place))
            yield place, _question(node, name, _KINDS[kind], category, report.at(place))


def _report_left_out(node: Element, reported: set[str], lost: Lost) -> None:
    """Report what a draft has no place for; a sentence that Moodle gives many questions of a file only once."""
    for path, name in _LEFT_OUT.items():
        for part in node.iterfind(path):
            text = " ".join(_TAG.sub(" ", part.text or "").split())[:60]
            loss = f"{name} {text!r}"
            if text and not ("feedback" in name and loss in reported):
                lost(loss)
                reported.add(loss)


def _question(node: Element, name: str, kind: str, category: str, lost: Lost) -> GiftQuestion:
    markup = next((element.get("format", "") for element in node.iterfind("questiontext")), "")
    given = [(_text(answer, markup), answer) for answer in node.findall("answer")]
    single = kind != "choice" or (node.findtext("single") or "true").strip() in ("true", "1")
    tags = " ".join((element.text or "").strip() for element in node.iterfind("tags/tag/text"))
    origin = {"category": category, "id": node.findtext("idnumber") or "", "tags": tags}
    weights: list[float] = []
    options = []
    if kind == "order":
        given.sort(key=lambda element: _number(element[1].get("fraction"), lost))
    for text, answer in given:
        weight = 100.0 if kind == "order" else _number(answer.get("fraction"), lost)
        right = weight >= 99.9 if single and kind == "choice" else weight > 0
        weights.append(weight)
        feedback = answer.find("feedback")
        options.append((_answer(text, answer, kind), right, Text("") if feedback is None else _text(feedback, markup)))
    return GiftQuestion(
        title=name, stem=_child(node, "questiontext", markup), options=tuple(options),
        pairs=tuple(_pairs(node, markup, lost)), line=0, kind=kind, general=_general(node, kind, markup),
        weights=tuple(weights),
        origin={key: value for key, value in origin.items() if value},
        hints=tuple(_text(hint, markup) for hint in node.findall("hint")),
    )  # fmt: skip


def _pairs(node: Element, markup: str, lost: Lost) -> Iterator[tuple[str, str]]:
    for pair in node.findall("subquestion"):
        left, right = _text(pair, markup), (pair.findtext("answer/text") or "").strip()
        if left:
            yield left, right
        else:
            lost(f"the right-hand side {right!r}, which belongs to no left-hand side")


def _answer(text: Text, answer: Element, kind: str) -> Text:
    tolerance = (answer.findtext("tolerance") or "0").strip()
    if kind == "number" and tolerance.strip("0.") != "":
        return Text(f"{text} ± {tolerance}", "plain")
    if kind == "truefalse":
        return Text(text.capitalize(), "plain")
    return Text(text, "plain") if kind in ("short", "number") else text


def _general(node: Element, kind: str, markup: str) -> Text:
    """The general feedback; for an essay without any, the note to graders."""
    general = _child(node, "generalfeedback", markup)
    return general if general or kind != "essay" else _child(node, "graderinfo", markup)


def _child(node: Element, name: str, markup: str) -> Text:
    child = node.find(name)
    return Text("") if child is None else _text(child, markup)


def _text(node: Element, markup: str) -> Text:
    """Return the text of a node, in its own markup or in that of its question."""
    return Text((node.findtext("text") or "").strip(), _FORMATS.get(node.get("format") or markup, "moodle"))


def _number(text: str | None, lost: Lost) -> float:
    try:
        weight = float(text or 0)
        if math.isfinite(weight):
            return weight
        raise ValueError
    except ValueError:
        lost(f"the weight {(text or '')[:40]!r}, which is not a number")
        return 0.0

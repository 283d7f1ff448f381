"""Read Moodle XML: the kinds of question that GIFT has, orders, and what both say about each."""

from collections.abc import Iterator
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from clearhead.course.exchange.gift_reader import GiftQuestion, Text
from clearhead.course.exchange.report import Lost, Report
from clearhead.errors import PackError

_FORMATS = {"html": "html", "markdown": "markdown", "plain_text": "plain", "moodle_auto_format": "moodle"}
_KINDS = {
    "multichoice": "choice", "truefalse": "truefalse", "shortanswer": "short", "numerical": "number",
    "matching": "match", "ordering": "order", "essay": "essay", "description": "description",
}  # fmt: skip


def read_moodle(text: str, file: str, report: Report) -> Iterator[tuple[str, GiftQuestion]]:
    """(place, question) of each; a kind that a pack cannot hold is reported.

    Raises:
        PackError: it is no XML, or not a <quiz>.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PackError("declares a document type; Moodle's export has none, so it is not read", file=file)
    try:
        quiz = ElementTree.fromstring(text.encode())  # noqa: S314 — without entities, which were refused above
    except ElementTree.ParseError as error:
        raise PackError(f"not valid XML: {error}", file=file, line=error.position[0]) from None
    if quiz.tag != "quiz":
        raise PackError(f"its root is <{quiz.tag}>, and Moodle's is <quiz>; export it as Moodle XML", file=file)
    category = ""
    for number, node in enumerate(quiz.iter("question"), 1):
        name, kind = node.findtext("name/text") or "", node.get("type", "")
        place = f"{file}, question {number}" + (f" ({name})" if name else "")
        if kind == "category":
            category = node.findtext("category/text") or ""
        elif kind not in _KINDS:
            report.add(place, f"a question of type {kind!r}; expected one of {', '.join(_KINDS)}")
        else:
            yield place, _question(node, name, _KINDS[kind], category, report.at(place))


def _question(node: Element, name: str, kind: str, category: str, lost: Lost) -> GiftQuestion:
    given = [(_text(answer, node), answer) for answer in node.findall("answer")]
    single = kind != "choice" or (node.findtext("single") or "true").strip() in ("true", "1")
    tags = " ".join((one.text or "").strip() for one in node.iterfind("tags/tag/text"))
    origin = {"category": category, "id": node.findtext("idnumber") or "", "tags": tags}
    weights: list[float] = []
    options = []
    if kind == "order":
        given.sort(key=lambda one: _number(one[1].get("fraction"), lost))
    for text, answer in given:
        weight = 100.0 if kind == "order" else _number(answer.get("fraction"), lost)
        right = weight >= 99.9 if single and kind == "choice" else weight > 0
        weights.append(weight)
        feedback = answer.find("feedback")
        options.append((_answer(text, answer, kind), right, Text("") if feedback is None else _text(feedback, node)))
    return GiftQuestion(
        title=name, stem=_child(node, "questiontext"), options=tuple(options), pairs=tuple(_pairs(node, lost)), line=0,
        kind=kind, general=_general(node, kind), weights=tuple(weights),
        origin={key: value for key, value in origin.items() if value},
        hints=tuple(_text(hint, node) for hint in node.findall("hint")),
    )  # fmt: skip


def _pairs(node: Element, lost: Lost) -> Iterator[tuple[str, str]]:
    for pair in node.findall("subquestion"):
        left, right = _text(pair, node), (pair.findtext("answer/text") or "").strip()
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


def _general(node: Element, kind: str) -> Text:
    """The general feedback; for an essay without any, what graders are told."""
    general = _child(node, "generalfeedback")
    return general if general or kind != "essay" else _child(node, "graderinfo")


def _child(node: Element, name: str) -> Text:
    child = node.find(name)
    return Text("") if child is None else _text(child, node)


def _text(node: Element, question: Element) -> Text:
    markup = node.get("format") or next((one.get("format", "") for one in question.iterfind("questiontext")), "")
    return Text((node.findtext("text") or "").strip(), _FORMATS.get(markup, "moodle"))


def _number(text: str | None, lost: Lost) -> float:
    try:
        return float(text or 0)
    except ValueError:
        lost(f"the weight {text!r}, which is not a number")
        return 0.0

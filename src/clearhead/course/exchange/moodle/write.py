"""Write Moodle XML: multichoice, matching, ordering and essay questions, with feedback and a stable id number."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from clearhead.course.exchange.markup.inert import category as category_path
from clearhead.course.exchange.markup.markdown import html
from clearhead.course.exchange.question import Question

_TYPES = {"options": "multichoice", "pairs": "matching", "order": "ordering", "text": "essay"}


def write_moodle(questions: Sequence[Question], title: str, place: Path) -> None:
    """Write a question bank, one category per topic."""
    quiz = Element("quiz")
    topic = None
    for question in questions:
        if question.topic != topic:
            topic = question.topic
            category = SubElement(SubElement(quiz, "question", type="category"), "category")
            SubElement(category, "text").text = category_path(title, topic)
        quiz.append(_question(question))
    ElementTree.indent(quiz, " ")
    ElementTree.ElementTree(quiz).write(place, encoding="utf-8", xml_declaration=True)


def _question(question: Question) -> Element:
    node = Element("question", type=_TYPES[question.form])
    _text(SubElement(node, "name"), question.title)
    _html(node, "questiontext", html(question.stem))
    _html(node, "generalfeedback", question.feedback_html)
    SubElement(node, "defaultgrade").text = "1"
    SubElement(node, "penalty").text = "0.3333333"
    SubElement(node, "hidden").text = "0"
    SubElement(node, "idnumber").text = f"{question.pack}/{question.id}"
    {"options": _options, "pairs": _pairs, "order": _order, "text": _essay}[question.form](node, question)
    for hint in question.hints:
        _html(node, "hint", html(hint))
    tags = SubElement(node, "tags")
    for concept in question.concepts:
        _text(SubElement(tags, "tag"), concept)
    return node


def _options(node: Element, question: Question) -> None:
    right = sum(option.correct for option in question.choices)
    SubElement(node, "single").text = "true" if right == 1 else "false"
    SubElement(node, "shuffleanswers").text = "true"
    SubElement(node, "answernumbering").text = "abc"
    for option in question.choices:
        share = 100 / right if option.correct else 0 if right == 1 else -100 / (len(question.choices) - right)
        answer = SubElement(node, "answer", fraction=f"{share:.5f}".rstrip("0").rstrip("."), format="html")
        SubElement(answer, "text").text = html(option.text)
        _html(answer, "feedback", option.feedback_html)


def _pairs(node: Element, question: Question) -> None:
    SubElement(node, "shuffleanswers").text = "true"
    texts = {option.key: option.text for option in question.choices}
    for left, key in question.pairs:
        pair = _html(node, "subquestion", html(left))
        _text(SubElement(pair, "answer"), texts[key])


def _order(node: Element, question: Question) -> None:
    SubElement(node, "layouttype").text = "VERTICAL"
    SubElement(node, "selecttype").text = "ALL"
    SubElement(node, "gradingtype").text = "ALL_OR_NOTHING"
    texts = {option.key: option.text for option in question.choices}
    for place, key in enumerate(question.order, 1):
        answer = SubElement(node, "answer", fraction=str(place), format="html")
        SubElement(answer, "text").text = html(texts[key])


def _essay(node: Element, question: Question) -> None:
    code = question.kind == "code"
    SubElement(node, "responseformat").text = "monospaced" if code else "editor"
    SubElement(node, "responserequired").text = "1"
    SubElement(node, "responsefieldlines").text = "20" if code else "5"
    SubElement(node, "attachments").text = "0"
    _html(node, "graderinfo", html(question.answer))


def _text(node: Element, text: str) -> None:
    SubElement(node, "text").text = text


def _html(parent: Element, name: str, xhtml: str) -> Element:
    node = SubElement(parent, name, format="html")
    _text(node, xhtml)
    return node

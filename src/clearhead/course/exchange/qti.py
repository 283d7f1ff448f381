"""Write QTI 3 and QTI 2.1 packages: one XML file per item, a manifest, a zip. QTI 2.1 is QTI 3 with other names."""

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from clearhead.course.exchange.markup.markdown import elements, html, parsed
from clearhead.course.exchange.question import Question

_QTI3 = "http://www.imsglobal.org/xsd/imsqtiasi_v3p0"
_QTI21 = "http://www.imsglobal.org/xsd/imsqti_v2p1"
_CP = {3: "http://www.imsglobal.org/xsd/qti/qtiv3p0/imscp_v1p1", 2: "http://www.imsglobal.org/xsd/imscp_v1p1"}
_TYPE = {3: "imsqti_item_xmlv3p0", 2: "imsqti_item_xmlv2p1"}
_PACKAGE = {3: "QTI Package", 2: "QTIv2.1 Package"}
_PACKAGE_VERSION = {3: "3.0.0", 2: "1.0.0"}
_TEMPLATE = {
    3: "https://purl.imsglobal.org/spec/qti/v3p0/rptemplates/match_correct.xml",
    2: "http://www.imsglobal.org/question/qti_v2p1/rptemplates/match_correct",
}
_DATE = (2020, 1, 1, 0, 0, 0)  # date of every file in the zip, so that the same pack gives the same bytes


def write_qti(questions: Sequence[Question], title: str, place: Path, *, version: int = 3) -> None:
    """Write the package."""
    files = {f"items/{question.id}.xml": item(question, version) for question in questions}
    with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as package:
        for name, data in [("imsmanifest.xml", _manifest(questions, version)), *files.items()]:
            package.writestr(zipfile.ZipInfo(name, _DATE), data)


def item(question: Question, version: int) -> bytes:
    """Return one assessment item."""
    root = Element("qti-assessment-item", {
        "identifier": f"i-{question.id}", "title": question.title, "adaptive": "false", "time-dependent": "false",
        "{http://www.w3.org/XML/1998/namespace}lang": "en",
    })  # fmt: skip
    _declare(root, question)
    body = SubElement(root, "qti-item-body")
    body.append(parsed(question.asked_html if version == 3 else html(question.stem)))
    _INTERACTIONS[question.form](body, question)
    if question.form in _ANSWERED:
        SubElement(root, "qti-response-processing", {"template": _TEMPLATE[version]})
    remarks = [("FEEDBACK", option.key, option.feedback_html) for option in question.choices if option.feedback_html]
    if question.form in _ANSWERED and question.feedback_html:
        remarks.append(("TOLD", "told", question.feedback_html))
    for outcome, key, words in remarks:
        feedback = SubElement(root, "qti-modal-feedback", {
            "outcome-identifier": outcome, "identifier": key, "show-hide": "show",
        })  # fmt: skip
        holder = SubElement(feedback, "qti-content-body") if version == 3 else feedback
        holder.append(parsed(words))
    if remarks:
        _feedback_processing(root, {outcome for outcome, _, _ in remarks})
    if version == 2:
        _to_qti2(root)
    root.set("xmlns", _QTI3 if version == 3 else _QTI21)
    if question.form == "pairs":
        ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


_ANSWERED = ("options", "pairs", "order")


def _declare(root: Element, question: Question) -> None:
    several = sum(option.correct for option in question.choices) != 1
    cardinality = {"options": "multiple" if several else "single", "pairs": "multiple", "order": "ordered"}
    base = {"options": "identifier", "pairs": "directedPair", "order": "identifier", "text": "string"}
    response = SubElement(root, "qti-response-declaration", {
        "identifier": "RESPONSE", "cardinality": cardinality.get(question.form, "single"),
        "base-type": base[question.form],
    })  # fmt: skip
    right = {
        "options": [option.key for option in question.choices if option.correct],
        "pairs": [f"left-{at} {key}" for at, (_, key) in enumerate(question.pairs, 1)],
        "order": list(question.order),
        "text": [],
    }[question.form]
    if right:
        correct = SubElement(response, "qti-correct-response")
        for value in right:
            SubElement(correct, "qti-value").text = value
    for name, base_type in (("SCORE", "float"), ("FEEDBACK", "identifier"), ("TOLD", "identifier")):
        cardinal = "multiple" if name == "FEEDBACK" and cardinality.get(question.form) == "multiple" else "single"
        SubElement(root, "qti-outcome-declaration", {
            "identifier": name, "cardinality": cardinal, "base-type": base_type,
        })  # fmt: skip


def _choices(body: Element, question: Question) -> None:
    right = sum(option.correct for option in question.choices)
    names = {"response-identifier": "RESPONSE", "shuffle": "true", "max-choices": "1" if right == 1 else "0"}
    interaction = SubElement(body, "qti-choice-interaction", names)
    for option in question.choices:
        SubElement(interaction, "qti-simple-choice", {"identifier": option.key}).append(elements(option.text))


def _pairs(body: Element, question: Question) -> None:
    count = str(len(question.pairs))
    names = {"response-identifier": "RESPONSE", "shuffle": "true", "max-associations": count}
    interaction = SubElement(body, "qti-match-interaction", names)
    lefts, rights = (SubElement(interaction, "qti-simple-match-set") for _ in range(2))
    for at, (left, _) in enumerate(question.pairs, 1):
        node = SubElement(lefts, "qti-simple-associable-choice", {"identifier": f"left-{at}", "match-max": "1"})
        node.append(elements(left))
    for option in question.choices:
        node = SubElement(rights, "qti-simple-associable-choice", {"identifier": option.key, "match-max": "1"})
        node.append(elements(option.text))


def _order(body: Element, question: Question) -> None:
    names = {"response-identifier": "RESPONSE", "shuffle": "true"}
    interaction = SubElement(body, "qti-order-interaction", names)
    for option in question.choices:
        SubElement(interaction, "qti-simple-choice", {"identifier": option.key}).append(elements(option.text))


def _text(body: Element, question: Question) -> None:
    names = {"response-identifier": "RESPONSE", "expected-lines": "8"}
    SubElement(body, "qti-extended-text-interaction", names)
    rubric = Element("qti-rubric-block", {"view": "scorer", "use": "instructions"})
    holder = SubElement(rubric, "qti-content-body")
    holder.append(parsed(question.feedback_html))
    body.insert(0, rubric)


_INTERACTIONS = {"options": _choices, "pairs": _pairs, "order": _order, "text": _text}


def _feedback_processing(root: Element, outcomes: set[str]) -> None:
    """Match the response, then show the feedback of the chosen options and of the item. The template shows none."""
    processing = next(node for node in root if node.tag == "qti-response-processing")
    processing.attrib.clear()
    condition = SubElement(processing, "qti-response-condition")
    branch = SubElement(condition, "qti-response-if")
    match = SubElement(branch, "qti-match")
    SubElement(match, "qti-variable", {"identifier": "RESPONSE"})
    SubElement(match, "qti-correct", {"identifier": "RESPONSE"})
    _set(branch, "SCORE", "1")
    _set(SubElement(condition, "qti-response-else"), "SCORE", "0")
    if "FEEDBACK" in outcomes:
        node = SubElement(processing, "qti-set-outcome-value", {"identifier": "FEEDBACK"})
        SubElement(node, "qti-variable", {"identifier": "RESPONSE"})
    if "TOLD" in outcomes:
        _set(processing, "TOLD", "told", "identifier")


def _set(parent: Element, name: str, value: str, base_type: str = "float") -> None:
    node = SubElement(parent, "qti-set-outcome-value", {"identifier": name})
    SubElement(node, "qti-base-value", {"base-type": base_type}).text = value


def _to_qti2(root: Element) -> None:
    """Rename elements for QTI 2.1, as in qti-response-declaration to responseDeclaration; unwrap content bodies."""
    for parent in root.iter():
        for at, child in enumerate(list(parent)):
            if child.tag == "qti-content-body":
                parent[at : at + 1] = list(child)
    for node in root.iter():
        if node.tag.startswith("qti-"):
            node.tag = _camel(node.tag.removeprefix("qti-"))
            node.attrib = {_camel(key): value for key, value in node.attrib.items()}


def _camel(name: str) -> str:
    return re.sub(r"-([a-z])", lambda match: match[1].upper(), name) if not name.startswith("{") else name


def _manifest(questions: Sequence[Question], version: int) -> bytes:
    root = Element("manifest", {"identifier": "clearhead", "xmlns": _CP[version]})
    metadata = SubElement(root, "metadata")
    SubElement(metadata, "schema").text = _PACKAGE[version]
    SubElement(metadata, "schemaversion").text = _PACKAGE_VERSION[version]
    SubElement(root, "organizations")
    resources = SubElement(root, "resources")
    for question in questions:
        href = f"items/{question.id}.xml"
        resource = SubElement(resources, "resource", identifier=f"i-{question.id}", type=_TYPE[version], href=href)
        SubElement(resource, "file", href=href)
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)

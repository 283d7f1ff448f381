"""Turn Moodle's questions into drafts."""

from collections.abc import Callable

from clearhead.course.exchange.draft import Draft, pair_row
from clearhead.course.exchange.gift.parse import GiftQuestion
from clearhead.course.exchange.markup.convert import from_html, from_markdown, from_text
from clearhead.course.exchange.report import Lost, Report


def from_gift(question: GiftQuestion, place: str, report: Report) -> Draft:
    """Return the draft of a question read from GIFT or Moodle XML. Report weights that a pack cannot hold."""
    lost = report.at(place)
    hints: list[str] = []
    shown = _markdown(lost, hints)
    stem, why = shown(question.stem) or from_text(question.title), shown(question.general)
    hints += [shown(hint) for hint in question.hints]
    origin = (("imported from", place), *question.origin.items())
    if question.kind == "match":
        listed = "\n".join(pair_row(shown(left), right) for left, right in question.pairs)
        note = "pairs; make it a match item"
        return Draft(question.title, stem, listed, note=note, why=why, hints=tuple(hints), origin=origin)
    if question.kind == "order":
        steps = "\n\n".join(shown(text) for text, _, _ in question.options)
        note = "steps; make it an order item"
        return Draft(question.title, stem, steps, note=note, why=why, hints=tuple(hints), origin=origin)
    _report_weights(question, lost)
    options = tuple((shown(text), right, shown(feedback)) for text, right, feedback in question.options)
    if question.kind in ("choice", "truefalse"):
        if not any(right for _, right, _ in options):
            lost("the right answer: no option has a positive weight of 100 %")
        return Draft(question.title, stem, "", options, why=why, hints=tuple(hints), origin=origin)
    answers = ["\n\n".join(part for part in (text, feedback) if part) for text, right, feedback in options if right]
    for text, right, feedback in question.options:
        # Moodle gives every essay an empty answer; * is any other answer, which is wrong here anyway.
        if not right and (feedback or text.strip() not in ("", "*")):
            lost(f"the wrong answer {' '.join(text.split())[:60]!r}" + (", with its feedback" if feedback else ""))
    if question.kind in ("essay", "description"):
        answers, why = [why], ""
        if question.kind == "description":
            lost("an answer: the text asks nothing")
    back = "\n\n".join(part for part in answers if part)
    return Draft(question.title, stem, back, why=why, hints=tuple(hints), origin=origin)


def _markdown(lost: Lost, hints: list[str]) -> Callable[[str], str]:
    def shown(text: str) -> str:
        markup = getattr(text, "markup", "moodle")
        if markup == "markdown":
            return from_markdown(text, lost)
        return from_text(text) if markup == "plain" else from_html(text, lost, hints)

    return shown


def _report_weights(question: GiftQuestion, lost: Lost) -> None:
    """Report partial credit. A response in a pack is right or wrong as a whole: all right options, no wrong one."""
    rights = [weight for weight, (_, right, _) in zip(question.weights, question.options, strict=True) if right]
    several = question.kind == "choice" and len(rights) > 1 and abs(sum(rights) - 100) < 1
    expected = 100 / len(rights) if several else 100.0
    wrongs = [weight for weight, (_, right, _) in zip(question.weights, question.options, strict=True) if not right]
    penalty = wrongs[0] if several and len(set(wrongs)) == 1 else 0.0
    for weight, (text, right, _) in zip(question.weights, question.options, strict=True):
        if abs(weight - (expected if right else penalty)) > 0.1:
            lost(f"the weight of {weight:g} % of {' '.join(text.split())[:60]!r}")

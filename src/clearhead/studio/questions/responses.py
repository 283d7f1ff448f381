"""Parse a form into the response that the course grades, with one reader for each form of question."""

import ast
import warnings
from collections.abc import Callable, Mapping

from starlette.datastructures import FormData

from clearhead.studio.questions.question import Question
from clearhead.studio.text.field_limits import TooLong, fitting
from clearhead.studio.text.translation import _, explained

GRADES = ("again", "good")


class Incomplete(ValueError):
    """The form is incomplete or a field is too long. The message says which, and the question is shown again."""


def read(question: Question, form: FormData) -> object:
    """Return the response in this form, as `course.grade` takes it.

    Raises:
        Incomplete: something is missing or too long; nothing is recorded.
    """
    return _READERS[question.form](question, form)


def _card(question: Question, form: FormData) -> object:
    grade = form.get("response")
    if grade not in GRADES:
        raise Incomplete(_("Say whether you knew it."))
    return grade


def _options(question: Question, form: FormData) -> object:
    letters = form.getlist("response")
    keys = sorted({lettered.option.key for lettered in question.options if lettered.letter in letters})
    if not keys or (len(keys) > 1 and not question.several):
        raise Incomplete(_("Choose at least one option first.") if question.several else _("Choose an option first."))
    return keys if question.several else keys[0]


def _typed(question: Question, form: FormData) -> object:
    text = _text(form, "typed", "typed")
    if not text:
        raise Incomplete(_("Type what it prints first."))
    return f"{text}\n" if question.proved.option(text) else text  # "a" typed as output is not the option with key a


def _worked(question: Question, form: FormData) -> object:
    given = {step.key: _text(form, f"step-{step.key}", "step") for step in question.asked_steps}
    if not all(given.values()):
        raise Incomplete(_("Give a result for each step first."))
    return given


def _explain(question: Question, form: FormData) -> object:
    text = _text(form, "text", "text")
    if not text:
        raise Incomplete(_("Write a sentence or two first."))
    if "confirmed" not in form:
        return text
    ticked = form.getlist("tick")
    return {"text": text, "ticks": {criterion.id: criterion.id in ticked for criterion in question.proved.criteria}}


def _code(question: Question, form: FormData) -> object:
    program = _text(form, "program", "program", strip=False)
    if not program.strip():
        raise Incomplete(_("Write a program first."))
    try:
        with warnings.catch_warnings(action="ignore"):
            ast.parse(program)
    except SyntaxError as problem:
        raise Incomplete(
            _(
                "Line %(line)s is not Python yet: %(problem)s. Nothing was run, and no try was counted.",
                line=problem.lineno or 1,
                problem=problem.msg,
            )
        ) from problem
    except (ValueError, RecursionError, MemoryError) as problem:  # a NUL character, or nested too deeply to parse
        raise Incomplete(_("Python cannot read this program. Nothing was run, and no try was counted.")) from problem
    return program


def _order(question: Question, form: FormData) -> object:
    places = {lettered.step.key: _text(form, f"place-{lettered.letter}", "typed") for lettered in question.loose_steps}
    if sorted(places.values()) != sorted(str(place + 1) for place in range(len(places))):
        raise Incomplete(_("Give each step a different place first."))
    return sorted(places, key=lambda key: int(places[key]))


def _match(question: Question, form: FormData) -> object:
    keys = {lettered.letter: lettered.option.key for lettered in question.options}
    given = {step.key: keys.get(_text(form, f"pair-{step.key}", "typed"), "") for step in question.proved.steps}
    if not all(given.values()):
        raise Incomplete(_("Choose something for each line first."))
    return given


def _text(form: FormData, name: str, kind: str, *, strip: bool = True) -> str:
    value = form.get(name, "")
    try:
        text = fitting(kind, value) if isinstance(value, str) else ""
    except TooLong as problem:
        raise Incomplete(explained(problem)) from problem
    return text.strip() if strip else text


_READERS: Mapping[str, Callable[[Question, FormData], object]] = {
    "card": _card,
    "options": _options,
    "typed": _typed,
    "worked": _worked,
    "explain": _explain,
    "code": _code,
    "order": _order,
    "match": _match,
}

"""A learner's note on a question, and the text of a report to its author."""

from typing import Annotated

from fastapi import APIRouter, Form, HTTPException
from fastapi.responses import RedirectResponse, Response

from clearhead.course import Attempt
from clearhead.studio.questions.question import Question
from clearhead.studio.text.field_limits import fitting
from clearhead.studio.text.translation import _
from clearhead.studio.web.context import CurrentContext

router = APIRouter()


@router.post("/notes")
def write(
    context: CurrentContext,
    item: Annotated[str, Form()],
    text: Annotated[str, Form()] = "",
    attempt: Annotated[str, Form()] = "",
) -> Response:
    if item not in context.library.items:
        raise HTTPException(404, _("There is no question %(item)s here.", item=item))
    context.store.keep(f"note:{item}", fitting("note", text).strip())
    known = context.store.attempt(attempt) if attempt else None
    return RedirectResponse(f"/attempts/{known.id}#note" if known else f"/items/{item}", 303)


def report(question: Question, attempt: Attempt) -> str:
    """Return a text that shows the author what the learner saw."""
    receipt = question.proved.receipt
    versions = ", ".join(f"{name} {version}" for name, version in sorted(receipt.versions.items()))
    return (
        f"{question.pack.id} {question.pack.version}, {question.item.file}, rev {question.item.rev}\n"
        f"item {receipt.item_hash[:16]}, seed {receipt.seed}, outcome {receipt.outcome[:16]}\n"
        f"{versions}\n"
        + _("Answered: %(response)s", response=repr(attempt.response))
        + f" ({_('right') if attempt.correct else _('wrong')})\n\n"
        + _("What is wrong:")
        + "\n"
    )

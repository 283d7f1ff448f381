"""Answer the question on a page, right or wrong as requested; the proof says which answer is right."""

from pathlib import Path

from itsdangerous import URLSafeSerializer
from playwright.sync_api import Page

from clearhead.course import prove
from clearhead.studio.library.library import Library, fill
from clearhead.studio.questions.draft import Draft
from clearhead.studio.questions.question import Question


class Answerer:
    """Answers questions of the shipped course, with the proofs in a folder, or by proving them."""

    def __init__(self, proofs: Path) -> None:
        self._proofs = proofs
        self._shelf: Library | None = None

    def answer(self, page: Page, *, right: bool) -> None:
        """Fill in the form of this page and send it."""
        question = self._question(page)
        if question.form == "options":
            letters = [one.letter for one in question.options if one.option.correct == right]
            for letter in letters if right else letters[:1]:
                page.locator(f"input[name=response][value={letter}]").check()
        for step in question.asked_steps if question.form == "worked" else ():
            page.locator(f"[name=step-{step.key}]").fill(step.result.strip() if right else "1")
        if question.form == "order":
            keys = list(question.proved.orders[0])[:: 1 if right else -1]
            for one in question.loose_steps:
                page.locator(f"[name=place-{one.letter}]").select_option(str(keys.index(one.step.key) + 1))
        if question.form == "match":
            letters = {one.option.key: one.letter for one in question.options}
            chosen = [letters[step.right] for step in question.proved.steps]
            for step, letter in zip(question.proved.steps, chosen if right else chosen[1:] + chosen[:1], strict=True):
                page.locator(f"[name=pair-{step.key}]").select_option(letter)
        with page.expect_navigation():
            page.get_by_role("button", name="Answer", exact=False).first.click()

    def _question(self, page: Page) -> Question:
        library = self._shelf = self._shelf or fill(None, self._proofs)
        _, said = URLSafeSerializer("").loads_unsafe(page.locator("[name=ticket]").first.input_value())
        ticket = Draft(assessment=said.pop("sitting", ""), **said)
        item, pack = library.items[ticket.item], library.pack_of(ticket.item)
        own = library.proved[item.id]
        proved = own if own.receipt.seed == ticket.seed else prove(item, pack, seed=ticket.seed)
        return Question(ticket, item, proved, pack)

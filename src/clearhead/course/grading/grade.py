"""Grade a response against a proof. If a known misconception explains a wrong response, the verdict names it."""

from collections.abc import Callable, Mapping, Sequence

from clearhead.course.grading.compare import same_output
from clearhead.course.grading.parts import explained, grade_match, grade_text, grade_worked
from clearhead.course.grading.programs import grade_order, grade_program
from clearhead.course.grading.verdict import Verdict
from clearhead.course.pack.item import Item, Pack
from clearhead.course.proofs.proved import Option, Proved
from clearhead.errors import OptionError
from clearhead.messages import message


def grade(item: Item, proved: Proved, response: object, pack: Pack | None = None, *, owner: str = "") -> Verdict:
    """Return whether `response` is right, and why.

    Args:
        pack: needed for code, debug programs and wrong orders, which are run: it says what to preload.
        response: by kind. card: "again" or "good". choice, predict, debug, tune: an option's key, or a list of keys;
            predict and tune also take typed text, debug a whole program. worked: {step key: typed result}.
            code: a program. order: the keys in order. match: {pair key: option key}. explain: text, or
            {"text": …, "ticks": {criterion: bool}} once the learner has confirmed the suggested ticks.
        owner: whose program it is, for responses that are run: see `sandbox.run`.
    Returns:
        Verdict. For a wrong response it has the belief behind it, the counterexample that was run, and the rationale.
    Raises:
        OptionError: the response has a form this kind does not take.

    >>> from clearhead.course.proofs.proved import Receipt
    >>> right, wrong = Option("a", "2", True), Option("b", "4", False, "no-scale", "Nothing divides.", "4 is not 2")
    >>> proved = Proved("i", "predict", Receipt("", 0, {}, ""), "?", "2", "Divide.", (right, wrong))
    >>> item = Item("i", "predict", "t", 1, "?", "Divide.", "items/i.md", "")
    >>> verdict = grade(item, proved, "b")
    >>> verdict.correct, verdict.why, verdict.counterexample, verdict.rule
    (False, 'Nothing divides.', '4 is not 2', 'Divide.')
    """
    if item.kind == "code" or (item.kind == "debug" and isinstance(response, str) and not proved.option(response)):
        return grade_program(item, proved, response, pack.preload if pack else (), owner)
    if item.kind == "order":
        return grade_order(item, proved, response, pack.preload if pack else (), owner)
    return _GRADERS[item.kind](item, proved, response)


def _card(item: Item, proved: Proved, response: object) -> Verdict:
    if response not in ("again", "good"):
        raise OptionError(f'a card is graded "again" or "good" by the learner, not {response!r}')
    return Verdict(response == "good", "", proved.rule, proved.back, yours=str(response), suggested=True)


def _options(item: Item, proved: Proved, response: object) -> Verdict:
    keys = [response] if isinstance(response, str) else response
    if not isinstance(keys, Sequence) or not keys:
        raise OptionError(f"expected an option's key or a list of keys, not {response!r}")
    chosen = [proved.option(str(key)) for key in keys]
    if None not in chosen:
        return _chosen(proved, [option for option in chosen if option])
    if isinstance(response, str) and item.kind in ("predict", "tune"):
        return _typed(item, proved, response)
    known = ", ".join(option.key for option in proved.options)
    raise OptionError(f"{response!r} is not among the options {known}")


def _chosen(proved: Proved, chosen: Sequence[Option]) -> Verdict:
    right = {option.key for option in proved.options if option.correct}
    keys = {option.key for option in chosen}
    wrong = next((option for option in chosen if not option.correct), None)
    yours = "\n\n".join(option.text for option in chosen)
    if wrong:
        return explained(proved, wrong, yours)
    if keys != right:
        reason = message("What you chose is right. Right options not chosen: %(count)s.", count=len(right - keys))
        return Verdict(False, reason, proved.rule, proved.answer, chosen[0], yours=yours)
    return Verdict(
        True, "", proved.rule, proved.answer, chosen[0], rationale=chosen[0].rationale, yours=yours,
        figure=chosen[0].figure,
    )  # fmt: skip


def _typed(item: Item, proved: Proved, typed: str) -> Verdict:
    """Grade typed text: right if it equals the answer; if it equals a distractor, explain that misconception."""
    by_output = sorted(proved.options, key=lambda option: not option.correct)
    for option in by_output:
        if same_output(typed, option.output, item.tolerance if option.correct else 0.0, item.unit):
            if option.correct:
                return Verdict(True, "", proved.rule, proved.answer, option, rationale=option.rationale, yours=typed)
            return explained(proved, option, typed)
    reason = message("That is not what the program gives.")
    return Verdict(False, reason, proved.rule, proved.answer, rationale=proved.rationale, yours=typed)


_GRADERS: Mapping[str, Callable[[Item, Proved, object], Verdict]] = {
    "card": _card,
    "choice": _options,
    "predict": _options,
    "debug": _options,
    "tune": _options,
    "worked": grade_worked,
    "match": grade_match,
    "explain": grade_text,
}
